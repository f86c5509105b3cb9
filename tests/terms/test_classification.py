"""Which class an anchor shows, or none: worked by hand."""

import math

import pytest
import torch

import detloss

ANCHORS = torch.tensor([[0.0, 0, 8, 8], [40, 40, 48, 48]])
TARGET = {"boxes": torch.tensor([[0.0, 0, 8, 16]]), "labels": torch.tensor([1])}


def loss_of(options, predictions, target=TARGET, **sections):
    criterion = detloss.build(
        {"matcher": {"type": "max_iou"}, "classification": options, **sections}
    )
    return criterion(predictions, [target], anchors=ANCHORS)


def test_a_soft_label_stands_in_the_column_of_the_class():
    """IoU 1/2 in column 1 of the positive, else 0: gradients p - q at p = 1/2."""
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    predictions = {"class_logits": logits, "box_regression": torch.zeros(1, 2, 4)}
    output = loss_of({"type": "sigmoid_cross_entropy", "label": "iou"}, predictions)
    assert output.total.item() == pytest.approx(6 * math.log(2))
    output.total.backward()
    assert logits.grad.tolist() == [[[0.5, 0, 0.5], [0.5, 0.5, 0.5]]]


def test_target_scores_are_the_sum_of_the_labels():
    predictions = {"class_logits": torch.zeros(1, 2, 3), "box_regression": torch.zeros(1, 2, 4)}
    scores = {"type": "target_scores", "floor": "none"}
    for label, expected in (("iou", 0.5), ("one", 1.0)):
        output = loss_of(
            {"type": "sigmoid_cross_entropy", "label": label},
            predictions,
            normalizer=scores,
            box={"type": "giou"},
        )
        assert output.divisors["classification"] == output.divisors["box"] == expected


def test_over_positives_background_is_not_learned():
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    output = loss_of(
        {"type": "sigmoid_cross_entropy", "over": "positives"}, {"class_logits": logits}
    )
    assert output.total.item() == pytest.approx(3 * math.log(2))
    output.total.backward()
    assert logits.grad.tolist() == [[[0.5, -0.5, 0.5], [0, 0, 0]]]


@pytest.mark.parametrize("over", ["all", "positives"])
def test_classes_that_are_not_labelled_learn_nothing(over):
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    target = TARGET | {"class_mask": torch.tensor([False, True, True])}
    options = {"type": "sigmoid_cross_entropy", "over": over}
    loss_of(options, {"class_logits": logits}, target).total.backward()
    assert (logits.grad[..., 0] == 0).all()
    assert (logits.grad[0, 0, 1:] != 0).all()


def test_probabilities_become_logits():
    """At p = 3/4 for a yes, 1/4 for a no; finite at 0 and 1."""
    p = torch.tensor([[[0.25, 0.75], [0.25, 0.25]]], requires_grad=True)
    output = loss_of({"type": "sigmoid_cross_entropy"}, {"class_probabilities": p})
    assert output.total.item() == pytest.approx(-4 * math.log(3 / 4), rel=1e-6)
    output.total.backward()  # d(-ln p)/dp = -1/p, d(-ln(1 - p))/dp = 1/(1 - p)
    assert p.grad.flatten().tolist() == pytest.approx([4 / 3, -4 / 3, 4 / 3, 4 / 3])
    for sure in (0.0, 1.0):
        p = torch.full((1, 2, 2), sure, requires_grad=True)
        output = loss_of({"type": "sigmoid_cross_entropy"}, {"class_probabilities": p})
        output.total.backward()
        assert output.total.isfinite()
        assert p.grad.isfinite().all()
    both = {"class_probabilities": p, "class_logits": p}
    with pytest.raises(ValueError, match="'class_logits' and 'class_probabilities', got both"):
        loss_of({"type": "sigmoid_cross_entropy"}, both)


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_out_of_range_is_an_error_on_a_cpu(label):
    """It would be background, and its box would be trained."""
    predictions = {"class_logits": torch.zeros(1, 2, 3)}
    target = TARGET | {"labels": torch.tensor([label])}
    message = rf"targets\[0\]\['labels'\]\[0\] must be in 0..2, got {label}"
    with pytest.raises(ValueError, match=message):
        loss_of({"type": "sigmoid_cross_entropy"}, predictions, target)
    crowd = target | {"ignore": torch.tensor([True])}
    assert loss_of({"type": "sigmoid_cross_entropy"}, predictions, crowd).total.isfinite()


@pytest.mark.parametrize("ignore_index", [0, 3])
def test_an_ignore_index_that_is_a_class_or_background_is_refused(ignore_index):
    options = {"type": "sigmoid_cross_entropy", "ignore_index": ignore_index}
    with pytest.raises(ValueError, match=f"must not be in 0..3.*got {ignore_index}"):
        loss_of(options, {"class_logits": torch.zeros(1, 2, 3)})
