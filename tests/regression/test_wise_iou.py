"""Wise-IoU loss. What holds for every registered loss is in test_contract.py."""

import copy
import math

import pytest
import torch
from boxgen import random_boxes
from exact import REALS, at_least_1_if_inverted, iou, lengths, real
from scenes import grid_anchors, random_predictions, random_targets
from torch.testing import assert_close

import detloss
from detloss.regression import WiseIoULoss, wise_iou_loss

PAIRS = {
    "A": ([0.0, 0, 2, 2], [1.0, 0, 3, 2]),  # half shifted: IoU 1/3
    "B": ([0.0, 0, 1, 1], [1.0, 1, 2, 2]),  # corner to corner
    "E": ([1.0, 1, 3, 3], [0.0, 0, 4, 4]),  # inside, one centre: IoU 1/4
}
A = math.exp(1 / 13) * 2 / 3  # d2 1 over c2 13


@pytest.mark.parametrize(
    ("pair", "options", "expected"),
    [
        pytest.param("A", {}, A, id="A: version 1"),
        pytest.param("B", {}, math.exp(1 / 4), id="B: version 1"),
        pytest.param("E", {}, 3 / 4, id="E: one centre"),
        pytest.param("A", {"version": 2, "mean": 0.5}, A * (4 / 3) ** 0.5, id="A: b 4/3"),
        pytest.param(
            "A", {"version": 3, "mean": 0.5}, A * 4 / 9 / 1.9 ** (4 / 3 - 3), id="A: b over delta"
        ),
        pytest.param("E", {"version": 3, "mean": 0.25}, 3 / 4, id="E: b is delta"),
        pytest.param(
            "B",
            {"version": 3, "mean": 0.5, "alpha": 1.7, "delta": 2.7},
            1.378968,
            id="B: the authors' later numbers",
        ),
    ],
)
def test_values_worked_by_hand(pair, options, expected):
    pred, target = (torch.tensor([box], dtype=torch.float64) for box in PAIRS[pair])
    loss = wise_iou_loss(pred, target, **options)
    assert_close(loss, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-6)


def test_a_box_apart_is_pulled_and_does_not_grow():
    """With a gradient of the hull, its first corner would move away from the target."""
    pred = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    wise_iou_loss(pred, torch.tensor([[10.0, 10, 12, 14]])).backward()
    assert (pred.grad < 0).all()
    assert_close(pred.grad[0, :2], pred.grad[0, 2:])


@pytest.mark.parametrize("version", [2, 3])
def test_the_focus_is_constant_for_the_gradient(version):
    pred, target = random_boxes(20, seed=1), random_boxes(20, seed=1) + 3
    found = []
    for number in (1, version):
        boxes = pred.clone().requires_grad_()
        loss = wise_iou_loss(boxes, target, version=number, mean=0.5)
        loss.sum().backward()
        found.append((loss.detach(), boxes.grad))
    (plain, gradient), (focused, focused_gradient) = found
    assert_close(focused_gradient, gradient * (focused / plain)[:, None])


def boxes_of_iou(*overlaps):
    """Targets of 1 x 1 and predictions within them."""
    target = torch.tensor([[0.0, 0, 1, 1]]).expand(len(overlaps), 4)
    return target * torch.tensor([[1, 1, 1, overlap] for overlap in overlaps]), target


def test_the_mean_moves_once_a_call_before_it_is_used():
    loss = WiseIoULoss(version=2, momentum=0.5)
    pair = boxes_of_iou(0.5, 0.75)
    value = loss(*pair)
    assert_close(loss.running_mean, torch.tensor(0.5 * 1 + 0.5 * 0.375))
    assert_close(value, wise_iou_loss(*pair, version=2, mean=0.6875, reduction="mean"))
    loss(*pair)
    assert_close(loss.running_mean, torch.tensor(0.5 * 0.6875 + 0.5 * 0.375))


def test_the_mean_stays_in_evaluation_and_in_version_1():
    for loss in (WiseIoULoss(version=3, momentum=0.5).eval(), WiseIoULoss(momentum=0.5)):
        loss(*boxes_of_iou(0.5))
        assert loss.running_mean == 1


@pytest.mark.parametrize(
    ("pred", "weight"),
    [
        pytest.param(torch.zeros(0, 4), None, id="no row"),
        pytest.param(torch.zeros(2, 4), torch.zeros(2), id="no row that counts"),
        pytest.param(torch.full((2, 4), math.nan), None, id="a network that diverged"),
    ],
)
def test_a_batch_without_a_finite_loss_leaves_the_mean(pred, weight):
    loss = WiseIoULoss(version=3, momentum=0.5)
    loss(pred, torch.rand(len(pred), 4), weight)
    assert loss.running_mean == 1


def test_rows_of_weight_0_do_not_count():
    loss = WiseIoULoss(version=3, momentum=1.0)
    pred, target = boxes_of_iou(0.25, 0.75)
    pred = torch.cat([pred, torch.full((1, 4), math.nan)])
    target = torch.cat([target, target[:1]])
    assert loss(pred, target, torch.tensor([0.0, 2, 0])).isfinite()
    assert_close(loss.running_mean, torch.tensor(0.25))


def test_the_mean_is_saved_and_a_second_backward_sees_its_own():
    loss = WiseIoULoss(version=3, momentum=0.5)
    pred, target = boxes_of_iou(0.5, 0.25)
    pred.requires_grad_()
    value = loss(pred, target)
    (first,) = torch.autograd.grad(value, pred, retain_graph=True)
    loss(pred, target)
    (second,) = torch.autograd.grad(value, pred)
    assert torch.equal(first, second)
    again = WiseIoULoss(version=3)
    again.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(again.running_mean, loss.running_mean)
    assert loss.config()["mean"] == 1
    assert loss.half().running_mean.dtype == torch.float32


def test_calls_are_noted_until_it_moves():
    loss = WiseIoULoss(version=3, momentum=0.5)
    for overlap in (0.5, 0.25):
        loss.observe(*boxes_of_iou(overlap), weight=None)
        assert loss.running_mean == 1
    loss.move()
    assert_close(loss.running_mean, torch.tensor((1 + 0.625) / 2))
    loss.move()
    assert_close(loss.running_mean, torch.tensor((1 + 0.625) / 2))  # of nothing new


def test_to_compute_is_not_a_step():
    loss = WiseIoULoss(version=3, momentum=0.5)
    loss.compute(*boxes_of_iou(0.5), weight=None, reduction="sum")
    assert loss.running_mean == 1


CRITERION = {
    "matcher": {"type": "max_iou", "positive": 0.4, "negative": 0.3},
    "box": {"type": "wise_iou", "version": 3, "momentum": 0.5},
}
ANCHORS = grid_anchors()
TARGETS = random_targets([3, 0, 2])


def boxes_of(seed):
    regression = random_predictions(3, len(ANCHORS), seed=seed)["box_regression"].detach() / 4
    return {"box_regression": regression}


def mean_after(criterion, *calls, targets=TARGETS, **options):
    """That of its last loss."""
    for predictions in calls:
        criterion(predictions, targets, anchors=ANCHORS, **options)
    *_, mean = criterion.buffers()
    return mean


def lost(predictions):
    """The mean ``1 - IoU`` of the positives of a call."""
    config = {**CRITERION, "box": {"type": "iou"}}
    return detloss.build(config)(predictions, TARGETS, anchors=ANCHORS).total.detach()


def test_a_call_of_a_criterion_is_a_step():
    expected = (1 + lost(boxes_of(0))) / 2
    criterion = detloss.build(CRITERION)
    assert_close(mean_after(criterion, boxes_of(0)), expected)
    assert_close(mean_after(criterion, boxes_of(1)), (expected + lost(boxes_of(1))) / 2)
    used = criterion.terms["box"].loss.running_mean.clone()
    assert mean_after(criterion.eval(), boxes_of(2)) == used


def test_all_layers_of_a_call_are_one_step():
    layers = [boxes_of(seed) for seed in range(3)]
    criterion = detloss.build({**CRITERION, "layers": {"decoder": {}}})
    output = criterion({"decoder": layers}, TARGETS, anchors=ANCHORS)
    expected = (1 + sum(map(lost, layers)) / 3) / 2  # as many positives in each
    assert_close(mean_after(criterion), expected)
    alone = detloss.build({**CRITERION, "box": {**CRITERION["box"], "mean": expected.item()}})
    losses = [alone.eval()(one, TARGETS, anchors=ANCHORS).total for one in layers]
    assert_close(output.total, sum(losses))  # by the mean that it moved to


def test_a_matcher_that_looks_at_losses_takes_no_step():
    matcher = {"type": "paa"}
    config = {"matcher": matcher, "box": {**CRITERION["box"], "momentum": 1.0}}
    criterion = detloss.build(config)
    matches = criterion.match(
        TARGETS, anchors=ANCHORS, predictions=boxes_of(0), level_sizes=[len(ANCHORS)]
    )
    assert mean_after(criterion) == 1
    criterion(boxes_of(0), TARGETS, anchors=ANCHORS, level_sizes=[len(ANCHORS)])
    given = detloss.build(config)
    assert_close(mean_after(criterion), mean_after(given, boxes_of(0), matches=matches))


def test_micro_batches_are_one_step():
    predictions = boxes_of(0)["box_regression"]
    of_batch = detloss.build(CRITERION)
    output = of_batch({"box_regression": predictions}, TARGETS, anchors=ANCHORS)
    criterion = detloss.build(CRITERION)
    for image, target in enumerate(TARGETS):
        part = {"box_regression": predictions[image : image + 1]}
        criterion(part, [target], anchors=ANCHORS, normalizer=output.divisors["box"])
        assert mean_after(criterion) == 1
    criterion.move()
    assert_close(mean_after(criterion), mean_after(of_batch))


def test_a_factor_of_0_makes_a_row_count_nothing():
    targets = [{**target, "weights": torch.zeros(len(target["boxes"]))} for target in TARGETS]
    assert mean_after(detloss.build(CRITERION), boxes_of(0), targets=targets) == 1


@pytest.mark.parametrize("version", [2, 3])
def test_what_does_not_fit_is_said_before_the_mean_moves(version):
    loss = WiseIoULoss(version=version, momentum=0.5)
    with pytest.raises(ValueError, match=r"pred must have shape \(..., 4\), got \(2, 5\)"):
        loss(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"weight must have shape \(2,\)"):
        loss(torch.zeros(2, 4), torch.zeros(2, 4), torch.ones(3))
    with pytest.raises(TypeError, match="target must be floating point, got torch.int64"):
        loss(torch.zeros(2, 4), torch.zeros(2, 4).long())
    assert loss.running_mean == 1


@pytest.mark.parametrize("version", [2, 3])
def test_a_step_compiles_to_one_graph(version):
    """R42."""
    ours, theirs = (WiseIoULoss(version=version, momentum=0.5) for _ in range(2))
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for overlaps in ((0.5, 0.25), (0.75, 0.5)):
        assert_close(compiled(*boxes_of_iou(*overlaps)), theirs(*boxes_of_iou(*overlaps)))
        assert_close(ours.running_mean, theirs.running_mean)


def test_rejects_an_unknown_version():
    with pytest.raises(ValueError, match="version must be one of 1, 2, 3, got 4"):
        wise_iou_loss(torch.zeros(1, 4), torch.zeros(1, 4), version=4)
    with pytest.raises(ValueError, match="WiseIoULoss: version: expected 1, 2 or 3, got 4"):
        WiseIoULoss(version=4)


EXACT_OPTIONS = [{"version": 1}, {"version": 2}, {"version": 3}]


def exact_loss(pred, target, version, held=None):
    """The loss of one pair for `test_golden.py`: Wise-IoU, equations 7 to 10, of a mean of 1.

    `held` are the squared diagonal and ``1 - IoU`` as constants.
    """
    lost = real(1 - iou(pred, target))
    diagonal, b = constants(pred, target) if held is None else held
    squared = sum(offset**2 for _, _, offset, _ in lengths(pred, target))
    r = {1: 1, 2: REALS.sqrt(b), 3: b / (3 * real(1.9) ** (b - 3))}[version]
    return at_least_1_if_inverted(r * REALS.exp(real(squared / diagonal)) * lost, pred, target)


def constants(pred, target):
    diagonal = sum(hull**2 for *_, hull in lengths(pred, target))
    return diagonal, real(1 - iou(pred, target))


def exact_constants(pred, target):
    return {"held": constants(pred, target)}
