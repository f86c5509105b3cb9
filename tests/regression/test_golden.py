"""Every box loss on thousands of rows of every sort, against its exact form."""

import math

import pytest
import torch
from exact import (
    golden_bins,
    golden_inverted_pairs,
    golden_pairs,
    gradient,
    reference_of,
    rows,
    table,
)

import detloss
from detloss.registry import REGRESSION
from detloss.regression import BoxLoss


def cases(*spaces):
    """Name and options of the box losses in those spaces, as their test files say."""
    return [
        pytest.param(name, options, id="-".join(map(str, (name, *options.values()))))
        for name in REGRESSION.names()
        if REGRESSION[name].space in spaces
        for options in reference_of(REGRESSION[name]).options
    ]


def build(name, options, reduction="none"):
    loss = detloss.build_part("box", {"type": name, **options, "reduction": reduction})
    return loss.eval()  # in training one may remember a call


def sides(pred, target):
    """All four of each pair, (N, 4)."""
    return torch.cat([pred[:, 2:] - pred[:, :2], target[:, 2:] - target[:, :2]], dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "options"), cases("boxes", "deltas"))
def test_values(name, options, dtype):
    pred, target = golden_pairs(dtype)
    inverted, beside = golden_inverted_pairs(dtype)
    pairs = rows(pred, target) + rows(inverted, beside)
    expected = table(reference_of(REGRESSION[name]).loss, pairs, **options)

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


@pytest.mark.parametrize(("name", "options"), cases("boxes", "deltas"))
def test_gradients(name, options):
    pred, target = golden_pairs()
    coordinates = torch.stack([pred, target], dim=1).view(-1, 4, 2)
    untied = coordinates.sort(1).values.diff(dim=1).amin((1, 2)) > 1e-6
    pred, target = pred[untied][::30], target[untied][::30]
    exact = reference_of(REGRESSION[name])
    expected = []
    for pair in rows(pred, target):
        held = exact.constants(*pair) if exact.constants else {}
        expected.append(gradient(exact.loss, *pair, **options, **held))
    expected = torch.tensor(expected, dtype=torch.float64)

    pred = pred.clone().requires_grad_()
    build(name, options, "sum")(pred, target).backward()
    # Where a small box lies in a large one, gradients of 1 / the large side cancel. One that is the
    # cube of a difference of angles, has lost a digit where that is a tenth.
    size = expected.abs().amax(1) + 1 / sides(pred.detach(), target).amax(1)
    tolerance = 64 * torch.finfo(torch.float64).eps * size
    error = (pred.grad - expected).abs().amax(1)
    assert (error - tolerance).max() <= 0


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10], ids=["a thousandth", "a thousandfold"])
@pytest.mark.parametrize(("name", "options"), cases("boxes"))
def test_free_of_the_unit_to_the_bit(name, options, scale):
    # a power of two rounds nothing; only below the square root of eps does a side have a floor
    pred, target = golden_pairs()
    above = scale * sides(pred, target).amin(1) > math.sqrt(1e-7)
    pred, target = pred[above], target[above]
    loss = build(name, options)
    scaled = {
        option: torch.tensor(getattr(loss, option), dtype=torch.float64).mul(scale).tolist()
        for option in reference_of(REGRESSION[name]).lengths
    }
    in_that_unit = build(name, {**options, **scaled})
    assert torch.equal(in_that_unit(pred * scale, target * scale), loss(pred, target))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "options"), cases("bins"))
def test_values_on_bins(name, options, dtype):
    logits, target = golden_bins(dtype)
    expected = table(reference_of(REGRESSION[name]).loss, rows(logits, target), **options)
    values = build(name, options)(logits, target)
    # the logits of a row are subtracted from each other, which keeps the last bit of the largest
    size = logits.abs().amax((1, 2)).clamp(min=1)
    error = (values.double() - expected).abs()
    assert (error - 16 * torch.finfo(dtype).eps * size).max() <= 0


@pytest.mark.parametrize(("name", "options"), cases("bins"))
def test_gradients_on_bins(name, options):
    logits, target = (values[::9] for values in golden_bins())
    exact, bins = reference_of(REGRESSION[name]).loss, logits.shape[-1]

    def flat(numbers, distances, **options):
        sides = tuple(numbers[i : i + bins] for i in range(0, len(numbers), bins))
        return exact(sides, distances, **options)

    pairs = rows(logits.flatten(1), target)
    expected = [gradient(flat, *pair, **options) for pair in pairs]
    expected = torch.tensor(expected, dtype=torch.float64)
    logits = logits.clone().requires_grad_()
    build(name, options, "sum")(logits, target).backward()
    # of a softmax, which takes the last bit of the largest logit into its exponent
    size = logits.detach().abs().amax((1, 2)).clamp(min=1)
    error = (logits.grad.flatten(1) - expected).abs().amax(1)
    assert (error - 16 * torch.finfo(torch.float64).eps * size).max() <= 0


def test_a_loss_without_an_exact_form_fails_with_the_cure(monkeypatch):
    class TukeyLoss(BoxLoss):
        type_name = "tukey"
        space = "deltas"

    monkeypatch.setattr(TukeyLoss, "__module__", "detloss.regression.tukey")
    with pytest.raises(
        NotImplementedError, match=r"write `def exact_loss.* in tests/regression/test_tukey.py"
    ):
        table(reference_of(TukeyLoss).loss, rows(*golden_pairs())[:1])
