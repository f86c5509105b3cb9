"""Class indices and values per class: which are refused, and where they are not looked at."""

import pytest
import torch
from torch.testing import assert_close

import detloss
from detloss.kernels.targets import check_range, class_indices
from detloss.registry import CLASSIFICATION, options_of
from detloss.tensors import without_host_sync

CLASSES = 4
EVERY_LOSS = pytest.mark.parametrize("name", CLASSIFICATION.names())
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def build(name, **options):
    return detloss.build_part("classification", {"type": name, **options})


def last_index(loss):
    """The background's, C: of a softmax the last of K = C + 1 columns."""
    return CLASSES - loss.background_columns


def logits_and_indices(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, CLASSES, generator=generator, requires_grad=True)
    return logits, torch.tensor([0, 1, 2, last_index(loss), 0, 2])


def value_and_gradient(loss, logits, target, weight=None):
    value = loss.compute(logits, target, weight=weight, reduction="none")
    if not value.requires_grad:
        return value
    return value.detach(), torch.autograd.grad(value.sum(), logits)[0]


@EVERY_LOSS
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_class_indices_may_be_any_integers(name, dtype):
    loss = build(name, ignore_index=100)
    logits, target = logits_and_indices(loss)
    target[4] = 100
    expected = value_and_gradient(loss, logits, target)
    assert_close(value_and_gradient(loss, logits, target.to(dtype)), expected)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert_close(compiled(logits, target.to(dtype)), loss(logits, target))
    torch._dynamo.reset()


@EVERY_LOSS
@pytest.mark.parametrize("ignore_index", [-1, -100, 255])
@pytest.mark.parametrize("bad", [-100, -2, -1, CLASSES + 1, 255])
def test_an_index_that_means_nothing_is_named_on_a_cpu(name, bad, ignore_index):
    loss = build(name, ignore_index=ignore_index)
    logits, target = logits_and_indices(loss)
    target[1] = ignore_index
    if bad == ignore_index:
        target[0] = bad
        values = value_and_gradient(loss, logits, target)
        for rows in values if isinstance(values, tuple) else (values,):
            assert (rows[:2] == 0).all()
        return
    target[3] = bad
    message = (
        rf"^class indices in target must be in 0\.\.{last_index(loss)}, or ignore_index, "
        f"{ignore_index}, for rows to leave out, got {bad}$"
    )
    with pytest.raises(ValueError, match=message):
        value_and_gradient(loss, logits, target)


@EVERY_LOSS
@pytest.mark.parametrize("elementwise", [False, True])
def test_a_row_of_weight_0_may_hold_any_index(name, elementwise):
    loss = build(name)
    if elementwise and loss.background_columns:
        pytest.skip("a softmax has one weight a row")
    logits, target = logits_and_indices(loss)
    weight = torch.tensor([1.0, 0, 2, 1, 0, 1])
    weight = weight[:, None].expand(6, CLASSES).clone() if elementwise else weight
    expected = loss(logits, target, weight)
    expected_rows = value_and_gradient(loss, logits, target, weight)
    target[1], target[4] = -100, 1000
    given = target.clone()
    assert_close(loss(logits, target, weight), expected)  # a mean counts the row all the same
    assert_close(value_and_gradient(loss, logits, target, weight), expected_rows)
    assert torch.equal(target, given)
    target[0] = -7
    with pytest.raises(ValueError, match="got -7"):
        loss(logits, target, weight)


@EVERY_LOSS
def test_an_index_is_looked_at_by_neither_a_gpu_nor_a_transform(name):
    loss = build(name)
    if loss.background_columns:
        pytest.skip("such an index is an indexing error")
    logits, target = logits_and_indices(loss)
    expected = value_and_gradient(loss, logits, target)
    target[target == CLASSES] = -100  # counts as background
    with without_host_sync():
        assert_close(value_and_gradient(loss, logits, target), expected)

    def rows(x, t):
        return loss.compute(x, t, weight=None, reduction="none")

    assert_close(torch.func.vmap(rows)(logits.detach(), target), expected[0])


def test_no_index_at_all():
    assert class_indices(torch.zeros(0, dtype=torch.int32), 3, -1, None).dtype == torch.int64


OPTIONS = [
    pytest.param(name, option, id=f"{name}-{option}")
    for name in CLASSIFICATION.names()
    for option in ("alpha", "class_weight")
    if option == "class_weight" or "Tensor" in str(options_of(CLASSIFICATION[name]).get(option))
]
NAN = float("nan")


def is_fraction(name, option):
    return option == "alpha" and not CLASSIFICATION[name].background_columns


@pytest.mark.parametrize(("name", "option"), OPTIONS)
@pytest.mark.parametrize("bad", [-1.0, -1e-6, NAN, float("inf"), 3.0], ids=str)
@pytest.mark.parametrize("kind", [list, tuple, torch.tensor], ids=["list", "tuple", "tensor"])
def test_a_value_of_a_class_out_of_range_is_refused(name, option, bad, kind):
    values = kind([0.25, bad, 0.5, 1.0])
    logits, target = logits_and_indices(build(name))
    if bad == 3 and not is_fraction(name, option):
        build(name, **{option: values})(logits, target)
        return
    expected = r"in \[0, 1\]" if is_fraction(name, option) else "finite and at least 0"
    shown = f"{bad:.1f}" if abs(bad) >= 1 or bad != bad else ".*"
    message = f"{option}.* must be {expected}, got {shown}"
    function = CLASSIFICATION[name].function
    with pytest.raises(ValueError, match=message):
        function(logits, target, **{option: values})
    with pytest.raises(ValueError, match=option):
        CLASSIFICATION[name](**{option: values})
    if kind is list:
        with pytest.raises(detloss.ConfigError, match=option):
            build(name, **{option: values})


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_values_of_the_classes_are_not_looked_at_where_that_is_a_host_sync(name, option):
    """But for Python's own, which cost nothing to look at."""
    logits, target = logits_and_indices(build(name))
    with without_host_sync():
        CLASSIFICATION[name].function(
            logits, target, **{option: torch.tensor([0.25, -1.0, 0.5, 1.0])}
        )
        with pytest.raises(ValueError, match=f"{option} must be"):
            CLASSIFICATION[name].function(logits, target, **{option: [0.25, -1.0, 0.5, 1.0]})


def test_the_ends_of_a_range_are_in_it():
    for values in ([0.0, 1.0], torch.tensor([0.0, 1.0]), [], torch.zeros(0)):
        check_range("alpha", values, 1)
    check_range("class_weight", [1e30], float("inf"))


@pytest.mark.parametrize(
    ("values", "got"),
    [
        pytest.param([0.25, True, 0.5, 1.0], "True", id="a boolean in a list"),
        pytest.param(torch.ones(4, dtype=torch.bool), "torch.bool", id="a tensor of booleans"),
        pytest.param("1234", "'1'", id="text"),
    ],
)
@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_values_of_the_classes_are_numbers(name, option, values, got):
    logits, target = logits_and_indices(build(name))
    with pytest.raises(TypeError, match=f"^{option} must be numbers, got {got}$"):
        CLASSIFICATION[name].function(logits, target, **{option: values})
