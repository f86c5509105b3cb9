"""MPDIoU loss. What holds for every registered loss is in test_contract.py."""

from contextlib import nullcontext
from fractions import Fraction

import pytest
import torch
from boxgen import box_pairs, random_boxes
from exact import iou, whole
from hypothesis import given
from torch.testing import assert_close

from detloss.kernels import plain_formulas
from detloss.regression import MPDIoULoss, mpdiou_loss
from detloss.tensors import without_host_sync

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "C": ([0.0, 0, 4, 1], [0.0, 0, 1, 4]),  # across: IoU 1/7
    "D": ([0.0, 0, 1, 1], [10.0, 10, 12, 14]),  # apart
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param("A", {"image_size": (6.0, 8.0)}, 2 / 3 + 2 / 100, id="A: both corners by 1"),
        pytest.param("C", {"image_size": (4.0, 4.0)}, 6 / 7 + 18 / 32, id="C: the last by 3 and 3"),
        pytest.param("D", {}, 1 + (200 + 290) / (2 * 640**2), id="D: in 640 px"),
        pytest.param("E", {"image_size": (1.0, 1.0)}, 3 / 4 + 4 / 2, id="E: by 1 and 1"),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = mpdiou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


@given(box_pairs())
def test_symmetric_and_free_of_a_unit_in_which_the_image_is(pair):
    pred, target = pair
    loss = mpdiou_loss(pred, target, image_size=(300.0, 400.0))
    assert_close(loss, mpdiou_loss(target, pred, image_size=(400.0, 300.0)))
    assert_close(loss, mpdiou_loss(pred / 100, target / 100, image_size=(3.0, 4.0)))
    assert (mpdiou_loss(pred, pred) == 0).all()


def values_and_gradients(pred, target, **options):
    pred = pred.clone().requires_grad_()
    loss = mpdiou_loss(pred, target, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), pred)[0]


@pytest.mark.parametrize("way", [nullcontext, plain_formulas, without_host_sync])
@pytest.mark.parametrize("count", [7, 100_000], ids=["one part", "blocks"])
def test_each_row_may_have_an_image_of_its_own(count, way):
    pred, target = (random_boxes(count, seed=seed, extent=100.0) for seed in (1, 2))
    sizes = torch.tensor([[480, 640], [100, 50], [1, 2]])
    index = torch.arange(count) % 3
    with way():
        found = values_and_gradients(pred, target, image_size=sizes[index])
    for number, size in enumerate(sizes.tolist()):
        rows = index == number
        expected = values_and_gradients(pred[rows], target[rows], image_size=size)
        assert_close([values[rows] for values in found], list(expected))


def test_one_size_of_all_rows_and_none():
    pred, target = random_boxes(6, seed=1).view(2, 3, 4), random_boxes(6, seed=2).view(2, 3, 4)
    loss = mpdiou_loss(pred, target, image_size=(480, 640))
    assert_close(mpdiou_loss(pred, target, image_size=torch.tensor([480.0, 640.0])), loss)
    same = torch.tensor([480, 640]).expand(2, 3, 2)
    assert_close(mpdiou_loss(pred, target, image_size=same), loss)
    assert_close(mpdiou_loss(pred, target), mpdiou_loss(pred, target, image_size=(640, 640)))


def test_a_row_of_weight_0_may_have_an_image_of_no_size():
    pred, target = random_boxes(2, seed=1).requires_grad_(), random_boxes(2, seed=2)
    sizes, weight = torch.tensor([[9.0, 9.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0])
    for way in (nullcontext, plain_formulas, without_host_sync):
        with way():
            loss = mpdiou_loss(pred, target, image_size=sizes, weight=weight)
            (gradient,) = torch.autograd.grad(loss.sum(), pred)
        assert loss[0] > 0
        assert loss[1] == 0
        assert gradient[0].isfinite().all()
        assert not gradient[1].any()


@pytest.mark.parametrize("shape", [(3,), (1, 2), (4, 2), (5,)])
def test_rejects_sizes_of_another_shape(shape):
    message = rf"image_size must have shape \(2,\) or \(5, 2\), got \({shape[0]}"
    with pytest.raises(ValueError, match=message):
        mpdiou_loss(torch.zeros(5, 4), torch.zeros(5, 4), image_size=torch.ones(shape))


def test_what_the_config_says_needs_no_criterion():
    assert MPDIoULoss().reads_image_size
    assert not MPDIoULoss(image_size=[480.0, 640.0]).reads_image_size


@pytest.mark.parametrize("size", [(640.0,), (640.0, 0.0), (1.0, 2.0, 3.0)])
def test_rejects_what_is_no_size(size):
    with pytest.raises(ValueError, match=r"image_size must be two positive \(height, width\), got"):
        mpdiou_loss(torch.zeros(1, 4), torch.zeros(1, 4), image_size=size)
    with pytest.raises(ValueError, match="image_size"):
        MPDIoULoss(image_size=size)


EXACT_OPTIONS = [{"image_size": [640.0, 640.0]}, {"image_size": [4096.0, 8192.0]}]
EXACT_LENGTHS = ("image_size",)


def exact_loss(pred, target, image_size=(640.0, 640.0)):
    """The loss of one pair for `test_golden.py`: MPDIoU, algorithm 1."""
    numbers, factor = whole(pred + target)
    x1, y1, x2, y2 = numbers[:4]
    u1, v1, u2, v2 = numbers[4:]
    x2, y2, u2, v2 = max(x1, x2), max(y1, y2), max(u1, u2), max(v1, v2)  # inverted ones collapse
    squares = (x1 - u1) ** 2 + (y1 - v1) ** 2 + (x2 - u2) ** 2 + (y2 - v2) ** 2
    diagonal = sum(Fraction(side) ** 2 for side in image_size)
    return 1 - iou(pred, target) + Fraction(squares, factor**2) / diagonal
