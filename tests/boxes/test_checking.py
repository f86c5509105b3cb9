"""What every function over boxes asks of its arguments."""

import pytest
import torch

from detloss.boxes.checking import check_boxes, check_image_size
from detloss.tensors import check_floating, check_same_shape, widen


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((4,), id="one box"),
        pytest.param((0, 4), id="no boxes"),
        pytest.param((2, 3, 4), id="boxes of two images"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_boxes_of_any_leading_shape_and_float_dtype_pass(shape, dtype):
    check_boxes("boxes", torch.zeros(shape, dtype=dtype))


def test_values_are_not_looked_at():
    check_boxes("boxes", torch.tensor([float("nan"), float("inf"), 0.0, -1.0]))


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        pytest.param(
            [[0.0, 0.0, 1.0, 1.0]], TypeError, "pred must be a tensor, got list", id="a list"
        ),
        pytest.param(
            torch.zeros(1, 4, dtype=torch.int64),
            TypeError,
            "pred must be floating point, got torch.int64",
            id="integers",
        ),
        pytest.param(
            torch.zeros(2, 5),
            ValueError,
            r"pred must have shape \(\.\.\., 4\), got \(2, 5\)",
            id="boxes with a score",
        ),
        pytest.param(
            torch.zeros(0),
            ValueError,
            r"pred must have shape \(\.\.\., 4\), got \(0,\)",
            id="no boxes, as torch.tensor([])",
        ),
        pytest.param(
            torch.tensor(1.0),
            ValueError,
            r"pred must have shape \(\.\.\., 4\), got \(\)",
            id="a scalar has no last axis",
        ),
    ],
)
def test_rejects_boxes(boxes, error, message):
    with pytest.raises(error, match=message):
        check_boxes("pred", boxes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "logits must be a tensor, got NoneType"),
        (torch.tensor([True]), "logits must be floating point, got torch.bool"),
    ],
)
def test_rejects_what_is_not_floating(values, message):
    with pytest.raises(TypeError, match=message):
        check_floating("logits", values)


def test_same_shape_does_not_broadcast():
    check_same_shape("pred", torch.zeros(3, 4), "target", torch.zeros(3, 4))
    message = r"pred and target must have the same shape, got \(3, 4\) and \(1, 4\)"
    with pytest.raises(ValueError, match=message):
        check_same_shape("pred", torch.zeros(3, 4), "target", torch.zeros(1, 4))


@pytest.mark.parametrize("size", [(480, 640), [480, 640], torch.Size([480, 640])])
def test_image_size_keeps_the_order(size):
    assert check_image_size(size) == (480.0, 640.0)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((480,), id="one side"),
        pytest.param((3, 480, 640), id="a tensor's shape with channels"),
        pytest.param((480, 0), id="no width"),
        pytest.param((-480, 640), id="negative height"),
        pytest.param((480, float("nan")), id="nan"),
    ],
)
def test_rejects_image_size(size):
    with pytest.raises(ValueError, match=r"image_size must be two positive \(height, width\), got"):
        check_image_size(size)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(half):
    assert widen(torch.ones(1, dtype=half)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_is_left_alone(dtype):
    values = torch.ones(1, dtype=dtype)
    assert widen(values) is values
