"""Normalizers in a criterion: which term each divides, and what has no rows is 0."""

import pytest
import torch
from scenes import build, gradients, grid_anchors, random_predictions, random_targets
from term_rows import DIVIDING, OPTIONS
from torch.testing import assert_close

import detloss
from detloss.matchers import Matches
from detloss.registry import NORMALIZERS, options_of
from detloss.tensors import without_host_sync

ANCHORS = grid_anchors()
LEVELS = [32, 24, 8]
FLOORLESS = [
    (name, {**OPTIONS.get(name, {}), **options})
    for name in DIVIDING
    for options in (
        [{"per": per, "floor": "none"} for per in ("batch", "image", "images", "level")]
        if "floor" in options_of(NORMALIZERS[name])
        else [{}]
    )
    if options.get("per") != "level" or NORMALIZERS[name].has_levels
]


def criterion_of(name, **options):
    """With a box loss whose rows are weighed, as a sum of the weights asks for."""
    normalizer = {"type": name, **options}
    if NORMALIZERS[name].needs_factors:
        return build(box={"type": "giou", "weigh_by": "centerness", "normalizer": normalizer})
    return build(box={"type": "giou", "weigh_by": "centerness"}, normalizer=normalizer)


def run(criterion, predictions, targets, **options):
    return criterion(predictions, targets, anchors=ANCHORS, level_sizes=LEVELS, **options)


@pytest.mark.parametrize("reduction", ["sum", "image"])
@pytest.mark.parametrize(("name", "options"), FLOORLESS, ids=str)
def test_a_term_without_rows_is_zero_whatever_divides_it(name, options, reduction):
    """Without objects, and without anchors that count: a divisor of 0 is none."""
    criterion = criterion_of(name, **options)
    predictions = random_predictions(2, len(ANCHORS))
    no = torch.zeros(len(ANCHORS), dtype=torch.bool)
    nothing = [Matches(no.long(), no, ~no)] * 2
    for targets, matches in ((random_targets([0, 0]), None), (random_targets([2, 3]), nothing)):
        output = run(criterion, predictions, targets, matches=matches, reduction=reduction)
        assert output.total.isfinite().all()
        logits, regression = gradients(output.total.sum(), predictions)
        assert logits.isfinite().all()
        assert (output.terms["box"] == 0).all()
        assert (regression == 0).all()
        if matches is not None:
            assert (output.terms["classification"] == 0).all()
            assert (logits == 0).all()


@pytest.mark.parametrize(("name", "options"), FLOORLESS, ids=str)
def test_an_image_and_a_level_without_rows_are_zero(name, options):
    """All objects of one image, on anchors of one level."""
    criterion = criterion_of(name, **options)
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    output = run(criterion, predictions, targets)
    first_level = torch.arange(len(ANCHORS)) < LEVELS[0]
    first, second = output.matches
    no = torch.zeros_like(first.positive)
    assert (first.positive & first_level).any()
    matches = [
        Matches(first.target_index, first.positive & first_level, ~first_level),
        Matches(torch.zeros_like(second.target_index), no, ~no),
    ]
    output = run(criterion, predictions, targets, matches=matches, reduction="image")
    assert output.total[0] > 0
    assert output.total[1] == 0
    for gradient in gradients(output.total.sum(), predictions):
        assert gradient.isfinite().all()
        assert (gradient[1] == 0).all()
        assert (gradient[0, ~first_level] == 0).all()
        assert (gradient[0, first_level] != 0).any()


@pytest.mark.parametrize(("name", "options"), FLOORLESS, ids=str)
def test_without_a_host_sync_it_is_the_same(name, options):
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 0])
    expected = run(criterion_of(name, **options), predictions, targets)
    with without_host_sync():
        got = run(criterion_of(name, **options), predictions, targets)
    assert_close(got.divisors, expected.divisors)
    assert_close(got.terms, expected.terms)


@pytest.mark.parametrize(("name", "options"), FLOORLESS, ids=str)
def test_the_divisors_of_an_output_divide_it_again(name, options):
    criterion = criterion_of(name, **options)
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 1])
    output = run(criterion, predictions, targets)
    shape = {"image": (2,), "level": (len(LEVELS),)}.get(options.get("per"), ())
    if name == "per_image":
        shape = (2,)
    assert output.divisors["box"].shape == shape
    again = run(criterion, predictions, targets, normalizer=output.divisors)
    assert_close(again.terms, output.terms)


def test_the_mean_over_images_is_that_of_the_images_alone():
    """Each image by its own count, whichever the batch."""
    criterion = build(normalizer={"type": "ground_truths", "per": "image"})
    predictions, targets = random_predictions(3, len(ANCHORS)), random_targets([3, 0, 5])
    output = run(criterion, predictions, targets)
    alone = [
        run(criterion, {k: v[i : i + 1] for k, v in predictions.items()}, targets[i : i + 1])
        for i in range(3)
    ]
    assert_close(output.total, sum(one.total for one in alone) / 3)


def test_each_level_is_a_loss_of_its_own():
    """The sum over levels of each one's mean over its rows."""
    criterion = build(normalizer={"type": "rows", "per": "level", "floor": "none"})
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    output = run(criterion, predictions, targets)
    expected, first = 0.0, 0
    for size in LEVELS:
        level = slice(first, first + size)
        first += size
        matches = [
            Matches(m.target_index[level], m.positive[level], m.ignored[level])
            for m in output.matches
        ]
        part = build(normalizer={"type": "rows", "floor": "none"})(
            {name: values[:, level] for name, values in predictions.items()},
            targets,
            anchors=ANCHORS[level],
            matches=matches,
        )
        expected = expected + part.total
    assert_close(output.total, expected)


def test_terms_with_normalizers_of_their_own():
    """PAA's: class over max(n, B), box over the sum of the weights, quality over the positives."""
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {
                "type": "sigmoid_focal",
                "normalizer": {"type": "positives", "floor": "images"},
            },
            "box": {
                "type": "giou",
                "weigh_by": "iou",
                "normalizer": {"type": "row_weights", "floor": "none"},
            },
            "normalizer": {"type": "constant", "value": 5.0},
        }
    )
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([1, 0])
    output = run(criterion, predictions, targets)
    positive = output.matches[0].positive
    decoded = criterion.coder.decode(predictions["box_regression"][0], ANCHORS)[positive]
    truth = targets[0]["boxes"].expand_as(decoded)
    overlaps = detloss.boxes.paired_overlap(decoded, truth)
    losses = 1 - detloss.boxes.paired_overlap(decoded, truth, kind="giou")
    assert output.divisors["classification"] == max(positive.sum(), 2)
    assert_close(output.divisors["box"], overlaps.sum().detach())
    assert_close(output.terms["box"], (overlaps.detach() * losses).sum() / overlaps.sum().detach())
