"""Every box loss on ten thousand pairs of every sort, against exact arithmetic."""

import math

import pytest
import torch
from exact import LOSSES, golden_inverted_pairs, golden_pairs, gradient, rows, table, trade_off

import detloss
from detloss.registry import REGRESSION

OPTIONS = {
    "iou": [{"mode": mode} for mode in ("linear", "log", "square")],
    "smooth_l1": [{"beta": beta} for beta in (0.0, 1 / 9, 50.0)],
}
# a registered loss of four numbers a row that `exact.LOSSES` does not have fails
CASES = [
    pytest.param(name, options, id="-".join(map(str, (name, *options.values()))))
    for name in REGRESSION.names()
    if REGRESSION[name].space != "bins"
    for options in OPTIONS.get(name, [{}])
]
ON_BOXES = [case for case in CASES if REGRESSION[case.values[0]].space == "boxes"]


def build(name, options, reduction="none"):
    return detloss.build_part("box", {"type": name, **options, "reduction": reduction})


def sides(pred, target):
    """All four of each pair, (N, 4)."""
    return torch.cat([pred[:, 2:] - pred[:, :2], target[:, 2:] - target[:, :2]], dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_values(name, options, dtype):
    pred, target = golden_pairs(dtype)
    inverted, beside = golden_inverted_pairs(dtype)
    pairs = rows(pred, target) + rows(inverted, beside)
    expected = table(LOSSES[name], pairs, **options)

    loss = build(name, options)
    alone = loss(pred, target)
    # an inverted box makes the well-formed ones go past the floors too
    together = loss(torch.cat([pred, inverted]), torch.cat([target, beside]))

    # A loss is some thirty operations, each half an eps off at most, and no difference in it loses
    # what the quotient around it does not give back. On boxes it is 1 less a measure, on deltas a
    # sum of positive terms.
    size = expected.clamp(min=1 if loss.space == "boxes" else 0)
    tolerance = 16 * torch.finfo(dtype).eps * size
    for values in (alone, together):
        count = len(values)
        error = (values.double() - expected[:count]).abs()
        assert (error - tolerance[:count]).max() <= 0


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients(name, options):
    pred, target = golden_pairs()
    coordinates = torch.stack([pred, target], dim=1).view(-1, 4, 2)
    untied = coordinates.sort(1).values.diff(dim=1).amin((1, 2)) > 1e-6
    pred, target = pred[untied][::30], target[untied][::30]
    expected = []
    for pair in rows(pred, target):
        held = {"alpha": trade_off(*pair)} if name == "ciou" else {}
        expected.append(gradient(LOSSES[name], *pair, **options, **held))
    expected = torch.tensor(expected, dtype=torch.float64)

    pred = pred.clone().requires_grad_()
    build(name, options, "sum")(pred, target).backward()
    # Where a small box lies in a large one, slopes of 1 / the large side cancel. CIoU's are cubes
    # of a difference of angles: of a tenth, it has lost a digit.
    size = expected.abs().amax(1) + 1 / sides(pred.detach(), target).amax(1)
    tolerance = 64 * torch.finfo(torch.float64).eps * size
    error = (pred.grad - expected).abs().amax(1)
    assert (error - tolerance).max() <= 0


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10], ids=["a thousandth", "a thousandfold"])
@pytest.mark.parametrize(("name", "options"), ON_BOXES)
def test_free_of_the_unit_to_the_bit(name, options, scale):
    # a power of two rounds nothing; only below the square root of eps does a side have a floor
    pred, target = golden_pairs()
    above = scale * sides(pred, target).amin(1) > math.sqrt(1e-7)
    pred, target = pred[above], target[above]
    loss = build(name, options)
    assert torch.equal(loss(pred * scale, target * scale), loss(pred, target))
