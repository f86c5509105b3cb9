"""Where the object of a positive is: worked by hand."""

from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

import detloss
from detloss.tensors import without_host_sync

ANCHORS = torch.tensor([[0.0, 0, 8, 8], [40, 40, 48, 48]])
TARGET = {"boxes": torch.tensor([[0.0, 0, 8, 16]]), "labels": torch.tensor([0])}


def loss_of(box, regression, **sections):
    criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": box, **sections})
    return criterion({"box_regression": regression}, [TARGET], anchors=ANCHORS)


def test_each_loss_works_in_its_own_space():
    """Zero deltas are the anchor: IoU 1/2; the true deltas are (0, 1/2, 0, ln 2)."""
    regression = torch.zeros(1, 2, 4)
    output = loss_of([{"type": "iou"}, {"type": "l1"}], regression)
    assert output.terms["box/iou"].item() == pytest.approx(0.5)
    assert output.terms["box/l1"].item() == pytest.approx(0.5 + 0.6931472)


def test_bins_are_logits_of_distances():
    """Equal logits of 4 bins: -ln(1/4) for each side."""
    regression = torch.zeros(1, 2, 16, requires_grad=True)
    coder = {"type": "distribution", "bins": 4}
    output = loss_of({"type": "distribution_focal"}, regression, coder=coder)
    assert output.total.item() == pytest.approx(1.3862944)
    output.total.backward()
    assert (regression.grad[0, 0] != 0).any()
    assert (regression.grad[0, 1] == 0).all(), "background has no box"


def test_a_second_regression_is_decoded_apart():
    one = torch.zeros(1, 2, 4)
    other = torch.full((1, 2, 4), 0.25)
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "box": [{"type": "giou"}, {"type": "giou", "name": "refined", "reads": "refined"}],
        }
    )
    output = criterion({"box_regression": one, "refined": other}, [TARGET], anchors=ANCHORS)
    assert_close(output.terms["box/giou"], loss_of({"type": "giou"}, one).total)
    assert_close(output.terms["box/refined"], loss_of({"type": "giou"}, other).total)


def test_the_coder_says_how_many_columns():
    with pytest.raises(ValueError, match=r"\['box_regression'\] must have shape \(B, A, 64\)"):
        loss_of({"type": "giou"}, torch.zeros(1, 2, 4), coder={"type": "distribution"})


class TestALossOfDeltasOnBoxes:
    """The predicted boxes are the anchors; of the positive the bottom is 8 short of 16."""

    regression = torch.zeros(1, 2, 4)

    def test_compares_decoded_boxes_in_their_unit(self):
        output = loss_of({"type": "l1", "space": "boxes"}, self.regression)
        assert output.total == 8

    @pytest.mark.parametrize("size", [(64, 32), torch.tensor([64, 32]), torch.tensor([[64.0, 32]])])
    def test_or_in_heights_and_widths_of_the_image(self, size):
        criterion = detloss.build(
            {
                "matcher": {"type": "max_iou"},
                "box": {"type": "l1", "space": "boxes", "unit": "image"},
            }
        )
        predictions = {"box_regression": self.regression}
        output = criterion(predictions, [TARGET], anchors=ANCHORS, image_size=size)
        assert output.total.item() == pytest.approx(8 / 64)
        target = TARGET | {"size": torch.tensor([16, 999])}
        assert criterion(predictions, [target], anchors=ANCHORS).total.item() == pytest.approx(0.5)
        with pytest.raises(ValueError, match="^image_size must be given where a term asks for it"):
            criterion(predictions, [TARGET], anchors=ANCHORS)

    def test_each_image_has_its_own_size(self):
        criterion = detloss.build(
            {
                "matcher": {"type": "max_iou"},
                "box": {"type": "l1", "space": "boxes", "unit": "image"},
            }
        )
        predictions = {"box_regression": self.regression.expand(2, 2, 4)}
        sizes = torch.tensor([[64, 1], [32, 1]])
        output = criterion(
            predictions, [TARGET, TARGET], anchors=ANCHORS, image_size=sizes, reduction="image"
        )
        assert_close(output.total, torch.tensor([8 / 64, 8 / 32]) / 2)

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            (
                {"type": "giou", "space": "boxes"},
                "box.space: is for a loss on deltas, and giou is one on boxes",
            ),
            ({"type": "l1", "unit": "image"}, "box.unit: must come with space 'boxes'"),
            ({"type": "l1", "space": "bins"}, "box.space: expected 'boxes'"),
            ({"type": "l1", "space": "boxes", "unit": "px"}, "box.unit: expected 'image'"),
        ],
    )
    def test_what_does_not_go_together_is_refused(self, box, message):
        with pytest.raises(detloss.ConfigError, match=message):
            detloss.build({"matcher": {"type": "max_iou"}, "box": box})

    @pytest.mark.parametrize("size", [(64, 32, 3), 64.0, torch.zeros(2, 2)])
    def test_a_size_of_another_shape_is_refused(self, size):
        criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": {"type": "l1"}})
        predictions = {"box_regression": self.regression}
        with pytest.raises(ValueError, match=r"^image_size must be \(height, width\)"):
            criterion(predictions, [TARGET], anchors=ANCHORS, image_size=size)
        target = TARGET | {"size": torch.tensor([1, 2, 3])}
        with pytest.raises(ValueError, match=r"^targets\[0\]\['size'\] must be \(height, width\)"):
            criterion(predictions, [target], anchors=ANCHORS)


class TestALossThatMeasuresByTheImage:
    """The predicted box is 8 short of its bottom: IoU 1/2, and 8^2 over the squared diagonal."""

    predictions: ClassVar = {"box_regression": torch.zeros(2, 2, 4)}
    targets: ClassVar = [TARGET | {"size": torch.tensor([6, 8])}, TARGET | {"size": torch.ones(2)}]

    def losses(self, box, targets, **call):
        criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": box})
        call = {"anchors": ANCHORS, "normalizer": 1, "reduction": "image", **call}
        return criterion(self.predictions, targets, **call).total

    @pytest.mark.parametrize("member", [None, "inner_iou", "composed_iou"])
    def test_by_the_size_of_each_target(self, member):
        box = {"type": "mpdiou"}
        if member is not None:
            box = {"type": member, "member": "mpdiou", "ratio": 1.0}
        assert_close(self.losses(box, self.targets), torch.tensor([0.5 + 64 / 100, 0.5 + 32]))

    def test_by_that_of_the_call_before_that_of_the_targets(self):
        box = {"type": "mpdiou"}
        sizes = torch.tensor([[8, 0], [16, 0]])
        found = self.losses(box, self.targets, image_size=sizes)
        assert_close(found, torch.tensor([0.5 + 1, 0.5 + 1 / 4]))
        assert_close(self.losses(box, [TARGET] * 2, image_size=sizes), found)

    def test_by_that_of_the_config_before_any_other(self):
        box = {"type": "mpdiou", "image_size": [8.0, 8.0]}
        for call in ({}, {"image_size": (480, 640)}):
            found = self.losses(box, self.targets, **call)
            assert_close(found, torch.tensor([0.5 + 1 / 2] * 2))
        assert_close(self.losses(box, [TARGET] * 2), found)

    @pytest.mark.parametrize("targets", [[TARGET] * 2, [targets[0], TARGET]])
    def test_an_error_says_what_is_missing(self, targets):
        with pytest.raises(ValueError, match="^image_size must be given where a term asks for it"):
            self.losses({"type": "mpdiou"}, targets)

    def test_the_same_without_host_sync(self):
        box = {"type": "mpdiou"}
        expected = self.losses(box, self.targets)
        with without_host_sync():
            assert_close(self.losses(box, self.targets), expected)

    def test_its_default_is_resolved_and_built_again(self):
        criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": {"type": "mpdiou"}})
        assert criterion.config()["box"]["image_size"] is None
        assert detloss.build(criterion.config()).config() == criterion.config()
