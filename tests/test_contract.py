"""What every registered loss must do. A new loss is tested here without an edit."""

import copy
import inspect
import math
import pickle
import re
from contextlib import nullcontext
from typing import get_args, get_type_hints

import pytest
import torch
from boxgen import BINS, random_boxes, rows_in
from constants import holding_constants
from exact import reference_of
from registered import space_of
from torch.autograd import gradcheck
from torch.testing import assert_close

import detloss
from detloss.classification import ClassificationLoss
from detloss.kernels import Space, plain_formulas
from detloss.registry import CLASSIFICATION, QUALITIES, REGRESSION, SECTIONS, TERMS, options_of
from detloss.regression import BoxLoss
from detloss.tensors import without_host_sync

DIFFERENTIABLE = [n for n in CLASSIFICATION.names() if CLASSIFICATION[n].differentiable]
ALL_LOSSES = [("classification", n) for n in CLASSIFICATION.names()] + [
    ("box", n) for n in REGRESSION.names()
]
TRAINABLE = [("classification", n) for n in DIFFERENTIABLE] + [
    ("box", n) for n in REGRESSION.names()
]
CLASSES = 4


def build(kind, name, **options):
    return detloss.build_part(kind, {"type": name, **options})


def example(space, count=5, *, dtype=torch.float64, seed=0):
    """Predictions that require a gradient, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    if space == "classes":
        logits = torch.randn(count, CLASSES, generator=generator, dtype=torch.float64) * 2
        target = torch.arange(count) % CLASSES
        return logits.to(dtype).requires_grad_(), target
    boxes = random_boxes(count, seed=seed, extent=10.0)
    pred, target = rows_in(space, boxes, boxes + 0.375)
    return pred.to(dtype).requires_grad_(), target.to(dtype)


@pytest.fixture(params=ALL_LOSSES, ids=lambda p: "-".join(p))
def each(request):
    return space_of(*request.param), build(*request.param)


@pytest.fixture(params=TRAINABLE, ids=lambda p: "-".join(p))
def trainable(request):
    return space_of(*request.param), build(*request.param)


@pytest.mark.parametrize(("kind", "name"), TRAINABLE)
def test_gradient_is_that_of_the_value(kind, name):
    if kind == "box" and reference_of(REGRESSION[name]).constants:
        pytest.skip("part of the loss is constant for the gradient: its own test holds that")
    loss = build(kind, name)
    pred, target = example(space_of(kind, name))
    for reduction in ("mean", "none"):

        def value(p, reduction=reduction):
            return loss.compute(p, target, weight=None, reduction=reduction)

        assert gradcheck(holding_constants(value), pred)


def test_every_coordinate_gets_a_gradient(trainable):
    space, loss = trainable
    pred, target = example(space)
    if space == "classes":  # undecided: a margin that is kept may have no gradient
        pred = (pred.detach() / 10).requires_grad_()
    loss.compute(pred, target, weight=None, reduction="sum").backward()
    assert (pred.grad != 0).all()


def test_nothing_gives_zero_and_a_gradient(each):
    space, loss = each
    for dtype in (torch.float64, torch.float32, torch.float16):
        pred, target = example(space, 0, dtype=dtype)
        value = loss(pred, target)
        assert value == 0
        assert value.shape == ()
        if getattr(loss, "differentiable", True):
            value.backward()
            assert pred.grad.shape == pred.shape


def test_reductions_agree(each):
    space, loss = each
    pred, target = example(space)
    rows = loss.compute(pred, target, weight=None, reduction="none")
    of_rows = pred.shape[:-1] if space == "classes" else target.shape[:-1]
    assert rows.shape == of_rows or (space == "classes" and rows.shape == pred.shape)
    assert_close(loss.compute(pred, target, weight=None, reduction="sum"), rows.sum())
    assert_close(loss.compute(pred, target, weight=None, reduction="mean"), rows.mean())


@pytest.mark.parametrize("weighted", [False, True])
def test_the_losses_of_images_add_up_to_the_batchs(each, weighted):
    """R52."""
    space, loss = each
    pred, target = example(space, 12)
    weight = torch.arange(12.0).view(3, 4) if weighted else None
    batch, truth = pred.unflatten(0, (3, 4)), target.unflatten(0, (3, 4))
    rows = loss.compute(batch, truth, weight=weight, reduction="none")
    images = loss.compute(batch, truth, weight=weight, reduction="image")
    assert images.shape == (3,)
    assert_close(images, rows.flatten(1).sum(1))
    assert_close(images.sum(), loss.compute(batch, truth, weight=weight, reduction="sum"))
    nothing = loss.compute(batch[:0], truth[:0], weight=None, reduction="image")
    assert nothing.shape == (0,)
    row_each = loss.compute(pred, target, weight=None, reduction="image")
    assert row_each.shape == (12,)
    if images.requires_grad:
        (gradient,) = torch.autograd.grad(images[1], pred)
        (expected,) = torch.autograd.grad(rows[1].sum(), pred)
        assert_close(gradient, expected)


def test_leading_axes_are_rows(each):
    space, loss = each
    pred, target = example(space, 6)
    folded = target.unflatten(0, (2, 3))
    rows = loss.compute(pred, target, weight=None, reduction="none")
    assert_close(
        loss.compute(pred.unflatten(0, (2, 3)), folded, weight=None, reduction="none"),
        rows.unflatten(0, (2, 3)),
    )


def test_normalizer_replaces_the_count(each):
    space, loss = each
    pred, target = example(space)
    total = loss.compute(pred, target, weight=None, reduction="sum")
    assert_close(loss(pred, target, normalizer=8), total / 8)
    assert_close(loss(pred, target, None, torch.tensor(8.0)), total / 8)
    nothing = loss(pred[:0], target[:0], normalizer=torch.tensor(0))  # of a batch without objects
    assert nothing == 0


def test_normalizer_needs_a_mean(each):
    space, loss = each
    section = "classification" if space == "classes" else "box"
    summed = build(section, loss.type_name, reduction="sum")
    with pytest.raises(ValueError, match="reduction='mean', got 'sum'"):
        summed(*example(space), normalizer=8)


@pytest.mark.parametrize(
    ("normalizer", "words"),
    [
        (0, "must be a finite number > 0, got 0"),
        (-1.0, "must be a finite number > 0, got -1.0"),
        (math.nan, "must be a finite number > 0, got nan"),
        (math.inf, "must be a finite number > 0, got inf"),
        (True, "must be a number or a tensor, got bool"),
        ("8", "must be a number or a tensor, got str"),
    ],
)
def test_a_normalizer_that_cannot_divide_is_refused(each, normalizer, words):
    space, loss = each
    with pytest.raises((TypeError, ValueError), match=f"normalizer {re.escape(words)}"):
        loss(*example(space), normalizer=normalizer)


def test_weight_two_equals_the_row_twice(each):
    space, loss = each
    pred, target = example(space, 3)
    weight = torch.tensor([1.0, 2.0, 1.0])
    twice = torch.tensor([0, 1, 1, 2])
    assert_close(
        loss.compute(pred, target, weight=weight, reduction="sum"),
        loss.compute(pred[twice], target[twice], weight=None, reduction="sum"),
    )


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_weight_zero_silences_whatever_the_row_holds(trainable, poison):
    space, loss = trainable
    pred, target = example(space, 3)
    clean = loss.compute(pred[[0, 2]], target[[0, 2]], weight=None, reduction="sum")
    with torch.no_grad():
        pred[1] = poison
        if space != "classes":
            target[1] = poison
    weight = torch.tensor([1.0, 0.0, 1.0])
    rows = loss.compute(pred, target, weight=weight, reduction="none")
    assert (rows[1] == 0).all()
    value = loss.compute(pred, target, weight=weight, reduction="sum")
    value.backward()
    assert_close(value, clean)
    assert (pred.grad[1] == 0).all()
    assert pred.grad[[0, 2]].isfinite().all()


def test_a_nan_prediction_gives_a_nan_loss(trainable):
    space, loss = trainable
    pred, target = example(space, 3)
    with torch.no_grad():
        pred[1, 0] = float("nan")
    assert loss(pred, target).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(each, dtype):
    space, loss = each
    pred, target = example(space, dtype=dtype)
    wide = pred.detach().float().requires_grad_()
    value = loss(pred, target)
    expected = loss(wide, target.float() if space != "classes" else target)
    assert value.dtype == torch.float32
    assert_close(value, expected)
    if value.requires_grad:
        value.backward()
        expected.backward()
        assert pred.grad.dtype == dtype
        assert_close(pred.grad, wide.grad.to(dtype))


def test_the_module_is_its_function(each):
    space, loss = each
    pred, target = example(space)
    assert_close(
        loss.compute(pred, target, weight=None, reduction="none"), loss.function(pred, target)
    )


def test_data_is_positional_and_the_rest_by_keyword(each):
    _, loss = each
    kinds = [p.kind for p in inspect.signature(loss.function).parameters.values()]
    assert kinds[:2] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2
    assert set(kinds[2:]) == {inspect.Parameter.KEYWORD_ONLY}, "write `*,` behind the data"


def test_the_docstring_says_what_a_user_needs(each):
    _, loss = each
    doc = loss.function.__doc__
    for section in ("Args:", "Returns:", "Raises:", "Example:", "Reference:", "``"):
        what = "the equation in ``...``" if section == "``" else f"a section `{section}`"
        assert section in doc, f"write {what} in the docstring of {loss.function.__name__}"


def test_refuses_to_broadcast(each):
    space, loss = each
    pred, target = example(space, 3)
    with pytest.raises(ValueError, match="shape"):
        loss(pred, target[:1])


def test_refuses_integer_predictions(each):
    space, loss = each
    pred, target = example(space)
    with pytest.raises(TypeError, match=r"must be floating point, got torch.int64"):
        loss(pred.detach().long(), target)


def test_refuses_a_weight_of_another_shape(each):
    space, loss = each
    with pytest.raises(ValueError, match=r"weight must have shape \(5,\).*, got \(4,\)"):
        loss(*example(space), torch.ones(4))


def test_refuses_an_unknown_reduction(each):
    space, loss = each
    with pytest.raises(ValueError, match="one of none, sum, mean, image, got 'avg'"):
        loss.compute(*example(space), weight=None, reduction="avg")


def test_survives_pickle_and_deepcopy(each):
    space, loss = each
    pred, target = example(space)
    for copied in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert copied.config() == loss.config()
        assert_close(copied(pred, target), loss(pred, target))


@pytest.mark.parametrize("name", CLASSIFICATION.names())
class TestEveryClassificationLoss:
    def test_ignored_rows_count_nothing(self, name):
        loss = build("classification", name)
        logits, target = example("classes", 4)
        expected = loss(logits[[0, 2]], target[[0, 2]])
        target = target.clone()
        target[[1, 3]] = -1
        assert_close(loss(logits, target), expected)
        if loss.differentiable:
            loss(logits, target).backward()
            assert (logits.grad[[1, 3]] == 0).all()

    def test_everything_ignored_is_zero(self, name):
        logits, _ = example("classes", 4)
        assert build("classification", name)(logits, torch.full((4,), -1)) == 0

    def test_another_ignore_index(self, name):
        logits, target = example("classes", 4)
        target = target.clone()
        marked = target.clone()
        target[1], marked[1] = -1, -100
        assert_close(
            build("classification", name, ignore_index=-100)(logits, marked),
            build("classification", name)(logits, target),
        )

    def test_class_weight_scales_the_class(self, name):
        logits, _ = example("classes", 4)
        target = torch.full((4,), 2)
        plain = build("classification", name)
        weighted = build("classification", name, class_weight=[1.0, 1.0, 3.0, 1.0])
        one, other = (
            loss.compute(logits, target, weight=None, reduction="none")
            for loss in (plain, weighted)
        )
        one, other = (rows[:, 2] if rows.ndim == 2 else rows for rows in (one, other))
        assert_close(other, 3 * one)

    def test_class_weight_of_the_wrong_length(self, name):
        loss = build("classification", name, class_weight=[1.0, 2.0])
        with pytest.raises(ValueError, match=r"class_weight must have shape \(4,\).*got \(2,\)"):
            loss(*example("classes"))

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
    def test_class_indices_are_integers_of_any_width(self, name, dtype):
        """R49; 200 classes are more than int8 counts."""
        ignored = 255 if dtype == torch.uint8 else -1
        loss = build("classification", name, ignore_index=ignored)
        logits = torch.randn(5, 200, generator=torch.Generator().manual_seed(0)).requires_grad_()
        target = torch.tensor([0, 7, 127, ignored, 3])
        assert_close(loss(logits, target.to(dtype)), loss(logits, target))

    def test_floating_point_indices_are_refused(self, name):
        logits, target = example("classes")
        with pytest.raises(TypeError, match="class indices in target must be integers"):
            build("classification", name)(logits, target.double())

    def test_a_wrong_target_shape_names_both_accepted_ones(self, name):
        logits, _ = example("classes")
        with pytest.raises(ValueError, match=r"\(5,\) \(class indices\) or \(5, 4\).*got \(5, 3\)"):
            build("classification", name)(logits, torch.zeros(5, 3))

    def test_is_a_classification_loss(self, name):
        assert isinstance(build("classification", name), ClassificationLoss)


TAKES_QUALITY = [name for name in CLASSIFICATION.names() if CLASSIFICATION[name].takes_quality]
LABELS = torch.tensor([0, 2, CLASSES, -1, 1, 3])
"""Classes, a background row and an ignored row."""
QUALITY = torch.tensor([0.25, 1.0, math.nan, math.nan, 0.0, 0.75], dtype=torch.float64)
"""Of each row; where there is no class it must not be read."""


def labelled_example(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(len(LABELS), CLASSES, generator=generator, dtype=torch.float64) * 2
    return logits.to(dtype).requires_grad_()


@pytest.mark.parametrize("name", TAKES_QUALITY)
class TestEveryLossThatTakesAQuality:
    @pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
    def test_a_quality_of_1_is_none(self, name, reduction):
        loss = build("classification", name, reduction=reduction)
        logits = labelled_example()
        assert_close(loss(logits, LABELS, quality=torch.ones(len(LABELS))), loss(logits, LABELS))

    def test_value_and_gradient_are_those_of_the_plain_formula(self, name):
        loss = build("classification", name)
        logits = labelled_example()
        weight = torch.arange(6.0)
        ways = [nullcontext(), plain_formulas(), without_host_sync()]
        results = []
        for way in ways:
            with way:
                rows = loss.compute(
                    logits, LABELS, quality=QUALITY, weight=weight, reduction="none"
                )
                results.append((rows, *torch.autograd.grad(rows.sum(), logits)))
        assert all(value.isfinite().all() for value in results[0])
        assert_close(results[1], results[0])
        assert_close(results[2], results[0])

    def test_gradient_is_that_of_the_value(self, name):
        loss = build("classification", name)
        value = holding_constants(lambda x: loss(x, LABELS, quality=QUALITY))
        assert gradcheck(value, labelled_example())

    def test_only_the_column_of_the_class_knows_it(self, name):
        loss = build("classification", name)
        logits = labelled_example()
        rows = loss.compute(logits, LABELS, quality=QUALITY, weight=None, reduction="none")
        hard = loss.compute(logits, LABELS, weight=None, reduction="none")
        of_class = LABELS[:, None] == torch.arange(CLASSES)
        assert torch.equal(rows[~of_class], hard[~of_class])
        assert (rows[3] == 0).all()

    def test_it_is_a_constant(self, name):
        loss = build("classification", name)
        quality = torch.full((len(LABELS),), 0.5, requires_grad=True)
        loss(labelled_example(), LABELS, quality=quality).backward()
        assert quality.grad is None

    def test_half_precision_class_weights_and_images(self, name):
        loss = build("classification", name, class_weight=[1.0, 2.0, 0.5, 0.0])
        half = labelled_example(torch.bfloat16)
        wide = half.detach().float()
        assert_close(loss(half, LABELS, quality=QUALITY), loss(wide, LABELS, quality=QUALITY))
        rows = loss.compute(wide, LABELS, quality=QUALITY, weight=None, reduction="none")
        images = loss.compute(
            wide.view(2, 3, -1),
            LABELS.view(2, 3),
            quality=QUALITY.view(2, 3),
            weight=None,
            reduction="image",
        )
        assert_close(images, rows.view(2, -1).sum(1))

    def test_compiles_to_one_graph(self, name):
        torch._dynamo.reset()  # which has compiled the same lines for the other losses
        loss = build("classification", name)
        compiled = torch.compile(
            lambda x, q: loss(x, LABELS, quality=q), fullgraph=True, backend="aot_eager"
        )
        logits = labelled_example()
        assert_close(compiled(logits, QUALITY), loss(logits, LABELS, quality=QUALITY))

    def test_refuses_what_does_not_fit(self, name):
        loss, logits = build("classification", name), labelled_example()
        with pytest.raises(ValueError, match=r"quality must have shape \(6,\), .* got \(5,\)"):
            loss(logits, LABELS, quality=QUALITY[:5])
        with pytest.raises(TypeError, match="quality must be floating point, got torch.int64"):
            loss(logits, LABELS, quality=LABELS)
        with pytest.raises(ValueError, match="quality stands beside class indices"):
            loss(logits, torch.zeros_like(logits), quality=QUALITY)


@pytest.mark.parametrize("name", CLASSIFICATION.names())
def test_a_loss_takes_a_quality_or_says_that_it_does_not(name):
    loss = build("classification", name)
    assert loss.takes_quality == (not loss.background_columns) or not loss.takes_quality
    assert loss.default_label in ["one", *QUALITIES.names()]
    if not loss.takes_quality:
        with pytest.raises(TypeError, match=f"{name} takes no quality"):
            loss(torch.zeros(6, CLASSES), torch.zeros(6).long(), quality=QUALITY)


@pytest.mark.parametrize("name", REGRESSION.names())
class TestEveryBoxLoss:
    def test_the_truth_costs_nothing(self, name):
        loss = build("box", name)
        truth = random_boxes(20)
        if loss.space == "deltas":  # certain, where a loss takes the sigmoids of them
            truth = truth * 1e4
        pred = truth
        if loss.space == "bins":  # a distance of a whole bin, and all logits against it but one
            truth = torch.arange(80.0).view(20, 4).remainder(BINS)
            pred = torch.where(truth[..., None] == torch.arange(BINS), 1e4, -1e4)
        rows = loss.compute(pred, truth, weight=None, reduction="none")
        assert_close(rows, torch.zeros_like(rows))

    def test_states_its_space(self, name):
        loss = build("box", name)
        assert isinstance(loss, BoxLoss)
        assert loss.space in get_args(Space)

    def test_wrong_last_axis(self, name):
        loss = build("box", name)
        bins = ", bins" if loss.space == "bins" else ""
        with pytest.raises(ValueError, match=rf"pred must have shape \(..., 4{bins}\).*\(2, 5\)"):
            loss(torch.zeros(2, 5), torch.zeros(2, 5))

    def test_differing_shapes(self, name):
        loss = build("box", name)
        pred, target = example(loss.space, 2)
        with pytest.raises(ValueError, match=r"shape.*\(2, 4\).*\(1, 4\)"):
            loss(pred, target[:1])


@pytest.mark.parametrize(
    ("section", "name"), [(s, n) for s, r in SECTIONS.items() for n in r.names()]
)
def test_every_part_resolves_to_a_config_that_builds_it_again(section, name):
    options = options_of(SECTIONS[section][name]).items()
    required = {option: 7.0 for option, given in options if given.default is given.empty}
    part = build(section, name, **required)
    again = detloss.build_part(section, part.config())
    assert again.config() == part.config()
    assert set(part.config()) == {"type", *options_of(type(part))}
    assert str(again) == str(part)


@pytest.mark.parametrize(
    ("section", "name"), [(s, n) for s, r in SECTIONS.items() for n in r.names()]
)
def test_every_part_names_its_options_when_one_is_unknown(section, name):
    with pytest.raises(detloss.ConfigError, match=rf"{section}.nonsense: unknown option, {name}"):
        build(section, name, nonsense=1)


def names_bool(annotation):
    """Whether an annotation has bool somewhere in it."""
    return annotation is bool or any(map(names_bool, get_args(annotation)))


@pytest.mark.parametrize("value", [True, False, [True, 1.0]], ids=str)
@pytest.mark.parametrize(
    ("section", "name"),
    [(s, n) for s, r in {**SECTIONS, "term": TERMS}.items() for n in r.names()],
)
def test_no_part_takes_a_boolean_for_a_number_or_a_word(section, name, value):
    """True is 1 in Python, and `yes` is True in YAML."""
    cls = TERMS[name] if section == "term" else SECTIONS[section][name]
    hints = get_type_hints(cls.__init__)
    for option in options_of(cls):
        if names_bool(hints[option]):
            continue
        message = rf"{option}: expected .*, got \[?{value if value in (True, False) else True}"
        with pytest.raises((TypeError, ValueError), match=message):
            cls(**{option: value})
        if section != "term":
            with pytest.raises(detloss.ConfigError, match=rf"^{section}\.{message}"):
                detloss.build_part(section, {"type": name, option: value})
