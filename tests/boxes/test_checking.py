"""What every function over boxes asks of its arguments."""

import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes

import detloss
from detloss.boxes import convert_boxes, paired_overlap, pairwise_overlap
from detloss.boxes.checking import check_boxes, check_image_size
from detloss.registry import CODERS, MATCHERS, REGRESSION
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


def bounding_boxes(box_format, dtype=torch.float32):
    """Two boxes as torchvision's transforms hand them on, (10, 20, 30, 60) and a point."""
    corners = torch.tensor([[10.0, 20, 30, 60], [5, 5, 5, 5]], dtype=dtype)
    values = convert_boxes(corners, "xyxy", box_format.lower())
    return BoundingBoxes(values, format=box_format, canvas_size=(64, 64))


WITH_BOXES = {
    "check_boxes": lambda boxes: check_boxes("pred", boxes),
    "paired_overlap": lambda boxes: paired_overlap(boxes, boxes),
    "pairwise_overlap": lambda boxes: pairwise_overlap(boxes, boxes),
    "convert_boxes": lambda boxes: convert_boxes(boxes, "xyxy", "cxcywh"),
    "convert_boxes to the same": lambda boxes: convert_boxes(boxes, "xyxy", "xyxy"),
    **{
        f"{name} loss": lambda boxes, name=name: detloss.build_part("box", {"type": name})(
            boxes.as_subclass(torch.Tensor), boxes
        )
        for name in REGRESSION.names()
        if REGRESSION[name].space != "bins"
    },
    **{
        f"{name} encodes": lambda boxes, name=name: detloss.build_part(
            "coder", {"type": name}
        ).encode(boxes, torch.tensor([0.0, 0, 64, 64]).expand(2, 4))
        for name in CODERS.names()
    },
    **{
        f"{name} matcher": lambda boxes, name=name: (
            detloss.build_part("matcher", {"type": name})(
                torch.tensor([[0.0, 0, 32, 32], [8, 16, 32, 64]]),
                boxes,
                gt_labels=torch.zeros(2, dtype=torch.int64),
                level_sizes=[1, 1],
                class_logits=torch.zeros(2, 3),
                pred_boxes=torch.tensor([[0.0, 0, 32, 32], [8, 16, 32, 64]]),
                objectness=torch.zeros(2),
                **(
                    {"losses": lambda index, positive, first=0: torch.tensor([[1.0, 2.0]])}
                    if "losses" in MATCHERS[name].needs
                    else {}
                ),
            ).target_index
        )
        for name in MATCHERS.names()
    },
}


@pytest.mark.parametrize("function", WITH_BOXES.values(), ids=WITH_BOXES)
class TestBoxesThatSayTheirFormat:
    @pytest.mark.parametrize("box_format", ["XYWH", "CXCYWH"])
    def test_another_format_than_xyxy_is_refused_with_the_cure(self, function, box_format):
        found = box_format.lower()
        cure = rf"write convert_boxes\(\w+, '{found}', 'xyxy'\)"
        with pytest.raises(ValueError, match=f"must be in format xyxy, got {found}: {cure}"):
            function(bounding_boxes(box_format))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_xyxy_gives_what_a_plain_tensor_gives(self, function, dtype):
        """No warning, which would be an error here, and no boxes of a format that they lost."""
        boxes = bounding_boxes("XYXY", dtype)
        expected, found = function(boxes.as_subclass(torch.Tensor)), function(boxes)
        assert type(found) is type(expected)
        if expected is not None:
            torch.testing.assert_close(found, expected, equal_nan=True)


def test_targets_of_a_criterion_say_their_format():
    criterion = detloss.load_config("retinanet")
    boxes = bounding_boxes("XYXY")
    labels = torch.zeros(2, dtype=torch.int64)

    def total(boxes, anchors):
        predictions = {
            "class_logits": torch.zeros(1, 2, 3),
            "box_regression": torch.zeros(1, 2, 4),
        }
        return criterion(predictions, [{"boxes": boxes, "labels": labels}], anchors=anchors).total

    plain = boxes.as_subclass(torch.Tensor)
    found = total(boxes, boxes)
    assert type(found) is torch.Tensor
    assert found == total(plain, plain)
    with pytest.raises(ValueError, match="'boxes'] must be in format xyxy, got xywh: write conv"):
        total(bounding_boxes("XYWH"), plain)
    with pytest.raises(ValueError, match="anchors must be in format xyxy, got cxcywh: write conv"):
        total(plain, bounding_boxes("CXCYWH"))


@pytest.mark.parametrize("box_format", ["XYXY", "XYWH", "CXCYWH"])
def test_the_cure_converts_boxes_that_say_their_format(box_format):
    boxes = bounding_boxes(box_format)
    converted = convert_boxes(boxes, box_format.lower(), "xyxy")
    assert type(converted) is torch.Tensor
    assert converted.tolist() == [[10, 20, 30, 60], [5, 5, 5, 5]]


def test_a_format_may_be_a_word():
    class Boxes(torch.Tensor):
        format = "yxyx"

    with pytest.raises(ValueError, match="pred must be in format xyxy, got yxyx"):
        check_boxes("pred", torch.zeros(1, 4).as_subclass(Boxes))


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
