"""Classification losses stay finite and to themselves, whatever the logits: see `fuzz.problems`."""

import math
from contextlib import nullcontext

import fuzz
import pytest
import torch
from torch.testing import assert_close

from detloss.kernels import plain_formulas
from detloss.registry import CLASSIFICATION
from detloss.tensors import without_host_sync


@pytest.mark.parametrize("kinds", [fuzz.INDEX_KINDS, fuzz.SHARE_KINDS], ids=["index", "shares"])
@pytest.mark.parametrize("dtype", fuzz.DTYPES, ids=str)
@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_every_kind_of_logits_with_every_kind_of_target(name, dtype, kinds):
    for loss in fuzz.variants("classification", name):
        logits, target = fuzz.draw(loss, kinds, torch.Generator().manual_seed(0), dtype)
        for what, wrong in fuzz.problems(loss, logits, target):
            failing = [" ".join(kinds[row]) for row in wrong.nonzero()[:, 0].tolist()]
            assert not failing, f"{loss}: {what}"


def certain_variants(name):
    """Without label smoothing, by which no answer is quite right."""
    variants = fuzz.variants("classification", name)
    return [loss for loss in variants if not loss.config().get("label_smoothing")]


@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_a_surely_right_no_keeps_its_digits_in_float32(name):
    """Most answers of a detector are such: neither ``1 - p`` nor ``ln(1 - p)`` may round to 0."""
    logits = torch.tensor([[x, x, x, 0.0] for x in (-4.0, -8.0, -12.0, -16.0, -30.0)])
    for loss in certain_variants(name):
        background = torch.full((5,), 4 - loss.background_columns)
        found = fuzz.value_and_gradient(loss, logits, background)
        wide = fuzz.value_and_gradient(loss, logits.double(), background)
        for one, other in zip(found, wide, strict=True):
            assert_close(one.double(), other, rtol=1e-5, atol=1e-37, msg=str(loss))


@pytest.mark.parametrize("way", [nullcontext, plain_formulas, without_host_sync])
@pytest.mark.parametrize("dtype", fuzz.DTYPES, ids=str)
@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_an_infinite_logit_of_a_right_answer_costs_nothing(name, dtype, way):
    for loss in certain_variants(name):
        logits = torch.full((1, 4), -math.inf, dtype=dtype)
        logits[0, 2] = 0 if loss.background_columns else math.inf
        with way():
            value, gradient = fuzz.value_and_gradient(loss, logits, torch.tensor([2]))
        assert (value == 0).all(), loss
        assert (gradient == 0).all(), loss
