"""Classification losses stay finite and to themselves, whatever the logits: see `fuzz.problems`."""

import fuzz
import pytest
import torch

from detloss.registry import CLASSIFICATION


@pytest.mark.parametrize("kinds", [fuzz.INDEX_KINDS, fuzz.SHARE_KINDS], ids=["index", "shares"])
@pytest.mark.parametrize("dtype", fuzz.DTYPES, ids=str)
@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_every_kind_of_logits_with_every_kind_of_target(name, dtype, kinds):
    for loss in fuzz.variants("classification", name):
        logits, target = fuzz.draw(loss, kinds, torch.Generator().manual_seed(0), dtype)
        for what, wrong in fuzz.problems(loss, logits, target):
            failing = [" ".join(kinds[row]) for row in wrong.nonzero()[:, 0].tolist()]
            assert not failing, f"{loss}: {what}"
