"""Image files as they are shown."""

import numpy as np
import pytest
import torch
from data_files import DataError
from image_files import Frame, read_frame, read_upright
from PIL import Image, ImageOps


def save_turned(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_and_boxes_alike(tmp_path, orientation):
    stored = np.zeros((12, 20, 3), np.uint8)
    stored[2:5, 3:10] = 255
    path = tmp_path / "a.png"
    save_turned(path, stored, orientation)
    image, frame = np.asarray(read_upright(path)), read_frame(path)
    assert frame.shown == image.shape[1::-1]
    x1, y1, x2, y2 = frame.show((3, 2, 10, 5))
    assert (image[y1:y2, x1:x2] == 255).all()
    assert image.astype(bool).sum() == (y2 - y1) * (x2 - x1) * 3
    with Image.open(path) as opened:
        assert np.array_equal(image, np.asarray(ImageOps.exif_transpose(opened)))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_exif_does_not_know_is_upright(tmp_path, orientation):
    save_turned(tmp_path / "a.png", np.zeros((12, 20, 3), np.uint8), orientation)
    assert read_frame(tmp_path / "a.png") == Frame((20, 12), 1)


def test_exif_that_is_cut_off_does_not_matter(tmp_path):
    path = tmp_path / "a.jpg"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06"
    Image.new("RGB", (20, 12)).save(path, exif=exif)
    assert read_frame(path) == Frame((20, 12), 1)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_and_not_cut_off(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(path)
    read_frame(path)
    assert np.asarray(read_upright(path)).tolist() == [[[value] * 3 for value in (0, 1, 128, 255)]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_of_8_bits_are_read(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new("RGB", (6, 4), "white").convert(mode).save(path)
    assert np.asarray(read_upright(path)).min() == 255


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(np.full((2, 2), 70000, np.int32), "grey from 70000 to 70000", id="32 bits"),
        pytest.param(np.full((2, 2), 0.5, np.float32), "floating-point grey", id="float"),
    ],
)
def test_an_image_whose_white_is_unknown_is_refused(tmp_path, values, message):
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=f"a.tif: cannot be read .{message}"):
        read_frame(path)


def test_a_truncated_jpeg_is_found_when_the_data_are_loaded(tmp_path):
    path = tmp_path / "a.jpg"
    noise = torch.randint(256, (64, 64, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a.jpg: cannot be read \(image file is truncated.*whole"):
        read_frame(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "no known format, expected an image", id="empty"),
        pytest.param(b"version https://git-lfs", "no known format", id="a text"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "cannot be read|no known", id="a header"
        ),
        pytest.param(None, "not there, expected an image", id="missing"),
    ],
)
def test_a_file_that_is_no_image(tmp_path, content, message):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.png: ({message})") as error:
        read_frame(path)
    assert "\n" not in str(error.value)
