"""DetectorLoss: matching, spaces, normalisation, terms."""

import contextlib
import copy
import pickle

import pytest
import torch
from scenes import (
    CLASSES,
    SIZE,
    build,
    gradients,
    grid_anchors,
    random_predictions,
    random_targets,
)
from torch import nn
from torch.testing import assert_close

import detloss
from detloss.matchers import MaxIoUMatcher
from detloss.normalizers import PositivesNormalizer
from detloss.registry import CLASSIFICATION, NORMALIZERS, REGRESSION, SAMPLERS
from detloss.tensors import without_host_sync

ANCHORS = grid_anchors()
OF_ALL_TERMS = [n for n in NORMALIZERS.names() if not NORMALIZERS[n].needs_factors]
TRAINABLE = [n for n in CLASSIFICATION.names() if CLASSIFICATION[n].differentiable]


def run(criterion, predictions, targets, **options):
    return criterion(
        predictions, targets, anchors=ANCHORS, **{"image_size": (SIZE, SIZE), **options}
    )


def worked_scene():
    """Three anchors: one on the object, one in the ignore band, one far off. Logits are all 0."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22], [40, 40, 50, 50]])
    predictions = {
        "class_logits": torch.zeros(1, 3, 2, requires_grad=True),
        "box_regression": torch.zeros(1, 3, 4, requires_grad=True),
    }
    targets = [{"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1])}]
    return predictions, targets, anchors


def test_terms_worked_by_hand():
    """IoUs 1, 10/22 and 0: positive, ignored, background. BCE is ln 2 an element, 4 elements."""
    predictions, targets, anchors = worked_scene()
    criterion = build(
        classification={"type": "sigmoid_cross_entropy", "weight": 3.0},
        box={"type": "l1", "weight": 2.0},
    )
    with torch.no_grad():
        predictions["box_regression"][0, 0] = torch.tensor([0.1, 0.2, -0.3, 0.4])
    output = criterion(predictions, targets, anchors=anchors)
    assert_close(output.terms["classification"].item(), 3 * 4 * 0.6931472)
    assert_close(output.terms["box"].item(), 2.0)  # deltas of an exact anchor are 0: |d| sums to 1
    assert_close(output.unweighted["box"].item(), 1.0)
    assert output.total == output.terms["classification"] + output.terms["box"]
    (match,) = output.matches
    assert match.positive.tolist() == [True, False, False]
    assert match.ignored.tolist() == [False, True, False]


def test_log_names_every_term_weighted_and_not():
    predictions, targets, anchors = worked_scene()
    output = build(box={"type": "l1", "weight": 2.0})(predictions, targets, anchors=anchors)
    log = output.log()
    assert list(log) == [
        "total",
        "classification",
        "box",
        "classification/unweighted",
        "box/unweighted",
    ]
    assert all(isinstance(value, float) for value in log.values())


@pytest.mark.parametrize("box", REGRESSION.names())
@pytest.mark.parametrize("classification", TRAINABLE)
def test_every_pair_of_losses_trains_by_name_alone(classification, box):
    criterion = build(classification={"type": classification}, box={"type": box})
    width = criterion.coder.width
    predictions = random_predictions(2, len(ANCHORS), classes=CLASSES + 1, width=width)
    output = run(criterion, predictions, random_targets([3, 2]))
    assert output.total.isfinite()
    for gradient in gradients(output.total, predictions):
        assert gradient.isfinite().all()
        assert (gradient != 0).any()


@pytest.mark.parametrize("box", REGRESSION.names())
def test_every_box_loss_fits_the_boxes_in_its_own_space(box):
    """Gradient descent on the regression alone moves the decoded positives onto the objects."""
    criterion = build(box={"type": box})
    targets = random_targets([2], seed=3)
    logits = torch.zeros(1, len(ANCHORS), CLASSES)
    regression = torch.zeros(1, len(ANCHORS), criterion.coder.width, requires_grad=True)
    optimizer = torch.optim.Adam([regression], lr=0.2)
    cooling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=300)
    for _ in range(300):
        optimizer.zero_grad()
        output = run(criterion, {"class_logits": logits, "box_regression": regression}, targets)
        output.total.backward()
        optimizer.step()
        cooling.step()
    (match,) = output.matches
    decoded = criterion.coder.decode(regression[0], ANCHORS)[match.positive]
    overlap = detloss.boxes.paired_overlap(
        decoded, targets[0]["boxes"][match.target_index[match.positive]]
    )
    assert overlap.min() > 0.9


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [3, 0]])
@pytest.mark.parametrize("sampler", SAMPLERS.names())
@pytest.mark.parametrize("normalizer", ["positives", "per_image"])
def test_images_without_objects_are_ordinary_input(counts, sampler, normalizer):
    criterion = build(sampler={"type": sampler}, normalizer={"type": normalizer})
    predictions = random_predictions(2, len(ANCHORS))
    output = run(criterion, predictions, random_targets(counts))
    assert list(output.terms) == ["classification", "box"]
    assert output.total.isfinite()
    logit_gradient, box_gradient = gradients(output.total, predictions)
    empty = torch.tensor(counts) == 0
    assert (box_gradient[empty] == 0).all()
    if sampler != "hard_negative":  # which takes no negatives without positives
        assert (logit_gradient[empty] != 0).all(-1).any(-1).all(), "the background is trained"
    if not any(counts):
        assert output.terms["box"] == 0


def test_ignored_and_unsampled_anchors_get_no_class_gradient():
    criterion = build(sampler={"type": "hard_negative", "ratio": 1.0})
    predictions = random_predictions(1, len(ANCHORS))
    output = run(criterion, predictions, random_targets([3]))
    gradient, _ = gradients(output.total, predictions)
    (match,) = output.matches
    assert match.negative.sum() == match.positive.sum()
    assert (gradient[0, match.ignored] == 0).all()
    assert (gradient[0, ~match.ignored] != 0).all()


def test_a_crowd_region_teaches_nothing():
    targets = random_targets([2])
    targets[0]["ignore"] = torch.tensor([False, True])
    predictions = random_predictions(1, len(ANCHORS))
    output = run(build(), predictions, targets)
    (match,) = output.matches
    assert (match.target_index[match.positive] == 0).all()
    inside = detloss.boxes.pairwise_overlap(ANCHORS, targets[0]["boxes"][1:], kind="iof")[:, 0]
    gradient, _ = gradients(output.total, predictions)
    assert (gradient[0, (inside >= 0.5) & ~match.positive] == 0).all()


def test_hard_negatives_are_those_of_the_largest_loss():
    criterion = build(
        classification={"type": "softmax_cross_entropy"},
        sampler={"type": "hard_negative", "ratio": 2.0},
    )
    predictions = random_predictions(1, len(ANCHORS), classes=CLASSES + 1)
    (match,) = run(criterion, predictions, random_targets([2])).matches
    background_loss = -predictions["class_logits"][0].log_softmax(-1)[:, -1]
    (before,) = run(build(), random_predictions(1, len(ANCHORS)), random_targets([2])).matches
    dropped = before.negative & ~match.negative
    assert match.negative.sum() == 2 * match.positive.sum()
    assert background_loss[match.negative].min() >= background_loss[dropped].max()


def test_softmax_background_may_be_the_first_column():
    last = build(classification={"type": "softmax_cross_entropy"})
    first = build(classification={"type": "softmax_cross_entropy", "background_index": 0})
    predictions = random_predictions(2, len(ANCHORS), classes=CLASSES + 1)
    rolled = predictions | {"class_logits": predictions["class_logits"].roll(1, dims=-1)}
    targets = random_targets([2, 0])
    assert_close(run(last, predictions, targets).total, run(first, rolled, targets).total)


def per_image_sums(predictions, targets):
    criterion = build(normalizer={"type": "constant", "value": 1.0})
    sums, positives = [], []
    for image, target in enumerate(targets):
        one = {name: values[image : image + 1] for name, values in predictions.items()}
        output = run(criterion, one, [target])
        sums.append(output.total)
        positives.append(int(output.matches[0].positive.sum()))
    return sums, positives


def test_normalizers_divide_what_they_say():
    predictions, targets = random_predictions(3, len(ANCHORS)), random_targets([4, 0, 1])
    sums, positives = per_image_sums(predictions, targets)
    expected = {
        "positives": sum(sums) / sum(positives),
        "per_image": sum(s / max(1, p) for s, p in zip(sums, positives, strict=True)) / 3,
    }
    for name, value in expected.items():
        assert_close(run(build(normalizer={"type": name}), predictions, targets).total, value)


@pytest.mark.parametrize("name", OF_ALL_TERMS)
def test_a_supplied_number_replaces_the_normalizer_and_micro_batches_add_up(name):
    options = {"value": 5.0} if name == "constant" else {}
    criterion = build(normalizer={"type": name, **options})
    predictions, targets = random_predictions(4, len(ANCHORS)), random_targets([4, 0, 1, 2])
    whole = run(criterion, predictions, targets, normalizer=17)
    parts = [
        run(
            criterion,
            {k: v[half] for k, v in predictions.items()},
            targets[half],
            normalizer=torch.tensor(17),
        ).total
        for half in (slice(0, 1), slice(1, 4))
    ]
    assert_close(sum(parts), whole.total)
    for one, both in zip(
        gradients(sum(parts), predictions), gradients(whole.total, predictions), strict=True
    ):
        assert_close(one, both)


def test_micro_batches_with_the_positives_of_all_equal_the_batch():
    """R10: their number is known before the first of them, from `match`."""
    criterion = build()
    predictions, targets = random_predictions(4, len(ANCHORS)), random_targets([4, 0, 1, 2])
    whole = run(criterion, predictions, targets)
    halves = (slice(0, 1), slice(1, 4))
    matches = [criterion.match(targets[half], anchors=ANCHORS) for half in halves]
    positives = sum(m.positive.sum() for part in matches for m in part)
    parts = [
        run(
            criterion,
            {k: v[half] for k, v in predictions.items()},
            targets[half],
            normalizer=positives,
            matches=found,
        ).total
        for half, found in zip(halves, matches, strict=True)
    ]
    assert_close(sum(parts), whole.total)
    for one, both in zip(
        gradients(sum(parts), predictions), gradients(whole.total, predictions), strict=True
    ):
        assert_close(one, both)


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_match_says_what_a_call_would_use(sampler):
    criterion = build(sampler={"type": sampler})
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 0])
    torch.manual_seed(5)
    used = run(criterion, predictions, targets).matches
    torch.manual_seed(5)
    said = criterion.match(targets, anchors=ANCHORS, predictions=predictions)
    for one, other in zip(said, used, strict=True):
        assert torch.equal(one.positive, other.positive)
        assert torch.equal(one.ignored, other.ignored)


def test_matches_of_another_batch():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([1, 5])
    criterion = build()
    matches = criterion.match(targets, anchors=ANCHORS)
    with pytest.raises(ValueError, match="matches must be 2, one an image, got 1"):
        run(criterion, predictions, targets, matches=matches[:1])
    criterion.validate = True
    with pytest.raises(ValueError, match=r"matches\[0\].target_index\[.*must be in 0..0, got"):
        run(criterion, predictions, targets, matches=matches[::-1])


def test_match_of_predictions_of_another_batch():
    with pytest.raises(ValueError, match="targets must be 2, like the images of .*, got 1"):
        build().match(
            random_targets([1]),
            anchors=ANCHORS,
            predictions=random_predictions(2, len(ANCHORS)),
        )


def test_match_names_boxes_of_another_unit_before_it_warns_of_what_they_miss():
    criterion, targets = build(), random_targets([3])
    criterion.validate = True
    targets[0]["boxes"] /= 64
    with pytest.raises(ValueError, match="must be in the unit of the anchors"):
        criterion.match(targets, anchors=ANCHORS)
    assert criterion.match([], anchors=ANCHORS) == criterion.match([], anchors=[]) == []


def test_match_asks_for_predictions_where_they_decide():
    criterion = build(sampler={"type": "hard_negative"})
    with pytest.raises(ValueError, match="sampler hard_negative needs predictions, got None"):
        criterion.match(random_targets([2]), anchors=ANCHORS)


@pytest.mark.parametrize("looking", [True, False])
@pytest.mark.parametrize("box", ["smooth_l1", "ciou"])
def test_the_losses_of_images_add_up_to_the_batchs(box, looking):
    """R52."""
    criterion = build(box={"type": box, "weight": 2.0})
    predictions, targets = random_predictions(3, len(ANCHORS)), random_targets([4, 0, 1])
    with contextlib.nullcontext() if looking else without_host_sync():
        batch = run(criterion, predictions, targets)
        images = run(criterion, predictions, targets, reduction="image")
    assert images.total.shape == (3,)
    assert list(images.terms) == list(batch.terms)
    assert_close(images.total, images.terms["classification"] + images.terms["box"])
    for name, term in images.terms.items():
        assert_close(term.sum(), batch.terms[name])
    assert images.terms["box"][1] == 0
    for one, other in zip(
        gradients(images.total.sum(), predictions), gradients(batch.total, predictions), strict=True
    ):
        assert_close(one, other)
    for one, other in zip(gradients(images.total[2], predictions), predictions, strict=True):
        assert (one[:2] == 0).all(), other.shape
    assert images.log()["total"] == pytest.approx(batch.log()["total"])


def test_rejects_an_unknown_reduction():
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'image', got 'mean'"):
        run(build(), random_predictions(1, len(ANCHORS)), random_targets([1]), reduction="mean")


def test_a_box_that_weighs_two_counts_twice_in_both_terms():
    """R54: each positive anchor's loss is multiplied; background keeps its weight."""
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    plain = run(build(), predictions, targets, normalizer=1)
    rows = (
        build()
        .terms["classification"]
        .loss.compute(
            predictions["class_logits"],
            torch.stack(
                [
                    torch.where(m.positive, t["labels"][m.target_index], CLASSES)
                    for m, t in zip(plain.matches, targets, strict=True)
                ]
            ),
            weight=None,
            reduction="none",
        )
        .sum(-1)
    )
    answers = torch.stack([m.positive & (m.target_index == 1) for m in plain.matches])
    answers[1] = False
    targets[0]["weights"] = torch.tensor([1.0, 2.0, 1.0])
    weighted = run(build(), predictions, targets, normalizer=1)
    assert_close(
        weighted.terms["classification"] - plain.terms["classification"], rows[answers].sum()
    )
    only = [dict(targets[0], weights=torch.tensor([0.0, 1.0, 0.0])), targets[1]]
    only[1] = dict(targets[1], weights=torch.zeros(2))
    of_one = run(build(), predictions, only, normalizer=1).terms["box"]
    assert of_one > 0
    assert_close(weighted.terms["box"] - plain.terms["box"], of_one)


def test_a_box_that_weighs_nothing_teaches_nothing():
    predictions, targets = random_predictions(1, len(ANCHORS)), random_targets([2])
    targets[0]["weights"] = torch.tensor([1.0, 0.0])
    output = run(build(), predictions, targets)
    (match,) = output.matches
    answers = match.positive & (match.target_index == 1)
    assert answers.any()
    for gradient in gradients(output.total, predictions):
        assert (gradient[0, answers] == 0).all()


def test_what_ground_truths_and_target_scores_count():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    targets[0]["ignore"] = torch.tensor([False, False, True])
    targets[1]["weights"] = torch.tensor([0.5, 0.5])
    total = run(build(), predictions, targets, normalizer=1)
    positives = [int(m.positive.sum()) for m in total.matches]
    for name, count in (
        ("ground_truths", 4),
        ("target_scores", positives[0] + positives[1] / 2),
        ("positives", sum(positives)),
    ):
        output = run(build(normalizer={"type": name}), predictions, targets)
        assert_close(output.total, total.total / count)


@pytest.mark.parametrize(
    "classification", [n for n in TRAINABLE if not CLASSIFICATION[n].background_columns]
)
def test_classes_that_are_not_labelled_get_no_gradient(classification):
    """R51; the others get theirs as if the class were not there."""
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    targets[0]["class_mask"] = torch.tensor([True, False, True])
    criterion = build(classification={"type": classification})
    output = run(criterion, predictions, targets)
    gradient, _ = gradients(output.total, predictions)
    assert (gradient[0, :, 1] == 0).all()
    assert (gradient[1, :, 1] != 0).any()
    del targets[0]["class_mask"]
    everything, _ = gradients(run(criterion, predictions, targets).total, predictions)
    assert_close(gradient[:, :, [0, 2]], everything[:, :, [0, 2]])
    assert_close(gradient[1], everything[1])


def test_classes_that_are_not_labelled_do_not_decide_what_is_mined():
    predictions, targets = random_predictions(1, len(ANCHORS)), random_targets([2])
    targets[0]["class_mask"] = torch.tensor([True, False, True])
    criterion = build(sampler={"type": "hard_negative", "ratio": 1.0})
    (before,) = run(criterion, predictions, targets).matches
    with torch.no_grad():
        predictions["class_logits"][..., 1] += 10 * torch.randn(len(ANCHORS))
    (after,) = run(criterion, predictions, targets).matches
    assert before.ignored.any()
    assert torch.equal(before.ignored, after.ignored)


def test_float64_predictions_keep_their_digits():
    predictions, targets = random_predictions(1, len(ANCHORS)), random_targets([2])
    predictions = {k: v.detach().double() for k, v in predictions.items()}
    whole = run(build(), predictions, targets)
    (match,) = whole.matches
    undivided = run(build(), predictions, targets, normalizer=1).total
    assert_close(whole.total, undivided / match.positive.sum(), rtol=1e-15, atol=0)


def test_a_class_mask_needs_classes_that_do_not_share_a_probability():
    targets = random_targets([1])
    targets[0]["class_mask"] = torch.ones(CLASSES, dtype=torch.bool)
    criterion = build(classification={"type": "softmax_focal"})
    predictions = random_predictions(1, len(ANCHORS), classes=CLASSES + 1)
    with pytest.raises(ValueError, match="need a yes-or-no classification loss.*softmax_focal"):
        run(criterion, predictions, targets)


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("weights", torch.ones(2), ValueError, r"\['weights'\] must have shape \(1,\), got \(2,\)"),
        ("class_mask", torch.ones(CLASSES), TypeError, r"of shape \(3,\), got torch.float32 of"),
        ("class_mask", torch.ones(2).bool(), ValueError, r"of shape \(3,\), got.*\(2,\)"),
    ],
)
def test_rejects_optional_entries_of_another_shape_or_type(key, value, error, message):
    targets = random_targets([1])
    targets[0][key] = value
    with pytest.raises(error, match=message):
        run(build(), random_predictions(1, len(ANCHORS)), targets)


def test_duplicating_the_batch_changes_nothing():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 1])
    doubled = {name: torch.cat([values, values]) for name, values in predictions.items()}
    criterion = build()
    assert_close(
        run(criterion, doubled, targets * 2).total, run(criterion, predictions, targets).total
    )


def test_train_and_eval_compute_the_same():
    predictions, targets = random_predictions(1, len(ANCHORS)), random_targets([3])
    criterion = build()
    trained = run(criterion.train(), predictions, targets).total
    with torch.no_grad():
        evaluated = run(criterion.eval(), predictions, targets).total
    assert torch.equal(trained, evaluated)


def test_anchors_of_each_image():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 1])
    shifted = [ANCHORS, ANCHORS + 1]
    together = build(normalizer={"type": "supplied"})(
        predictions, targets, anchors=shifted, normalizer=1
    )
    apart = [
        build()(
            {k: v[i : i + 1] for k, v in predictions.items()},
            targets[i : i + 1],
            anchors=shifted[i],
            normalizer=1,
        ).total
        for i in range(2)
    ]
    assert_close(together.total, sum(apart))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions(dtype):
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 0])
    half = {k: v.detach().to(dtype).requires_grad_() for k, v in predictions.items()}
    wide = {k: v.detach().float().requires_grad_() for k, v in half.items()}
    output, expected = run(build(), half, targets), run(build(), wide, targets)
    assert output.total.dtype == torch.float32
    assert_close(output.total, expected.total)
    for got, want in zip(
        gradients(output.total, half), gradients(expected.total, wide), strict=True
    ):
        assert got.dtype == dtype
        assert_close(got, want.to(dtype))


@pytest.mark.parametrize("box", REGRESSION.names())
def test_ground_truth_from_numpy_may_be_float64(box):
    width, targets = build(box={"type": box}).coder.width, random_targets([3, 0])
    predictions = random_predictions(2, len(ANCHORS), width=width)
    expected = run(build(box={"type": box}), predictions, targets)
    for target in targets:
        target["boxes"] = target["boxes"].double()
    output = run(build(box={"type": box}), predictions, targets)
    assert_close(output.total, expected.total, check_dtype=False)
    for gradient in gradients(output.total, predictions):
        assert gradient.dtype == torch.float32


def test_nan_predictions_give_a_nan_loss_not_a_crash():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 0])
    with torch.no_grad():
        predictions["class_logits"][1, 7, 2] = float("nan")
    output = run(build(), predictions, targets)
    assert output.terms["classification"].isnan()
    assert output.terms["box"].isfinite()


def test_debug_validation_names_image_and_term():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 0])
    with torch.no_grad():
        predictions["class_logits"][1, 7, 2] = float("nan")
    criterion = build()
    criterion.validate = True
    with pytest.raises(ValueError, match="term 'classification', image 1: .*anchor 7, column 2"):
        run(criterion, predictions, targets)


def test_debug_validation_names_a_bad_label():
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([1, 3])
    targets[1]["labels"][2] = CLASSES
    criterion = detloss.build(build().config(), validate=True)
    with pytest.raises(ValueError, match=r"targets\[1\]\['labels'\]\[2\] must be in|be in 0..2"):
        run(criterion, predictions, targets)


def test_debug_validation_warns_of_an_object_that_no_anchor_answers_for():
    """What the matcher says, before a sampler leaves positives out."""
    targets = random_targets([4])
    targets[0]["boxes"][2] = torch.tensor([200.0, 200, 210, 210])
    criterion = build(sampler={"type": "random_balanced", "size": 1})
    criterion.validate = True
    with pytest.warns(UserWarning, match=r"1 of 4 .* matched no anchor, first .*\[0\].*\[2\]"):
        run(criterion, random_predictions(1, len(ANCHORS)), targets)


def test_debug_validation_names_the_term_that_went_astray_first():
    criterion = build(box={"type": "l2"})
    criterion.validate = True
    predictions = random_predictions(1, len(ANCHORS))
    with torch.no_grad():
        predictions["box_regression"].fill_(1e30)  # finite, but not its square
    with pytest.raises(ValueError, match=r"terms\['box'\] must be finite, got inf"):
        run(criterion, predictions, random_targets([1]))


def test_an_environment_variable_switches_debug_validation_on(monkeypatch):
    assert not build().validate
    monkeypatch.setenv("DETLOSS_VALIDATE", "1")
    assert build().validate


def test_state_and_copies():
    criterion = build(classification={"type": "sigmoid_focal", "alpha": [0.1, 0.2, 0.3]})
    predictions, targets = random_predictions(1, len(ANCHORS)), random_targets([3])
    expected = run(criterion, predictions, targets).total
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert copied.config() == criterion.config()
        assert torch.equal(run(copied, predictions, targets).total, expected)
    assert criterion.state_dict() == {}


def test_a_metric_cannot_be_trained_on():
    with pytest.raises(detloss.ConfigError, match="zero_one is a metric without gradient"):
        build(classification={"type": "zero_one"})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"class_logits": None}, ValueError, "must have 'class_logits' and 'box_regression', got"),
        ({"class_logits": torch.zeros(64, 3)}, ValueError, r"\(B, A, C\), C >= 1, got \(64, 3\)"),
        ({"class_logits": torch.zeros(2, 64, 3).long()}, TypeError, "floating point, got torch.in"),
        (
            {"box_regression": torch.zeros(2, 63, 4)},
            ValueError,
            r"\(2, 64, \.\.\.\), .* got \(2, 63, 4\)",
        ),
    ],
    ids=["missing", "one image", "integers", "fewer anchors"],
)
def test_rejects_predictions(change, error, message):
    predictions = {k: v for k, v in (random_predictions(2, 64) | change).items() if v is not None}
    with pytest.raises(error, match=message):
        run(build(), predictions, random_targets([1, 1]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.zeros(2)}, TypeError, r"\['labels'\] must be integers, got torch.float"),
        ({"labels": torch.zeros(3).long()}, ValueError, r"got \(2, 4\) and \(3,\)"),
        ({"boxes": torch.zeros(2, 5)}, ValueError, r"\['boxes'\] must have shape \(..., 4\)"),
        ({"boxes": torch.zeros(2, 4).long()}, TypeError, "must be floating point, got torch.int64"),
        ({"ignore": torch.zeros(2)}, TypeError, "must be boolean of shape .*, got torch.float32"),
        ({"ignore": torch.zeros(3).bool()}, ValueError, r"must be boolean of shape \(2,\)"),
    ],
    ids=["float labels", "count", "last axis", "integer boxes", "float ignore", "ignore count"],
)
def test_rejects_targets(change, error, message):
    targets = [random_targets([2])[0] | change]
    with pytest.raises(error, match=message):
        run(build(), random_predictions(1, 64), targets)


def test_rejects_a_missing_key_and_a_wrong_number_of_images():
    predictions = random_predictions(2, 64)
    with pytest.raises(ValueError, match="targets must be 2, like the images of .*, got 1"):
        run(build(), predictions, random_targets([1]))
    with pytest.raises(ValueError, match=r"targets\[1\] must have 'labels', got \['boxes'\]"):
        run(build(), predictions, [random_targets([1])[0], {"boxes": torch.zeros(0, 4)}])


def test_rejects_a_batch_without_images():
    with pytest.raises(ValueError, match="targets must be of at least one image, got none"):
        run(build(), random_predictions(0, len(ANCHORS)), [])


def test_rejects_anchors_that_do_not_fit():
    predictions, targets = random_predictions(2, 64), random_targets([1, 1])
    with pytest.raises(ValueError, match=r"anchors must be 64, like .* \(2, 64, 3\), got 63"):
        build()(predictions, targets, anchors=ANCHORS[:63])
    with pytest.raises(ValueError, match="anchors .* one for each image, 2 here, got a list of 3"):
        build()(predictions, targets, anchors=[ANCHORS] * 3)


def test_rejects_a_normalizer_of_another_shape():
    with pytest.raises(
        ValueError,
        match=r"normalizer of 'classification' must be a number or have shape \(1,\), got \(2,\)",
    ):
        run(build(), random_predictions(1, 64), random_targets([1]), normalizer=torch.ones(2))


def test_rejects_a_normalizer_of_an_unknown_term():
    with pytest.raises(ValueError, match="must name terms, classification, box, got 'boxes'"):
        run(build(), random_predictions(1, 64), random_targets([1]), normalizer={"boxes": 1.0})


class Owner(nn.Module):
    """A network that has its loss with it, as many do, and uses it in training mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.criterion = build(classification={"type": "sigmoid_focal", "class_weight": [1.0, 2.0]})

    @torch.jit.unused
    def loss(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.layer(x).expand(1, len(ANCHORS), 2)
        predictions = {"class_logits": logits, "box_regression": torch.zeros(1, len(ANCHORS), 4)}
        return run(self.criterion, predictions, random_targets([3])).total

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.loss(x)
        return self.layer(x)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_module_with_a_criterion_can_be_scripted_without_it():
    owner, x = Owner(), torch.ones(1, 3)
    loss = owner(x)
    scripted = torch.jit.script(owner.eval())
    assert torch.equal(scripted(x), owner(x))
    assert not any("criterion" in key for key in scripted.state_dict())
    assert owner.train()(x) == loss  # scripting has not changed the owner


def test_a_criterion_without_terms_has_a_loss_of_0():
    criterion = detloss.build({"matcher": {"type": "max_iou"}})
    targets = random_targets([2, 0])
    assert run(criterion, {}, targets).total.tolist() == 0
    assert run(criterion, {}, targets, reduction="image").total.tolist() == [0, 0]


def test_a_term_belongs_to_no_criterion():
    """One term in two criteria: each divides it by its own normalizer."""
    term = build().terms["box"]
    of_levels, of_batch = (
        detloss.DetectorLoss(
            matcher=MaxIoUMatcher(), terms=[term], normalizer=PositivesNormalizer(per=per)
        )
        for per in ("level", "batch")
    )
    predictions, targets = random_predictions(2, len(ANCHORS)), random_targets([3, 2])
    output = run(of_levels, predictions, targets, level_sizes=[30, 20, 14])
    assert output.divisors["box"].shape == (3,)
    batch = run(of_batch, predictions, targets)
    assert_close(batch.total, run(build(), predictions, targets).terms["box"])
    counts = torch.stack([match.positive for match in output.matches]).split([30, 20, 14], 1)
    assert output.divisors["box"].tolist() == [max(int(count.sum()), 1) for count in counts]


def test_another_normalizer_is_used_from_the_next_call_on():
    criterion, predictions = build(), random_predictions(2, len(ANCHORS))
    criterion.normalizer = PositivesNormalizer(per="level")
    output = run(criterion, predictions, random_targets([3, 2]), level_sizes=[30, 20, 14])
    fresh = build(normalizer={"type": "positives", "per": "level"})
    expected = run(fresh, predictions, random_targets([3, 2]), level_sizes=[30, 20, 14])
    assert torch.equal(output.total, expected.total)
