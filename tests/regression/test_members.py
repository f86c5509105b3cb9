"""The members of the family of IoU losses, and how a transform finds its own."""

import pytest
import torch
from boxgen import box_pairs, random_boxes
from hypothesis import given
from torch.testing import assert_close

import detloss
from detloss.boxes import paired_overlap
from detloss.boxes.lengths import Lengths
from detloss.registry import REGRESSION
from detloss.regression.members import MEMBERS, member_of


@pytest.mark.parametrize("name", sorted(MEMBERS))
@given(pair=box_pairs())
def test_a_members_overlap_is_1_less_its_loss(name, pair):
    loss = detloss.build_part("box", {"type": name, "reduction": "none"})
    assert_close(paired_overlap(*pair, kind=name), 1 - loss(*pair))


@pytest.mark.parametrize("name", sorted(MEMBERS))
@given(pair=box_pairs())
def test_penalties_are_at_least_0(name, pair):
    for penalty in MEMBERS[name].penalties(Lengths(*pair)):
        assert penalty.shape == (len(pair[0]),)
        assert (penalty >= 0).all()


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_a_member_has_the_name_of_a_loss(name):
    assert name in REGRESSION


@pytest.mark.parametrize(
    ("given_member", "error", "message"),
    [
        (3, TypeError, "member must be a name or a mapping with a type, got 3"),
        ({}, TypeError, "member must be a name or a mapping with a type, got {}"),
        ("cio", ValueError, "member must be one of .*, got 'cio'; did you mean 'ciou'?"),
        ({"type": "ciou", "alpha": 1}, TypeError, "member.alpha: unknown option, ciou accepts"),
    ],
)
def test_no_member(given_member, error, message):
    with pytest.raises(error, match=message):
        member_of(given_member)


WITH_A_MEMBER = pytest.mark.parametrize(
    "name", ["alpha_iou", "focaler_iou", "inner_iou", "composed_iou"]
)


@WITH_A_MEMBER
def test_a_loss_rejects_what_is_no_member(name):
    loss, loss_class = getattr(detloss.regression, f"{name}_loss"), REGRESSION[name]
    with pytest.raises(ValueError, match="member must be one of .*, got 'l1'"):
        loss(torch.zeros(1, 4), torch.zeros(1, 4), member="l1")
    with pytest.raises((TypeError, ValueError), match="member: expected .*, got 'l1'"):
        loss_class(member="l1")
    with pytest.raises(TypeError, match="member.thta: unknown option, siou accepts theta"):
        loss_class(member={"type": "siou", "thta": 2.0})


@WITH_A_MEMBER
def test_a_loss_of_a_member_with_an_option(name):
    loss = getattr(detloss.regression, f"{name}_loss")
    pred, target = torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]])
    losses = [
        loss(pred, target, member=member)
        for member in ("siou", {"type": "siou", "theta": 4.0}, {"type": "siou", "theta": 2.0})
    ]
    assert losses[0] == losses[1] < losses[2]


@WITH_A_MEMBER
def test_a_loss_of_a_member_with_an_option_compiles_to_one_graph(name):
    """R42; the options are checked when the loss is built."""
    loss = REGRESSION[name](member={"type": "siou", "theta": 2.0})
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    pair = random_boxes(6, seed=1), random_boxes(6, seed=2)
    assert_close(compiled(*pair), loss(*pair))


BY_THE_IMAGE = [name for name in sorted(MEMBERS) if MEMBERS[name].reads_image_size]


@WITH_A_MEMBER
@pytest.mark.parametrize("member", BY_THE_IMAGE)
def test_a_loss_of_a_member_that_measures_by_the_image(name, member):
    pred, target = random_boxes(6, seed=1), random_boxes(6, seed=2)
    sizes = torch.tensor([[48.0, 64.0], [100.0, 20.0]]).repeat(3, 1)
    reading = REGRESSION[name](member=member, reduction="none")
    assert reading.reads_image_size
    found = reading.compute(pred, target, image_size=sizes, weight=None, reduction="none")
    for row, size in enumerate(sizes.tolist()):
        told = REGRESSION[name](member={"type": member, "image_size": size}, reduction="none")
        assert not told.reads_image_size
        assert_close(found[row], told(pred, target)[row])


@WITH_A_MEMBER
def test_a_member_that_does_not_is_handed_no_size(name):
    loss, box, size = REGRESSION[name](member="giou"), torch.rand(1, 4), torch.ones(2)
    assert not loss.reads_image_size
    with pytest.raises(TypeError, match=f"{name} does not read the size of an image"):
        loss.compute(box, box, image_size=size, weight=None, reduction="sum")
