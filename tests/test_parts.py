"""The parts of a criterion: the names of its terms, what all look at, and which go together."""

import pytest

import detloss
from detloss.classification import SigmoidFocalLoss
from detloss.coders import DeltaCoder
from detloss.matchers import MaxIoUMatcher
from detloss.normalizers import PositivesNormalizer, RowWeightsNormalizer
from detloss.parts import (
    by_key,
    check_parts,
    classifier_of,
    named_terms,
    needed_predictions,
    needs_labels,
)
from detloss.qualities import ConfidenceQuality, ScoreQuality
from detloss.regression import DistributionFocalLoss, GIoULoss, L1Loss
from detloss.samplers import AllSampler, HardNegativeSampler
from detloss.terms import BoxTerm, ClassificationTerm, ObjectnessTerm


class Looking(MaxIoUMatcher):
    needs = frozenset({"gt_labels", "pred_boxes", "objectness"})


def mistakes(terms, *, matcher=None, sampler=None, normalizer=None):
    """What is said of those parts, line by line."""
    with pytest.raises(ValueError) as error:
        check_parts(
            named_terms(terms),
            matcher or MaxIoUMatcher(),
            DeltaCoder(),
            sampler or AllSampler(),
            normalizer or PositivesNormalizer(),
        )
    return str(error.value).splitlines()


def test_names():
    alone, twice = [BoxTerm(GIoULoss())], [BoxTerm(GIoULoss()), BoxTerm(L1Loss())]
    assert list(named_terms(alone)) == ["box"]
    assert list(named_terms(twice)) == ["box/giou", "box/l1"]
    assert list(named_terms([BoxTerm(GIoULoss(), name="mine")])) == ["box/mine"]
    with pytest.raises(ValueError, match="terms must differ in name, got two 'box/giou'"):
        named_terms(alone + alone)


def test_a_config_has_a_mapping_or_a_list_a_key():
    assert by_key([BoxTerm(L1Loss())]) == {"box": {"type": "l1", "weight": 1.0}}
    named = by_key([BoxTerm(L1Loss(), name="mine")])
    assert named == {"box": [{"type": "l1", "weight": 1.0, "name": "mine"}]}
    assert [one["type"] for one in by_key([BoxTerm(L1Loss()), BoxTerm(GIoULoss())])["box"]] == [
        "l1",
        "giou",
    ]


def test_what_is_looked_at():
    terms = [
        BoxTerm(GIoULoss(), reads="refined", weigh_by=ConfidenceQuality()),
        ObjectnessTerm(SigmoidFocalLoss()),
    ]
    assert needed_predictions(terms, MaxIoUMatcher()) == ["refined", "objectness", "class_logits"]
    assert needed_predictions([], Looking()) == ["objectness", "box_regression"]


def test_labels_are_needed_by_terms_of_classes_and_by_matchers():
    assert not needs_labels(
        [BoxTerm(L1Loss()), ObjectnessTerm(SigmoidFocalLoss())], MaxIoUMatcher()
    )
    assert needs_labels([ClassificationTerm(SigmoidFocalLoss())], MaxIoUMatcher())
    assert needs_labels([], Looking())


def test_the_classifier_is_the_first_term_of_classes_or_else_of_one_logit():
    objects = ObjectnessTerm(SigmoidFocalLoss())
    few = ClassificationTerm(SigmoidFocalLoss(), over="positives")
    assert classifier_of([BoxTerm(L1Loss()), objects, few]) is few
    assert classifier_of([objects, few], over="all") is objects
    assert classifier_of([BoxTerm(L1Loss())]) is None


def test_every_mistake_has_its_line():
    terms = [BoxTerm(DistributionFocalLoss(), weigh_by=ScoreQuality()), BoxTerm(L1Loss())]
    found = mistakes(terms, sampler=HardNegativeSampler(), normalizer=RowWeightsNormalizer())
    assert [line.split(":")[0] for line in found] == [
        "sampler",
        "box/distribution_focal",
        "box/distribution_focal",
        "box/l1",
    ]
    assert found[0].endswith("which no term has; samplers that need none: all, random_balanced")


def test_a_matcher_that_asks_for_what_no_criterion_has():
    class Asking(MaxIoUMatcher):
        needs = frozenset({"masks", "gt_labels"})

    assert mistakes([], matcher=Asking()) == [
        "matcher: max_iou needs masks, which a criterion does not have"
    ]


def test_parts_that_go_together_pass():
    criterion = detloss.load_config("retinanet")
    check_parts(
        criterion.terms,
        criterion.matcher,
        criterion.coder,
        criterion.sampler,
        criterion.normalizer,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matcher": "max_iou"}, "matcher must be a Matcher, got str"),
        ({"matcher": MaxIoUMatcher}, "matcher must be a Matcher, got the class MaxIoUMatcher"),
        ({"coder": "delta"}, "coder must be a Coder, got str"),
        ({"sampler": DeltaCoder()}, "sampler must be a Sampler, got DeltaCoder"),
        ({"normalizer": 3}, "normalizer must be a Normalizer, got int"),
        ({"terms": BoxTerm(L1Loss())}, "terms must be a list of terms, got BoxTerm"),
        ({"terms": {"box": BoxTerm(L1Loss())}}, "terms must be a list of terms, got dict"),
        ({"terms": [BoxTerm(L1Loss()), L1Loss()]}, r"terms\[1\] must be a Term, got L1Loss"),
    ],
)
def test_a_part_of_another_kind_is_named(options, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        detloss.DetectorLoss(**({"matcher": MaxIoUMatcher()} | options))
