"""Box losses stay finite, bounded and to themselves, whatever the boxes: see `fuzz.problems`."""

import fuzz
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detloss.boxes.lengths import Lengths, product
from detloss.boxes.overlaps import area
from detloss.coders import DeltaCoder
from detloss.kernels import box_loss
from detloss.registry import REGRESSION
from detloss.regression import GIoULoss

OF_COORDINATES = [name for name in REGRESSION.names() if REGRESSION[name].space != "bins"]
BOXES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4)


@pytest.mark.parametrize("dtype", fuzz.DTYPES, ids=str)
@pytest.mark.parametrize("name", REGRESSION.names())
def test_every_kind_of_box_against_every_kind(name, dtype):
    for loss in fuzz.variants("box", name):
        (kinds,) = fuzz.kinds_of(loss)
        pred, target = fuzz.draw(loss, kinds, torch.Generator().manual_seed(0), dtype)
        for what, wrong in fuzz.problems(loss, pred, target):
            found = [" ".join(kinds[row]) for row in wrong.nonzero()[:, 0].tolist()]
            assert not found, f"{loss}: {what}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", OF_COORDINATES)
@given(pairs=st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=4))
def test_any_coordinates(name, dtype, pairs):
    boxes, others = torch.tensor(pairs, dtype=dtype).unbind(1)
    for loss in fuzz.variants("box", name):
        target = others if loss.space == "boxes" else DeltaCoder().encode(others, boxes)
        for what, wrong in fuzz.problems(loss, boxes, target):
            assert not wrong.any(), f"{loss}: {what}"


def test_fuzzing_finds_nothing(capsys):
    assert fuzz.main(["--cases", "5000"]) == 0
    assert "0 failures" in capsys.readouterr().out


def test_fuzzing_finds_a_loss_that_divides_by_the_bare_union(monkeypatch, capsys):
    def formula(pred, target):
        shared = product(Lengths(pred, target).shared_sides)
        return 1 - shared / (area(pred) + area(target) - shared)

    def bare_iou(pred, target, *, eps, weight, reduction):
        """1 - IoU, not a number where both boxes are flat."""
        return box_loss(formula, pred, target, weight=weight, reduction=reduction)

    monkeypatch.setattr(GIoULoss, "function", staticmethod(bare_iou))
    assert fuzz.main(["--cases", "5000"]) == 1
    printed = capsys.readouterr().out
    assert "seed 0: {'type': 'giou'" in printed
    assert "in torch.float32: the gradient is not finite: " in printed
