"""Whichever way a call takes, it is the same loss. Over every registered loss."""

import pytest
import torch
from boxgen import random_boxes, rows_in
from registered import LOSSES, space_of
from torch.testing import assert_close

import detloss
from detloss.kernels import Formula, blocks, plain_formulas
from detloss.regression import l1_loss
from detloss.tensors import without_host_sync

CLASSES = 4
REDUCTIONS = ("none", "sum", "mean")


def example(space, count=7, dtype=torch.float64, dense=False):
    generator = torch.Generator().manual_seed(count)
    if space != "classes":
        pred = random_boxes(count, seed=1, extent=10)
        target = pred + 0.5
        # ties, where autograd halves the gradient
        target[: count // 2, :2] = pred[: count // 2, :2]
        pred, target = (rows.to(dtype) for rows in rows_in(space, pred, target))
        return pred.requires_grad_(), target
    logits = torch.randn(count, CLASSES, generator=generator, dtype=torch.float64) * 4
    if dense:
        target = logits.flip(0).softmax(-1).to(dtype)
        return logits.to(dtype).requires_grad_(), target
    return logits.to(dtype).requires_grad_(), torch.arange(count) % (CLASSES + 1) - 1


@pytest.fixture(params=LOSSES, ids="-".join)
def each(request):
    kind, name = request.param
    return space_of(kind, name), detloss.build_part(kind, {"type": name})


def plainly(function):
    """Runs a loss by its plain formula and autograd on the whole tensor."""
    with plain_formulas():
        return function()


def at_once(function):
    """Runs a loss as on an accelerator."""
    with without_host_sync():
        return function()


@pytest.fixture
def small_blocks(monkeypatch):
    for name in ("BLOCK", "LARGE_BLOCK"):
        monkeypatch.setattr(blocks, name, 2 * CLASSES)


def value_and_gradient(loss, pred, target, weight, reduction):
    value = loss.compute(pred, target, weight=weight, reduction=reduction)
    scale = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    (gradient,) = torch.autograd.grad((value * scale).sum(), pred)
    return value.detach(), gradient


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("dense", [False, True], ids=["index", "dense"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_blocks_give_what_autograd_gives(each, small_blocks, reduction, weighted, dense, dtype):
    space, loss = each
    pred, target = example(space, dtype=dtype, dense=dense)
    weight = torch.tensor([1.0, 0, 2, 0.5, 1, 0, 3]) if weighted else None
    arguments = (loss, pred, target, weight, reduction)
    value, gradient = value_and_gradient(*arguments)
    expected, expected_gradient = plainly(lambda: value_and_gradient(*arguments))
    assert value.dtype == expected.dtype
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)


def test_elementwise_weights(small_blocks):
    loss = detloss.build_part("classification", {"type": "sigmoid_focal"})
    pred, target = example("classes")
    weight = torch.rand(7, CLASSES)
    weight[2, 1] = 0
    arguments = (loss, pred, target, weight, "sum")
    for got, expected in zip(
        value_and_gradient(*arguments),
        plainly(lambda: value_and_gradient(*arguments)),
        strict=True,
    ):
        assert_close(got, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": None},
        {"alpha": [0.1, 0.2, 0.3, 0.4]},
        {"gamma": 0.0},
        {"gamma": 0.5},
        {"gamma": 1.5, "class_weight": [1.0, 2.0, 3.0, 4.0]},
    ],
    ids=str,
)
@pytest.mark.parametrize("dense", [False, True], ids=["index", "dense"])
def test_focal_options(options, dense):
    loss = detloss.build_part("classification", {"type": "sigmoid_focal", **options})
    arguments = (loss, *example("classes", dense=dense), None, "sum")
    for got, expected in zip(
        value_and_gradient(*arguments),
        plainly(lambda: value_and_gradient(*arguments)),
        strict=True,
    ):
        assert_close(got, expected)


@pytest.mark.parametrize("size", [60.0, 100.0, 1e4])
def test_large_logits_do_not_overflow(each, size):
    space, loss = each
    if space != "classes":
        return
    pred, target = example(space, dtype=torch.float32)
    pred = (pred.detach().sign() * size).requires_grad_()
    arguments = (loss, pred, target, None, "sum")
    for got, expected in zip(
        value_and_gradient(*arguments),
        plainly(lambda: value_and_gradient(*arguments)),
        strict=True,
    ):
        assert got.isfinite().all()
        assert_close(got, expected)


def test_inputs_may_be_strided_or_expanded(each, small_blocks):
    space, loss = each
    pred, target = example(space)
    expected = loss.compute(pred, target, weight=None, reduction="none")
    strided = torch.stack([pred, pred], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert_close(loss.compute(strided, target, weight=None, reduction="none"), expected)
    row = pred[:1].expand(pred.shape)
    weight = torch.ones(1).expand(7)
    assert_close(
        loss.compute(row, target[:1].expand(target.shape), weight=weight, reduction="sum"),
        expected[0].sum() * 7,
    )


def test_no_gradient_is_computed_under_no_grad(each, monkeypatch):
    space, loss = each
    pred, target = example(space)
    expected = loss(pred, target)
    gradients = []
    compute = Formula.compute

    def watched(formula, pred, gradient, *rows):
        gradients.append(gradient)
        return compute(formula, pred, gradient, *rows)

    monkeypatch.setattr(Formula, "compute", watched)
    with torch.no_grad():
        assert torch.equal(loss(pred, target), expected.detach())
    assert torch.equal(loss(pred.detach(), target), expected.detach())
    assert gradients == [None, None]


def test_backward_twice_gives_the_same_twice(each):
    space, loss = each
    pred, target = example(space)
    value = loss(pred, target)
    value.backward(retain_graph=True)
    first = pred.grad.clone()
    value.backward()
    assert_close(pred.grad, 2 * first)


def test_the_gradient_is_given_away_and_not_kept():
    loss = detloss.build_part("box", {"type": "giou"})
    pred, target = example("box")
    value = loss.compute(pred, target, weight=None, reduction="sum")
    place = value.grad_fn.gradient.data_ptr()
    (gradient,) = torch.autograd.grad(value, pred, retain_graph=True)
    assert gradient.data_ptr() == place, "given away, not copied"
    assert value.grad_fn.gradient is None


def test_the_gradient_of_the_gradient(each):
    space, loss = each
    pred, target = example(space)

    def penalty():
        value = loss.compute(pred, target, weight=None, reduction="sum")
        (gradient,) = torch.autograd.grad(value, pred, create_graph=True)
        if not gradient.requires_grad:  # of a loss that is piecewise linear
            return False, gradient
        return True, torch.autograd.grad(gradient.square().sum(), pred, allow_unused=True)[0]

    (curved, got), (expected_curved, expected) = penalty(), plainly(penalty)
    assert curved == expected_curved
    assert_close(got, expected)


def test_leading_axes_by_the_plain_formula(each):
    space, loss = each
    pred, target = example(space, 6)
    folded = pred.unflatten(0, (2, 3)), target.unflatten(0, (2, 3))
    rows = loss.compute(pred, target, weight=None, reduction="none")
    assert_close(
        plainly(lambda: loss.compute(*folded, weight=None, reduction="none")),
        rows.unflatten(0, (2, 3)),
    )


def test_func_transforms(each):
    space, loss = each
    pred, target = example(space)
    _, expected = value_and_gradient(loss, pred, target, None, "sum")

    def total(p, t):
        return loss.compute(p, t, weight=None, reduction="sum")

    assert_close(torch.func.grad(total)(pred.detach(), target), expected / 0.5)
    each_row = torch.func.vmap(total)(pred.detach()[:, None], target[:, None])
    rows = loss.compute(pred.detach(), target, weight=None, reduction="none")
    assert_close(each_row, rows.sum(-1) if rows.ndim == 2 else rows)


def test_a_weight_may_be_learned(each):
    space, loss = each
    pred, target = example(space)
    weight = torch.ones(7, dtype=torch.float64, requires_grad=True)
    rows = loss.compute(pred, target, weight=None, reduction="none").detach()
    loss.compute(pred, target, weight=weight, reduction="sum").backward()
    assert_close(weight.grad, rows.sum(-1) if rows.ndim == 2 else rows)


def test_a_soft_target_may_get_a_gradient():
    loss = detloss.build_part("classification", {"type": "softmax_cross_entropy"})
    pred, target = example("classes", dense=True)
    target.requires_grad_()
    loss.compute(pred, target, weight=None, reduction="sum").backward()
    assert_close(target.grad, -pred.detach().log_softmax(-1))


def test_a_loss_scale_lifts_float16_gradients_that_would_vanish():
    """p^2 l of a known background is 1e-9: below float16, but not times 65,536."""
    loss = detloss.build_part("classification", {"type": "sigmoid_focal"})
    pred = torch.full((2, CLASSES), -7.0, dtype=torch.float16, requires_grad=True)
    wide = pred.detach().float().requires_grad_()
    target = torch.full((2,), CLASSES)
    for logits in (pred, wide):
        (loss(logits, target) * 65_536).backward()
    assert pred.grad.min() > 0
    assert_close(pred.grad, wide.grad.half())


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


WAYS = {
    "eager": lambda loss: loss,
    "accelerator": lambda loss: lambda *rows: at_once(lambda: loss(*rows)),
    "plain formula": lambda loss: lambda *rows: plainly(lambda: loss(*rows)),
    "compiled": compiled,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_float16_gradient_is_infinite_where_it_overflows_and_only_there(each, way):
    """A loss scale that brings the largest gradient to 10^5; float16 ends at 65,504."""
    space, loss = each
    pred, target = example(space, dtype=torch.float16)
    wide = pred.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(wide, target), wide)
    scale = 1e5 / gradient.abs().max()
    (WAYS[way](loss)(pred, target) * scale).backward()
    # where a gradient cancels, what float32 rounds is multiplied by the scale as well
    rounding = scale.item() * torch.finfo(torch.float32).eps
    assert_close(pred.grad, (gradient * scale).half(), rtol=1e-3, atol=max(rounding, 1e-5))
    assert pred.grad.isinf().any()
    assert not pred.grad.isnan().any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_grad_scaler_skips_a_step_that_overflows(way, reduction):
    """-1 times the loss scale 2^17 is -131,072, beyond float16: no step, and half the scale."""
    parameter = torch.zeros(1, 4, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**17)

    def of_parameter(parameter):
        return l1_loss(parameter.half(), torch.ones(1, 4), reduction=reduction).sum()

    loss = WAYS[way](of_parameter)
    for expected in (0.0, 0.0, 1.0):  # skipped at 2^17 and 2^16, taken at 2^15
        optimizer.zero_grad()
        scaler.scale(loss(parameter)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert parameter.tolist() == [[expected] * 4]
    assert scaler.get_scale() == 2.0**15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(each, dtype):
    space, loss = each
    pred, target = example(space, dtype=torch.float32)
    expected = value_and_gradient(loss, pred, target, None, "mean")
    with torch.autocast("cpu", dtype=dtype):
        got = value_and_gradient(loss, pred, target, None, "mean")
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        assert_close(one, other)


def test_a_mean_in_float64_is_exact_beside_a_float32_weight(each):
    """The weight is widened before a count of three divides it."""
    space, loss = each
    pred, target = example(space, 3)
    weight = torch.tensor([1.0, 2.0, 1.0])
    got = value_and_gradient(loss, pred, target, weight, "mean")
    expected = value_and_gradient(loss, pred, target, weight.double(), "mean")
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, rtol=1e-14, atol=0)


def test_weight_zero_silences_a_nan_by_the_plain_formula_too(each):
    space, loss = each
    pred, target = example(space)
    weight = torch.tensor([1.0, 0, 2, 0.5, 1, 0, 3])
    arguments = (loss, pred, target, weight, "sum")
    expected = value_and_gradient(*arguments)
    with torch.no_grad():
        pred[weight == 0] = float("nan")
        if space != "classes":
            target[weight == 0] = float("nan")
    got = plainly(lambda: value_and_gradient(*arguments))
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other)
