"""What the terms of logits share: labels that are qualities, and what they refuse."""

from contextlib import nullcontext

import pytest
import torch
from torch.testing import assert_close

import detloss
from detloss.boxes import grid_points
from detloss.matchers import Matches
from detloss.qualities import IoUQuality
from detloss.registry import CLASSIFICATION
from detloss.samplers import leave_out
from detloss.tensors import without_host_sync
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


CELLS, _ = grid_points([(4, 4)], [4])
TARGETS = [
    {
        "boxes": torch.tensor([[0.0, 0, 3, 3], [1, 1, 2, 2], [0, 0, 16, 16], [8, 0, 16, 8]]),
        "labels": torch.tensor([1, 1, 2, 0]),
        "ignore": torch.tensor([False, False, False, True]),
        "weights": torch.tensor([1.0, 3, 1, 1]),
    },
    {
        "boxes": torch.tensor([[5.0, 4, 7, 8], [5, 5, 7, 7]]),
        "labels": torch.tensor([0, 2]),
        "class_mask": torch.tensor([True, False, True]),
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
]
"""Of 4 x 4 cells: two objects of one class in the first cell, an ignore region over the upper right
quarter; two objects of different classes in one cell; none."""


def of_points(term="classification", *, normalizer=None, **options):
    """The loss of `TARGETS`, and its gradient by the logits."""
    criterion = detloss.build(
        {
            "matcher": {"type": "center_point"},
            term: options,
            "normalizer": normalizer or {"type": "constant", "value": 1.0},
        }
    )
    shape = (3, 16, 3) if term == "classification" else (3, 16)
    reads = {"classification": "class_logits"}.get(term, term)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    output = criterion({reads: logits}, TARGETS, anchors=CELLS)
    output.total.backward()
    return output, logits.grad


ONE_CELL = {"type": "gaussian", "min_overlap": 1.0}


@pytest.mark.parametrize("way", [nullcontext, without_host_sync])
@pytest.mark.parametrize("name", YES_OR_NO)
def test_a_heat_map_of_single_cells_is_a_hard_label(name, way):
    """But where two objects have a cell: both have a label there."""
    with way():
        hard, hard_gradient = of_points(type=name, label="one")
        heat, gradient = of_points(type=name, label=ONE_CELL)
    assert_close(gradient[[0, 2]], hard_gradient[[0, 2]])
    assert_close(heat.total - hard.total, of_second(name))
    assert (gradient[0, [2, 3, 6, 7]] == 0).all()  # in the region
    assert (gradient[1, :, 1] == 0).all()  # nobody looked for it


def of_second(name):
    """What the label of the larger object in the contested cell changes."""
    loss = CLASSIFICATION[name](reduction="none")
    logit = torch.randn((3, 16, 3), generator=torch.Generator().manual_seed(0))[1, 5, :1]
    yes, no = (
        loss.compute(
            logit[None], loss.dense_labels(torch.full((1, 1), y)), weight=None, reduction="sum"
        )
        for y in (1.0, 0.0)
    )
    return yes - no


def test_a_heat_map_over_positives_is_the_quality_of_each():
    _, gradient = of_points(type="sigmoid_cross_entropy", label=ONE_CELL, over="positives")
    _, expected = of_points(type="sigmoid_cross_entropy", label="one", over="positives")
    assert torch.equal(gradient, expected)


def test_a_heat_map_reaches_beyond_the_positives():
    """Image 0 has a box of 4 x 4 cells, whose r at an IoU of 0.01 is 1 and s 1/2."""
    options = {"type": "mean_squared_error", "label": {"type": "gaussian", "min_overlap": 0.01}}
    _, gradient = of_points(**options)
    _, of_no = of_points(**options | {"label": "one"})
    changed = (gradient - of_no)[0, :, 2].abs() > 1e-6
    around = [5, 6, 7, 9, 11, 13, 14, 15]  # of cell 10; 6 and 7 are in the region
    assert changed.nonzero().view(-1).tolist() == [cell for cell in around if cell not in (6, 7)]


def test_the_heat_of_a_single_logit_is_that_of_any_class():
    _, gradient = of_points("objectness", type="sigmoid_cross_entropy", label=ONE_CELL)
    _, expected = of_points("objectness", type="sigmoid_cross_entropy")
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("way", [nullcontext, without_host_sync])
@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param("one", 3 + 1 + 1, id="the smaller one of weight 3, the large one, one of two"),
        pytest.param("gaussian", 3 + 1 + 2, id="both classes of a cell count, one class once"),
    ],
)
def test_target_scores_are_the_ones_of_a_heat_map(label, expected, way):
    with way():
        output, _ = of_points(
            type="gaussian_focal", label=label, normalizer={"type": "target_scores"}
        )
    assert output.divisors["classification"] == expected


def test_a_sampler_looks_at_the_loss_of_a_heat_map():
    criterion = detloss.build(
        {
            "matcher": {"type": "center_point"},
            "sampler": {"type": "hard_negative", "ratio": 1.0},
            "classification": {"type": "gaussian_focal", "label": "gaussian"},
            "normalizer": {"type": "target_scores"},
        }
    )
    logits = torch.full((3, 16, 3), -4.0).index_fill_(1, torch.tensor([3, 9]), 4.0)
    logits.requires_grad_()
    output = criterion({"class_logits": logits}, TARGETS, anchors=CELLS)
    output.total.backward()
    assert output.divisors["classification"] == 3 + 1 + 2
    learned = (logits.grad != 0).any(-1)
    assert learned.sum(1).tolist() == [4, 2, 0]
    assert learned[0, 9]
    assert learned[1, 3]


def test_a_centre_that_a_sampler_left_out_is_no_one():
    criterion = detloss.build(
        {
            "matcher": {"type": "center_point"},
            "classification": {"type": "gaussian_focal", "label": "gaussian"},
            "normalizer": {"type": "target_scores"},
        }
    )
    matches = [
        leave_out(match, match.positive) for match in criterion.match(TARGETS, anchors=CELLS)
    ]
    logits = torch.zeros(3, 16, 3, requires_grad=True)
    output = criterion({"class_logits": logits}, TARGETS, anchors=CELLS, matches=matches)
    output.total.backward()
    assert output.divisors["classification"] == 1
    assert (logits.grad[0, 0] == 0).all()


WHOLE = {"type": "middle", "region": 1.0, "least": 0.0}
"""Above 0 wherever an anchor touches an object."""


@pytest.mark.parametrize("way", [nullcontext, without_host_sync])
@pytest.mark.parametrize("label", ["one", ONE_CELL], ids=str)
@pytest.mark.parametrize("name", YES_OR_NO)
def test_the_class_of_an_object_is_ignored_at_what_is_near_and_not_its_positive(name, label, way):
    with way():
        _, gradient = of_points(type=name, label=label, ignore_by=WHOLE)
        _, full = of_points(type=name, label=label)
    ignored = torch.zeros(3, 16, 3, dtype=torch.bool)
    ignored[0, :, 2] = True  # all cells touch the large box of class 2
    ignored[0, 0, 1] = True  # the first cell has an object of class 1
    ignored[1, 5, [0, 2]] = True  # another cell those of classes 0 and 2
    positives = [(0, 0, 1), (0, 10, 2), (1, 5, 2)]  # the smaller one has a cell
    for place in positives:
        ignored[place] = False
    assert torch.equal(gradient, full.masked_fill(ignored, 0))
    assert all(full[place] != 0 for place in positives)


def test_one_logit_near_an_object_of_any_class_is_ignored():
    _, gradient = of_points("objectness", type="sigmoid_cross_entropy", ignore_by=WHOLE)
    _, full = of_points("objectness", type="sigmoid_cross_entropy")
    ignored = torch.zeros(3, 16, dtype=torch.bool)
    ignored[0] = True
    ignored[0, [0, 10]] = False
    assert torch.equal(gradient, full.masked_fill(ignored, 0))


def test_what_is_ignored_by_an_object_is_in_the_config():
    config = {"type": "sigmoid_focal", "ignore_by": {"type": "middle", "region": 0.5}}
    term = detloss.build({"matcher": {"type": "max_iou"}, "classification": config})
    found = term.config()["classification"]["ignore_by"]
    assert found == {"type": "middle", "region": 0.5, "least": 0.01}
    config["ignore_by"] = "none"
    term = detloss.build({"matcher": {"type": "max_iou"}, "classification": config})
    assert "ignore_by" not in term.config()["classification"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"type": "sigmoid_focal", "ignore_by": "iou"},
            "ignore_by: must be a quality of any anchor with any ground truth, gaussian or middle, "
            "got 'iou'",
        ),
        (
            {"type": "sigmoid_focal", "ignore_by": "middle", "over": "positives"},
            "ignore_by: needs over 'all', since it is about other anchors than positives, got "
            "ignore_by 'middle' with over 'positives'",
        ),
        (
            {"type": SOFTMAX[0], "ignore_by": "middle"},
            "ignore_by: needs a yes-or-no loss, since the classes of a softmax share one "
            f"probability, got {SOFTMAX[0]}",
        ),
    ],
)
def test_what_cannot_be_ignored_by_an_object(options, message):
    with pytest.raises(detloss.ConfigError) as error:
        detloss.build({"matcher": {"type": "max_iou"}, "classification": options})
    assert str(error.value) == f"config: classification.{message}"
