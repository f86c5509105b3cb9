"""Hard negative mining: how many negatives, and which."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from registered import LOSSES
from scenes import CLASSES, grid_anchors, random_predictions, random_targets
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import detloss
from detloss.samplers import HardNegativeSampler

INF = float("inf")


class WithoutFloat64(TorchDispatchMode):
    """Refuses what a device without float64 refuses."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        results = operator(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            assert not isinstance(result, torch.Tensor) or result.dtype != torch.float64, operator
        return results


@pytest.mark.parametrize(
    ("options", "before", "loss", "after"),
    [
        pytest.param(
            {}, "PNNNNN", [0.0, 1.0, 5.0, 2.0, 4.0, 3.0], "PXNXNN", id="3 to 1: losses 5, 4 and 3"
        ),
        pytest.param({}, "PNN", [9.0, 1.0, 2.0], "PNN", id="fewer than 3 there: all of them"),
        pytest.param(
            {},
            "PXNNNNX",
            [0.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0],
            "PXXNNNX",
            id="ignored anchors stay ignored, whatever their loss",
        ),
        pytest.param({}, "NNXN", [1.0, 2.0, 3.0, 4.0], "XXXX", id="no positives: none"),
        pytest.param(
            {"min_negatives": 2},
            "NNXN",
            [1.0, 2.0, 3.0, 4.0],
            "XNXN",
            id="no positives: 2 at least",
        ),
        pytest.param(
            {"min_negatives": 9}, "NNXN", [1.0, 2.0, 3.0, 4.0], "NNXN", id="9 at least, 3 there"
        ),
        pytest.param(
            {"ratio": 1, "min_negatives": 2},
            "PNNN",
            [0.0, 1.0, 3.0, 2.0],
            "PXNN",
            id="the minimum holds in images with positives too",
        ),
        pytest.param(
            {"ratio": 2, "min_negatives": 1},
            "PNNN",
            [0.0, 1.0, 3.0, 2.0],
            "PXNN",
            id="the minimum adds nothing to the ratio",
        ),
        pytest.param(
            {"ratio": 2}, "PNNNN", [0.0, 1.0, 7.0, 1.0, 1.0], "PNNXX", id="a tie keeps the first"
        ),
        pytest.param({"ratio": 0}, "PNPN", [1.0, 2.0, 3.0, 4.0], "PXPX", id="ratio 0: none"),
        pytest.param(
            {"ratio": 0.5}, "PPPNN", [0.0, 0.0, 0.0, 1.0, 2.0], "PPPXN", id="3 / 2 rounded down: 1"
        ),
        pytest.param({"ratio": 0.5}, "PNN", [0.0, 1.0, 2.0], "PXX", id="1 / 2 rounded down: 0"),
        pytest.param(
            {"ratio": 1}, "PNNN", [0.0, 1.0, INF, 2.0], "PXNX", id="an infinite loss is the hardest"
        ),
        pytest.param({}, "PPP", [1.0, 2.0, 3.0], "PPP", id="no negatives"),
        pytest.param({}, "XXX", [1.0, 2.0, 3.0], "XXX", id="all ignored"),
        pytest.param({}, "", [], "", id="no anchors"),
    ],
)
def test_worked_by_hand(options, before, loss, after, matches_of, word_of):
    kept = HardNegativeSampler(**options)(matches_of(before), torch.tensor(loss))
    assert word_of(kept) == after


@given(
    rows=st.lists(st.tuples(st.sampled_from("PNNNNX"), st.integers(0, 5)), max_size=40),
    ratio=st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]),
    minimum=st.integers(0, 4),
)
def test_keeps_the_head_of_the_sorted_negatives(rows, ratio, minimum, matches_of, word_of):
    word = "".join(letter for letter, _ in rows)
    loss = [float(value) for _, value in rows]
    negatives = [i for i, letter in enumerate(word) if letter == "N"]
    count = max(int(word.count("P") * ratio), minimum)
    hardest = sorted(negatives, key=lambda i: (-loss[i], i))[:count]
    expected = "".join(
        "X" if letter == "N" and i not in hardest else letter for i, letter in enumerate(word)
    )
    sampler = HardNegativeSampler(ratio=ratio, min_negatives=minimum)
    assert word_of(sampler(matches_of(word), torch.tensor(loss))) == expected


@pytest.mark.parametrize(
    ("ratio", "positives", "negatives"),
    [
        pytest.param(1.06, 50, 53, id="1.06 x 50 = 53, in float32 52.999998"),
        pytest.param(0.1, 30, 3, id="0.1 x 30 = 3"),
        pytest.param(0.29, 100, 29, id="0.29 x 100 = 29, in float64 28.999999999999996"),
        pytest.param(1 / 3, 3, 1, id="a third of 3"),
        pytest.param(2.5, 3, 7, id="2.5 x 3 = 7.5"),
        pytest.param(0.999999, 3, 2, id="2.999997"),
        pytest.param(1e300, 2, 60, id="more than there are"),
        pytest.param(0, 2, 0, id="0"),
    ],
)
def test_the_product_is_rounded_down_and_no_further(ratio, positives, negatives, matches_of):
    """Without a float64, which Apple's GPUs do not have."""
    matches = matches_of("P" * positives + "N" * 60)
    with WithoutFloat64():
        kept = HardNegativeSampler(ratio=ratio)(matches, torch.rand(positives + 60))
    assert kept.negative.sum() == negatives


def test_positives_keep_their_truth(matches_of):
    matches = matches_of("PNPNP")
    kept = HardNegativeSampler(ratio=0)(matches, torch.rand(5))
    assert torch.equal(kept.target_index, matches.target_index)
    assert kept.target_index.tolist() == [1, 0, 2, 0, 3]


def test_the_matches_given_are_not_changed(matches_of, word_of):
    matches = matches_of("PNNNNN")
    HardNegativeSampler(ratio=1)(matches, torch.rand(6))
    assert word_of(matches) == "PNNNNN"


def test_no_gradient_is_recorded(matches_of, word_of):
    loss = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    kept = HardNegativeSampler(ratio=1)(matches_of("PNN"), loss)
    assert word_of(kept) == "PXN"
    assert not kept.ignored.requires_grad


@pytest.mark.parametrize("name", [name for section, name in LOSSES if section == "classification"])
def test_any_classification_loss_says_which_are_hard(name):
    """R59."""
    anchors, targets = grid_anchors(), random_targets([2])
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "sampler": {"type": "hard_negative", "ratio": 2.0},
            "classification": {"type": name},
            "box": {"type": "giou"},
        }
    )
    columns = CLASSES + criterion.terms["classification"].loss.background_columns
    predictions = random_predictions(1, len(anchors), classes=columns)
    (kept,) = criterion.match(targets, anchors=anchors, predictions=predictions)
    before = criterion.matcher(anchors, targets[0]["boxes"])
    loss = criterion.terms["classification"].loss.compute(
        predictions["class_logits"][0],
        torch.full((len(anchors),), CLASSES),
        weight=None,
        reduction="none",
    )
    loss = loss.sum(-1) if loss.ndim == 2 else loss
    easy = before.negative & ~kept.negative
    assert kept.negative.sum() == 2 * kept.positive.sum() > 0
    assert loss[kept.negative].min() >= loss[easy].max()


def test_needs_the_loss():
    assert HardNegativeSampler().needs_class_loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        pytest.param(None, r"class_loss must have shape \(3,\), got None", id="missing"),
        pytest.param(
            torch.zeros(2), r"class_loss must have shape \(3,\), got \(2,\)", id="too short"
        ),
        pytest.param(
            torch.zeros(3, 4), r"class_loss must have shape \(3,\), got \(3, 4\)", id="by class"
        ),
    ],
)
def test_rejects(loss, message, matches_of):
    with pytest.raises(ValueError, match=message):
        HardNegativeSampler()(matches_of("PNN"), loss)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ratio": -1.0}, ValueError, r"ratio: .* greater than or equal to 0, got -1\.0"),
        ({"min_negatives": -1}, ValueError, "min_negatives: .* greater than or equal to 0, got -1"),
        ({"min_negatives": 1.5}, TypeError, "min_negatives: expected a valid integer, got 1.5"),
    ],
)
def test_rejects_options(options, error, message):
    with pytest.raises(error, match=message):
        HardNegativeSampler(**options)
