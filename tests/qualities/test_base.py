"""What every registered quality is: a constant in [0, 1] of each positive."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from boxgen import random_boxes
from scenes import CLASSES, grid_anchors, random_predictions, random_targets
from torch.testing import assert_close

import detloss
from detloss.batch import MatchedBatch
from detloss.classification import SigmoidCrossEntropy
from detloss.coders import DeltaCoder
from detloss.inputs import Inputs
from detloss.matchers import Matches, MaxIoUMatcher
from detloss.normalizers import ConstantNormalizer
from detloss.qualities import Positives, Quality
from detloss.registry import QUALITIES, choices_of, options_of
from detloss.regression import GIoULoss
from detloss.tensors import without_host_sync
from detloss.terms import BoxTerm, ClassificationTerm

NAMES = QUALITIES.names()
ANCHORS = grid_anchors()
DEGENERATE = [
    [1.0, 1, 1, 1],
    [0, 1, 8, 1],
    [8, 8, 0, 0],
    [8, 0, 0, 8],
    [0, 0, 0, 0],
    [-1e4, -1e4, 1e4, 1e4],
    [4, 4, 4 + 1e-4, 4 + 1e-4],
    [1e4, 1e4, 1e4 + 8, 1e4 + 8],
]


def build(name):
    return detloss.build_part("quality", {"type": name})


def variants(name):
    """A quality with each of the choices that an option of it names."""
    found = [build(name)]
    for option, parameter in options_of(QUALITIES[name]).items():
        others = [c for c in choices_of(parameter.annotation) if c != parameter.default]
        found += [QUALITIES[name](**{option: choice}) for choice in others]
    return found


VARIANTS = [quality for name in NAMES for quality in variants(name)]


def positives_of(count, *, dtype=torch.float32, seed=0, boxes=None):
    """Random positives, small anchors in their ground truths; or every pair of the given boxes."""
    generator = torch.Generator().manual_seed(seed)
    if boxes is not None:
        given = torch.tensor(boxes, dtype=dtype)
        count = len(given) ** 2
        anchors, truths = given.repeat(len(given), 1), given.repeat_interleave(len(given), 0)
        preds = anchors.roll(1, 0)
    else:
        truths, preds = (random_boxes(count, seed=seed + one).to(dtype) for one in range(2))
        corner = truths[:, :2] + torch.rand(count, 2, generator=generator) * (
            truths[:, 2:] - truths[:, :2]
        )
        anchors = torch.cat([corner, corner + torch.rand(count, 2, generator=generator)], 1)
        anchors = anchors.to(dtype)
    return SimpleNamespace(
        anchors=anchors,
        truth_boxes=truths,
        pred_boxes=lambda name: preds,
        probabilities=torch.rand(count, CLASSES, generator=generator).to(dtype),
        score=torch.rand(count, generator=generator).to(dtype),
    )


class Scoring(MaxIoUMatcher):
    """A matcher with a score, of which the tests know nothing but that it is in [0, 1]."""

    scores = True

    def forward(self, anchors, gt_boxes, **inputs):
        match = super().forward(anchors, gt_boxes, **inputs)
        score = torch.linspace(0, 1, len(anchors)) * match.positive
        return Matches(match.target_index, match.positive, match.ignored, score)


def batch_of(counts=(3, 2), *, dtype=torch.float32, matcher=None):
    """A matched batch of random predictions."""
    predictions = {
        name: values.detach().to(dtype).requires_grad_()
        for name, values in random_predictions(len(counts), len(ANCHORS)).items()
    }
    targets = random_targets(list(counts))
    matcher = matcher or Scoring()
    matches = [matcher(ANCHORS, target["boxes"]) for target in targets]
    inputs = Inputs(predictions, targets, [ANCHORS] * len(counts))
    return MatchedBatch(inputs, matches, DeltaCoder())


@pytest.fixture(params=VARIANTS, ids=repr)
def quality(request):
    return request.param


def test_is_one_number_a_positive_in_0_to_1(quality):
    values = quality(positives_of(2000))
    assert values.shape == (2000,)
    assert values.dtype == torch.float32
    assert ((values >= 0) & (values <= 1)).all()
    assert values.unique().numel() > 10


def test_no_positives_have_none(quality):
    assert quality(positives_of(0)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_boxes_are_in_range(quality, dtype):
    """Points, lines, inverted boxes, 10,000 px: each as anchor, prediction and ground truth."""
    values = quality(positives_of(0, boxes=DEGENERATE, dtype=dtype))
    assert values.isfinite().all()
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(quality, dtype):
    half = positives_of(500, dtype=dtype)
    given = vars(half) | {"pred_boxes": half.pred_boxes("box_regression")}
    wide = SimpleNamespace(**{name: values.float() for name, values in given.items()})
    wide.pred_boxes = {"box_regression": wide.pred_boxes}.__getitem__
    values = quality(half)
    assert values.dtype == torch.float32
    assert torch.equal(values, quality(wide))


def test_float64_stays(quality):
    assert quality(positives_of(5, dtype=torch.float64)).dtype == torch.float64


def test_in_a_batch_it_is_a_constant(quality):
    batch = batch_of()
    values = batch.quality(quality)
    assert values.shape == (int(batch.positive.sum()),)
    assert not values.requires_grad
    assert ((values >= 0) & (values <= 1)).all()
    assert (values > 0).any()


def test_without_objects_a_batch_has_none(quality):
    batch = batch_of((0, 0))
    assert batch.quality(quality).shape == (0,)
    assert (batch.quality_of_anchors(quality) == 0).all()


def test_half_precision_predictions_in_a_batch(quality):
    values = batch_of(dtype=torch.float16).quality(quality)
    assert values.dtype == torch.float32
    assert_close(values, batch_of().quality(quality), atol=5e-3, rtol=5e-3)


def test_without_a_host_sync_it_is_the_same(quality):
    """Background stands among the positives, with a quality of 0."""
    batch = batch_of()
    expected = batch.quality_of_anchors(quality)
    with without_host_sync():
        other = batch_of()
        values = other.quality(quality)
        assert values.shape == (other.positive.numel(),)
        assert (values[~other.is_positive] == 0).all()
        assert_close(other.quality_of_anchors(quality), expected)


@pytest.mark.parametrize("over", ["all", "positives"])
def test_nothing_is_learned_through_a_label(quality, over):
    """With a label the classification still learns from the class logits alone."""
    term = ClassificationTerm(SigmoidCrossEntropy(), label=quality, over=over)
    criterion = detloss.DetectorLoss(matcher=Scoring(), terms=[term])
    predictions = random_predictions(2, len(ANCHORS))
    output = criterion(predictions, random_targets([3, 2]), anchors=ANCHORS)
    assert output.total.isfinite()
    logits, regression = torch.autograd.grad(
        output.total, list(predictions.values()), allow_unused=True
    )
    assert (logits != 0).any()
    assert regression is None or (regression == 0).all()


def test_nothing_is_learned_through_a_weight(quality):
    """A weight moves the boxes only: the gradient is the weight times that of the bare loss."""
    weighed, bare = (
        detloss.DetectorLoss(
            matcher=Scoring(),
            terms=[BoxTerm(GIoULoss(), weigh_by=weigh_by)],
            normalizer=ConstantNormalizer(value=1.0),
        )
        for weigh_by in (quality, None)
    )
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    output = weighed(predictions, targets, anchors=ANCHORS)
    (gradient,) = torch.autograd.grad(output.total, predictions["box_regression"])
    total = bare(predictions, targets, anchors=ANCHORS).total
    (expected,) = torch.autograd.grad(total, predictions["box_regression"])
    inputs = Inputs(predictions, targets, [ANCHORS] * 2)
    weight = MatchedBatch(inputs, output.matches, weighed.coder).quality_of_anchors(quality)
    assert (weight > 0).any()
    assert_close(gradient, weight[..., None] * expected)


@pytest.mark.parametrize("name", NAMES)
def test_needs_what_it_looks_at(name):
    """What a criterion provides is what it asks for: the rest is not there."""
    quality = build(name)
    given = {"box_regression": "pred_boxes", "class_logits": "probabilities", "score": "score"}
    assert quality.needs <= given.keys()
    everything = positives_of(3)
    seen = {"anchors", "truth_boxes"} | {given[need] for need in quality.needs}
    values = {key: value for key, value in vars(everything).items() if key in seen}
    assert torch.equal(quality(SimpleNamespace(**values)), quality(everything))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_to_one_graph(name):
    quality = build(name)
    values = vars(positives_of(7))
    positives = namedtuple("Values", values)(**values)
    compiled = torch.compile(quality, fullgraph=True, backend="eager")
    assert_close(compiled(positives), quality(positives))


def test_a_match_without_a_score_is_named():
    with pytest.raises(ValueError, match=r"matches\[0\] must have a score, got None"):
        batch_of(matcher=MaxIoUMatcher()).quality(build("score"))


def test_every_quality_is_one():
    assert all(issubclass(QUALITIES[name], Quality) for name in NAMES)
    assert {name for name in vars(Positives) if not name.startswith("_")} == set(
        vars(positives_of(1))
    )
