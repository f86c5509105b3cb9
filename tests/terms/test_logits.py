"""What the terms of logits share: labels that are qualities, and what they refuse."""

import pytest
import torch

import detloss
from detloss.matchers import Matches
from detloss.qualities import IoUQuality
from detloss.registry import CLASSIFICATION
from detloss.terms import ClassificationTerm, ObjectnessTerm

SOFTMAX = [
    name
    for name in CLASSIFICATION.names()
    if CLASSIFICATION[name].background_columns and CLASSIFICATION[name].differentiable
]
YES_OR_NO = [
    name
    for name in CLASSIFICATION.names()
    if CLASSIFICATION[name].takes_quality and CLASSIFICATION[name].differentiable
]
BOX = torch.tensor([[0.0, 0, 8, 8]])


@pytest.mark.parametrize("name", YES_OR_NO)
def test_every_yes_or_no_loss_takes_a_label(name):
    term = ClassificationTerm(CLASSIFICATION[name](), label=IoUQuality(kind="giou"))
    assert term.label.kind == "giou"
    assert term.needs == {"class_logits", "box_regression"}


@pytest.mark.parametrize("name", YES_OR_NO)
def test_the_default_label_is_the_loss_s_own(name):
    term = ClassificationTerm(CLASSIFICATION[name]())
    label = "one" if term.label is None else term.label.type_name
    assert label == CLASSIFICATION[name].default_label
    assert "label" not in term.config()
    hard = ClassificationTerm(CLASSIFICATION[name](), label="one")
    assert hard.label is None


@pytest.mark.parametrize("name", SOFTMAX)
def test_the_classes_of_a_softmax_have_hard_labels(name):
    with pytest.raises(ValueError, match=f"label: {name} has hard labels only"):
        ClassificationTerm(CLASSIFICATION[name](), label=IoUQuality())


def test_a_metric_cannot_be_trained_on():
    metrics = [n for n in CLASSIFICATION.names() if not CLASSIFICATION[n].differentiable]
    for name in metrics:
        with pytest.raises(ValueError, match=f"{name} is a metric without gradient"):
            ClassificationTerm(CLASSIFICATION[name]())


def test_a_positive_of_quality_0_is_positive_still():
    """It stays in every count and gets the loss of label 0."""
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_cross_entropy", "label": "iou"},
            "box": {"type": "giou"},
        }
    )
    far = torch.tensor([[[50.0, 50, 0, 0]]])
    logits = torch.zeros(1, 1, 2, requires_grad=True)
    output = criterion(
        {"class_logits": logits, "box_regression": far},
        [{"boxes": BOX, "labels": torch.tensor([1])}],
        anchors=BOX,
    )
    assert output.divisors["classification"] == 1
    output.total.backward()
    assert logits.grad.tolist() == [[[0.5, 0.5]]]


def test_given_matches_may_lack_a_score():
    term = detloss.build(
        {"matcher": {"type": "max_iou"}, "classification": {"type": "sigmoid_cross_entropy"}}
    )
    matches = [Matches(torch.tensor([0]), torch.tensor([True]), torch.tensor([False]))]
    from detloss.batch import MatchedBatch
    from detloss.inputs import Inputs

    batch = MatchedBatch(Inputs({}, [{"boxes": BOX}], [BOX]), matches, term.coder)
    with pytest.raises(ValueError, match=r"matches\[0\] must have a score, got None"):
        _ = batch.score


@pytest.mark.parametrize("name", [*YES_OR_NO, *SOFTMAX])
@pytest.mark.parametrize("ignore_index", [0, 2, 3])
def test_an_ignore_index_among_the_classes_or_the_background_is_refused(name, ignore_index):
    """It would leave out a class, or with 3, C, all of the background."""
    columns = 3 + CLASSIFICATION[name].background_columns
    predictions = {
        "class_logits": torch.zeros(1, 1, columns),
        "box_regression": torch.zeros(1, 1, 4),
    }
    target = {"boxes": BOX, "labels": torch.tensor([1])}

    def call(ignore_index):
        criterion = detloss.build(
            {
                "matcher": {"type": "max_iou"},
                "classification": {"type": name, "ignore_index": ignore_index},
                "box": {"type": "giou"},
            }
        )
        return criterion(predictions, [target], anchors=BOX).total

    with pytest.raises(
        ValueError,
        match=rf"^classification: ignore_index must not be in 0\.\.3, .*, got {ignore_index}$",
    ):
        call(ignore_index)
    assert call(4) == call(-100) == call(-1) > 0


@pytest.mark.parametrize("ignore_index", [0, 1])
def test_an_ignore_index_among_the_answers_of_one_logit_is_refused(ignore_index):
    loss = CLASSIFICATION["sigmoid_cross_entropy"](ignore_index=ignore_index)
    with pytest.raises(ValueError, match=r"^objectness: ignore_index must not be in 0\.\.1, "):
        ObjectnessTerm(loss).check({"objectness": torch.zeros(1, 1)}, 4)
