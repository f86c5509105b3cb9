"""Losses with the arguments of MMDetection's heads, in a registry like MMEngine's."""

import math

import pytest
import torch
from torch.testing import assert_close

from detloss.classification import QualityFocalLoss, SigmoidFocalLoss
from detloss.integrations.mmdet import file_losses
from detloss.registry import CLASSIFICATION, REGRESSION
from detloss.regression import DistributionFocalLoss, GIoULoss


class Registry:
    """What file_losses needs of MMEngine's."""

    def __init__(self, name, parent=None, scope=None):
        self.classes = {}
        self.children = {}
        if parent is not None:
            parent.children[scope] = self

    def register_module(self, name, module):
        assert name not in self.classes
        self.classes[name] = module

    def build(self, config):
        options = dict(config)
        scope, name = options.pop("type").split(".")
        return self.children[scope].classes[name](**options)


@pytest.fixture(scope="module")
def models():
    registry = Registry("model")
    file_losses(registry)
    return registry


@pytest.fixture
def boxes():
    corner = torch.rand(6, 2) * 50
    return torch.cat([corner, corner + torch.rand(6, 2) * 30 + 1], dim=-1)


def test_every_registered_loss_is_filed(models):
    filed = {cls.loss_class for cls in models.children["detloss"].classes.values()}
    assert filed == {kind[name] for kind in (CLASSIFICATION, REGRESSION) for name in kind.names()}


def test_weight_avg_factor_and_loss_weight(models, boxes):
    target = boxes + 3
    loss = models.build({"type": "detloss.GIoU", "loss_weight": 2.0})
    rows = GIoULoss(reduction="none")(boxes, target)
    weight = torch.tensor([1.0, 0, 0.5, 1, 1, 0])
    expected = 2 * (rows * weight).sum()
    assert_close(loss(boxes, target, weight, avg_factor=4.0), expected / 4)
    assert_close(loss(boxes, target, weight[:, None].expand(-1, 4), avg_factor=4), expected / 4)
    assert_close(loss(boxes, target, weight, reduction_override="sum"), expected)
    assert_close(loss(boxes, target, weight, reduction_override="none"), 2 * rows * weight)
    assert_close(loss(boxes, target), 2 * rows.mean())


def test_an_avg_factor_of_a_sum_is_refused(models, boxes):
    loss = models.build({"type": "detloss.GIoU", "reduction": "sum"})
    with pytest.raises(ValueError, match="avg_factor must be None with reduction 'sum', got 4"):
        loss(boxes, boxes, avg_factor=4)


def test_a_mean_without_avg_factor_is_over_elements_where_theirs_is(models):
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 3, 3])
    focal = models.build({"type": "detloss.SigmoidFocal", "use_sigmoid": True})
    rows = SigmoidFocalLoss(reduction="none")(logits, labels)
    assert_close(focal(logits, labels), rows.sum() / 18)
    softmax = models.build({"type": "detloss.SoftmaxCrossEntropy"})
    logits = torch.randn(6, 4)
    assert_close(softmax(logits, labels), torch.nn.functional.cross_entropy(logits, labels))


def test_one_logit_a_row(models):
    loss = models.build({"type": "detloss.SigmoidCrossEntropy", "use_sigmoid": True})
    value = loss(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 1, 0]))
    assert_close(value, torch.tensor(2 * math.log(2) / 3))


def test_labels_with_qualities(models):
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 3, 3, 1])
    quality = torch.tensor([0.3, 1.0, 0, 0, 0.5])
    loss = models.build({"type": "detloss.QualityFocal", "use_sigmoid": True})
    expected = QualityFocalLoss(reduction="sum")(logits, labels, quality=quality) / 3
    assert_close(loss(logits, (labels, quality), avg_factor=3), expected)


def test_rows_of_sides(models):
    logits, target = torch.randn(3, 4, 8), torch.rand(3, 4) * 6
    weight = torch.tensor([1.0, 0.5, 0])
    loss = models.build({"type": "detloss.DistributionFocal"})
    expected = DistributionFocalLoss(reduction="none")(logits, target) * weight
    sides = weight[:, None].expand(3, 4).flatten()
    value = loss(logits.flatten(0, 1), target.flatten(), weight=sides, avg_factor=4.0)
    assert_close(value, expected.sum())


def test_nothing_to_learn_from_is_zero_with_a_gradient(models):
    pred = torch.zeros(0, 4, requires_grad=True)
    for options in ({}, {"avg_factor": 1.0}, {"avg_factor": 0}, {"avg_factor": torch.tensor(0.0)}):
        value = models.build({"type": "detloss.CIoU"})(pred, pred.detach(), **options)
        assert value == 0
        value.backward()


@pytest.mark.parametrize(
    ("name", "options"), [("SigmoidFocal", {}), ("SoftmaxCrossEntropy", {"use_sigmoid": True})]
)
def test_use_sigmoid_must_fit_since_a_head_counts_columns_by_it(models, name, options):
    with pytest.raises(ValueError, match="use_sigmoid must be .* for .*, since a head has"):
        models.build({"type": f"detloss.{name}", **options})


def test_an_unknown_option_names_those_of_the_loss(models):
    with pytest.raises((TypeError, ValueError), match="eps"):
        models.build({"type": "detloss.GIoU", "epsilon": 1})
