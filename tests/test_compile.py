"""Under torch.compile(fullgraph=True): no graph break, the same numbers as in eager mode."""

import pytest
import torch
from boxgen import random_boxes
from registered import LOSSES
from scenes import grid_anchors, random_predictions, random_targets
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

import detloss


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def example(kind, count):
    generator = torch.Generator().manual_seed(count)
    if kind == "box":
        pred = random_boxes(count, seed=1, dtype=torch.float32)
        return pred.requires_grad_(), random_boxes(count, seed=2, dtype=torch.float32)
    logits = torch.randn(count, 5, generator=generator).requires_grad_()
    return logits, torch.arange(count) % 6 - 1


@pytest.mark.parametrize(("kind", "name"), LOSSES, ids=lambda value: value)
def test_every_loss_is_two_graphs_at_most_and_as_in_eager_mode(kind, name):
    loss = detloss.build_part(kind, {"type": name})
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, fullgraph=True, backend=counter, dynamic=True)
    for count in (7, 5, 50, 300):
        pred, target = example(kind, count)
        weight = torch.linspace(0, 2, count)
        got, expected = (one(pred, target, weight) for one in (compiled, loss))
        assert_close(got, expected)
        assert_close(*(torch.autograd.grad(value, pred)[0] for value in (got, expected)))
    assert counter.frame_count <= 2


@pytest.fixture
def criterion():
    return detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_focal"},
            "box": {"type": "ciou"},
        }
    )


@pytest.mark.parametrize("matching", ["inside", "outside"])
def test_the_number_of_positives_is_not_compiled_in(criterion, matching):
    """Boxes far away, of which as many as asked for move onto anchors of their own."""
    anchors = grid_anchors(step=1.0, side=2.0)
    predictions = random_predictions(1, len(anchors))
    counter = CompileCounterWithBackend("aot_eager")

    def total(predictions, targets, matches):
        return criterion(predictions, targets, anchors=anchors, matches=matches).total

    compiled = torch.compile(total, fullgraph=True, backend=counter)
    for count in (0, 1, 5, 50, 300):
        boxes = anchors[::13] + 1e4 * (torch.arange(len(anchors[::13])) >= count)[:, None]
        targets = [{"boxes": boxes, "labels": torch.arange(len(boxes)) % 3}]
        output = criterion(predictions, targets, anchors=anchors)
        assert output.matches[0].positive.sum() == count
        matches = output.matches if matching == "outside" else None
        got = compiled(predictions, targets, matches)
        assert_close(got, output.total)
        values = list(predictions.values())
        for one, other in zip(
            *(torch.autograd.grad(result, values) for result in (got, output.total)), strict=True
        ):
            assert_close(one, other)
    assert counter.frame_count == 1


def test_the_number_of_boxes_is_two_graphs_at_most(criterion):
    """From two boxes on; PyTorch itself makes another graph of a tensor of none and of one."""
    anchors = grid_anchors()
    predictions = random_predictions(1, len(anchors))
    counter = CompileCounterWithBackend("aot_eager")

    def total(predictions, targets):
        return criterion(predictions, targets, anchors=anchors).total

    compiled = torch.compile(total, fullgraph=True, backend=counter)
    for count in (7, 5, 50, 300):
        targets = random_targets([count])
        assert_close(compiled(predictions, targets), total(predictions, targets))
    assert counter.frame_count <= 2


def test_the_whole_criterion_compiles_with_its_matching(criterion):
    anchors = grid_anchors()

    def total(predictions, targets):
        return criterion(predictions, targets, anchors=anchors).total

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    for counts in ([3, 2], [2, 9]):
        predictions, targets = random_predictions(2, len(anchors)), random_targets(counts)
        got, expected = (one(predictions, targets) for one in (compiled, total))
        assert_close(got, expected)
        values = list(predictions.values())
        for one, other in zip(
            *(torch.autograd.grad(result, values) for result in (got, expected)), strict=True
        ):
            assert_close(one, other)
