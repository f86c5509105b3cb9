"""Box formats: one box written in all of them, and every way from one to another."""

import itertools

import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from torch.autograd import gradcheck
from torch.testing import assert_close
from torchvision.ops import box_convert

from detloss.boxes import FORMATS, convert_boxes

SIZE = (100, 200)
# corners (10, 20) and (30, 60): 20 wide, 40 high, centre (20, 40), in an image 200 wide, 100 high
ONE_BOX = {
    "xyxy": [10.0, 20.0, 30.0, 60.0],
    "xywh": [10.0, 20.0, 20.0, 40.0],
    "cxcywh": [20.0, 40.0, 20.0, 40.0],
    "xyxyn": [0.05, 0.2, 0.15, 0.6],
    "xywhn": [0.05, 0.2, 0.1, 0.4],
    "cxcywhn": [0.1, 0.4, 0.1, 0.4],
}
EVERY_WAY = list(itertools.product(FORMATS, repeat=2))
PIXELS_ONLY = [way for way in EVERY_WAY if not any(name.endswith("n") for name in way)]


def reference_convert(box, source, target, height, width):
    """The definitions on Python floats, over (left, top, width, height) in pixels."""
    first, second, third, fourth = box
    if source.endswith("n"):
        first, second, third, fourth = (
            first * width,
            second * height,
            third * width,
            fourth * height,
        )
    w, h = (third - first, fourth - second) if source.startswith("xyxy") else (third, fourth)
    left, top = (first - w / 2, second - h / 2) if source.startswith("cxcy") else (first, second)

    position = (left + w / 2, top + h / 2) if target.startswith("cxcy") else (left, top)
    extent = (left + w, top + h) if target.startswith("xyxy") else (w, h)
    if target.endswith("n"):
        position = (position[0] / width, position[1] / height)
        extent = (extent[0] / width, extent[1] / height)
    return [*position, *extent]


def test_the_six_formats_are_those_of_the_table():
    assert set(FORMATS) == set(ONE_BOX)


@pytest.mark.parametrize(("source", "target"), EVERY_WAY)
def test_one_box_worked_by_hand(source, target):
    box = torch.tensor([ONE_BOX[source]], dtype=torch.float64)
    expected = torch.tensor([ONE_BOX[target]], dtype=torch.float64)
    assert_close(convert_boxes(box, source, target, image_size=SIZE), expected)


@given(box_pairs())
def test_every_way_follows_the_definitions(pair):
    boxes, _ = pair
    for source, target in EVERY_WAY:
        expected = [reference_convert(box, source, target, 480, 640) for box in boxes.tolist()]
        converted = convert_boxes(boxes, source, target, image_size=(480, 640))
        assert_close(converted, torch.tensor(expected, dtype=torch.float64))


@given(box_pairs())
def test_there_and_back(pair):
    boxes, _ = pair
    for source, target in EVERY_WAY:
        there = convert_boxes(boxes, source, target, image_size=(480, 640))
        assert_close(convert_boxes(there, target, source, image_size=(480, 640)), boxes)


@pytest.mark.parametrize(("source", "target"), PIXELS_ONLY)
def test_pixel_formats_agree_with_torchvision(source, target):
    boxes = random_boxes(20)
    assert_close(convert_boxes(boxes, source, target), box_convert(boxes, source, target))


def test_coordinates_are_continuous():
    # pixel 0 alone is 1 wide; with inclusive coordinates it would be (0, 0, 0, 0)
    pixel = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert_close(convert_boxes(pixel, "xyxy", "xywh"), pixel)


def test_an_inverted_box_stays_inverted():
    inverted = torch.tensor([30.0, 60.0, 10.0, 20.0])
    as_size = convert_boxes(inverted, "xyxy", "xywh")
    assert_close(as_size, torch.tensor([30.0, 60.0, -20.0, -40.0]))
    assert_close(convert_boxes(as_size, "xywh", "xyxy"), inverted)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 0, 4), (2, 3, 4)])
def test_shape_is_kept(shape):
    for source, target in EVERY_WAY:
        converted = convert_boxes(torch.rand(shape), source, target, image_size=SIZE)
        assert converted.shape == shape, (source, target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    box = torch.tensor([[8.0, 16.0, 24.0, 64.0]], dtype=dtype)
    converted = convert_boxes(box, "xyxy", "cxcywhn", image_size=(128, 256))
    expected = torch.tensor([[0.0625, 0.3125, 0.0625, 0.375]], dtype=dtype)  # exact in binary
    assert torch.equal(converted, expected)
    assert converted.dtype == dtype


@pytest.mark.parametrize(("source", "target"), EVERY_WAY)
def test_gradient(source, target):
    boxes = random_boxes(3).requires_grad_()
    assert gradcheck(lambda b: convert_boxes(b, source, target, image_size=SIZE), boxes)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param("xyxy", "cxcywh", id="pixels to pixels"),
        pytest.param("xywhn", "cxcywhn", id="fractions to fractions"),
        pytest.param("xyxyn", "xyxyn", id="nothing to do"),
    ],
)
def test_no_image_size_where_the_unit_stays(source, target):
    box = torch.tensor(ONE_BOX[source])
    assert_close(convert_boxes(box, source, target), torch.tensor(ONE_BOX[target]))


@pytest.mark.parametrize(
    ("boxes", "source", "target", "image_size", "error", "message"),
    [
        pytest.param(
            torch.zeros(2, 5),
            "xyxy",
            "xywh",
            None,
            ValueError,
            r"boxes must have shape \(\.\.\., 4\), got \(2, 5\)",
            id="last axis 5",
        ),
        pytest.param(
            torch.zeros(2, 4, dtype=torch.int32),
            "xyxy",
            "xywh",
            None,
            TypeError,
            "boxes must be floating point, got torch.int32",
            id="integers",
        ),
        pytest.param(
            torch.zeros(2, 4),
            "ltrb",
            "xywh",
            None,
            ValueError,
            "source must be one of xyxy, xywh, cxcywh, xyxyn, xywhn, cxcywhn, got 'ltrb'",
            id="unknown source",
        ),
        pytest.param(
            torch.zeros(2, 4),
            "xyxy",
            "XYWH",
            None,
            ValueError,
            "target must be one of .*, got 'XYWH'",
            id="unknown target",
        ),
        pytest.param(
            torch.zeros(2, 4),
            "xyxy",
            "xyxyn",
            None,
            ValueError,
            "image_size is needed to convert 'xyxy' to 'xyxyn', got None",
            id="pixels to fractions of what",
        ),
        pytest.param(
            torch.zeros(2, 4),
            "cxcywhn",
            "xyxy",
            (0, 5),
            ValueError,
            r"image_size must be two positive \(height, width\), got \(0, 5\)",
            id="image without height",
        ),
    ],
)
def test_rejects(boxes, source, target, image_size, error, message):
    with pytest.raises(error, match=message):
        convert_boxes(boxes, source, target, image_size=image_size)
