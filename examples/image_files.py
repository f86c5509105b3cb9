"""Reading an image file as it is shown: upright, in 8-bit RGB.

A camera stores the pixels as its sensor lies, and in EXIF how to turn them. What browsers show, and
so what is labelled with most tools, is the turned image.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data_files import DataError
from PIL import ExifTags, Image, UnidentifiedImageError

Box = tuple[float, float, float, float]
Size = tuple[int, int]

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what shows the image upright. From 5 on width and height change places."""

GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of 16-bit grey; "I" has room for 32 bits and is what it reads some files as."""


@dataclass(frozen=True)
class Frame:
    """How the pixels of a file lie.

    Attributes:
        stored: (width, height) of the file.
        orientation: EXIF's, from 1, upright, to 8.
    """

    stored: Size
    orientation: int

    @property
    def shown(self) -> Size:
        """(width, height) of the upright image."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else (width, height)

    def show(self, box: Box) -> Box:
        """A box (x1, y1, x2, y2) of the stored pixels in those of the upright image."""
        width, height = self.stored
        x1, y1, x2, y2 = box
        if self.orientation in (2, 3, 7, 8):  # stored at the right, shown at the left or on top
            x1, x2 = width - x2, width - x1
        if self.orientation in (3, 4, 6, 7):  # stored at the bottom, shown on top or at the left
            y1, y2 = height - y2, height - y1
        return (y1, x1, y2, x2) if self.orientation >= 5 else (x1, y1, x2, y2)


def read_frame(path: Path) -> Frame:
    """How the pixels of a file lie. They are read to the last, so that damage is found.

    Raises:
        DataError: If the file is no image that can be read.
    """
    with opened(path) as image:
        frame = frame_of(image)
        image.draft("RGB", (1, 1))  # decodes an eighth of a JPEG's sides, from all of its bytes
        eight_bit(image)
    return frame


def read_upright(path: Path) -> Image.Image:
    """The image as it is shown, in RGB.

    Raises:
        DataError: If the file is no image that can be read.
    """
    with opened(path) as image:
        turn = TURNS.get(frame_of(image).orientation)
        pixels = eight_bit(image)
        return pixels if turn is None else pixels.transpose(turn)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file; whatever goes wrong with it is a `DataError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for EXIF that is cut off: the pixels are fine
            with Image.open(path) as image:
                yield image
    except FileNotFoundError:
        raise DataError(path, None, "not there, expected an image") from None
    except UnidentifiedImageError:
        raise DataError(path, None, "no known format, expected an image") from None
    except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError ...
        problem = f"cannot be read ({error}), expected a whole image"
        raise DataError(path, None, problem) from None


def frame_of(image: Image.Image) -> Frame:
    """How the pixels of an opened image lie; an orientation that EXIF does not know is upright."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return Frame(image.size, orientation if orientation in TURNS else 1)


def eight_bit(image: Image.Image) -> Image.Image:
    """The image in RGB with 8 bits a channel; 16-bit grey is scaled, where Pillow would cut it off.

    Raises:
        ValueError: If it has floating-point pixels or more than 16 bits: their white is unknown.
    """
    if image.mode in GREY_16:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"grey from {values.min()} to {values.max()}, not within 16 bits")
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point grey, not 8 or 16 bits")
    return image.convert("RGB")
