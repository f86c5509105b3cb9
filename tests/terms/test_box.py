"""Where the object of a positive is: worked by hand."""

import pytest
import torch
from torch.testing import assert_close

import detloss

ANCHORS = torch.tensor([[0.0, 0, 8, 8], [40, 40, 48, 48]])
TARGET = {"boxes": torch.tensor([[0.0, 0, 8, 16]]), "labels": torch.tensor([0])}


def loss_of(box, regression, **sections):
    criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": box, **sections})
    return criterion({"box_regression": regression}, [TARGET], anchors=ANCHORS)


def test_each_loss_works_in_its_own_space():
    """Zero deltas are the anchor: IoU 1/2; the true deltas are (0, 1/2, 0, ln 2)."""
    regression = torch.zeros(1, 2, 4)
    output = loss_of([{"type": "iou"}, {"type": "l1"}], regression)
    assert output.terms["box/iou"].item() == pytest.approx(0.5)
    assert output.terms["box/l1"].item() == pytest.approx(0.5 + 0.6931472)


def test_bins_are_logits_of_distances():
    """Equal logits of 4 bins: -ln(1/4) for each side."""
    regression = torch.zeros(1, 2, 16, requires_grad=True)
    coder = {"type": "distribution", "bins": 4}
    output = loss_of({"type": "distribution_focal"}, regression, coder=coder)
    assert output.total.item() == pytest.approx(1.3862944)
    output.total.backward()
    assert (regression.grad[0, 0] != 0).any()
    assert (regression.grad[0, 1] == 0).all(), "background has no box"


def test_a_second_regression_is_decoded_apart():
    one = torch.zeros(1, 2, 4)
    other = torch.full((1, 2, 4), 0.25)
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "box": [{"type": "giou"}, {"type": "giou", "name": "refined", "reads": "refined"}],
        }
    )
    output = criterion({"box_regression": one, "refined": other}, [TARGET], anchors=ANCHORS)
    assert_close(output.terms["box/giou"], loss_of({"type": "giou"}, one).total)
    assert_close(output.terms["box/refined"], loss_of({"type": "giou"}, other).total)


def test_the_coder_says_how_many_columns():
    with pytest.raises(ValueError, match=r"\['box_regression'\] must have shape \(B, A, 64\)"):
        loss_of({"type": "giou"}, torch.zeros(1, 2, 4), coder={"type": "distribution"})
