"""What the sum of each term is divided by: counted once, or given with the call."""

import numpy as np
import pytest
import torch
from scenes import build, grid_anchors, random_predictions, random_targets

from detloss.batch import MatchedBatch
from detloss.division import divisors_of_terms
from detloss.inputs import Inputs
from detloss.normalizers import EntriesNormalizer, PositivesNormalizer
from detloss.terms import Rows

ANCHORS = grid_anchors()


def rows_of(*, divides_levels=False):
    """The rows of two terms in a batch of two images with two pyramid levels."""
    criterion, targets = build(), random_targets([3, 2])
    inputs = Inputs(random_predictions(2, len(ANCHORS)), targets, [ANCHORS] * 2, [40, 24])
    batch = MatchedBatch(inputs, criterion.match(targets, anchors=ANCHORS), criterion.coder)
    return {
        name: Rows(term, batch, None, divides_levels=divides_levels)
        for name, term in criterion.terms.items()
    }


class Counted(PositivesNormalizer):
    calls = 0

    def count(self, rows):
        type(self).calls += 1
        return super().count(rows)


def test_terms_that_share_a_count_are_counted_once():
    rows, normalizer = rows_of(), Counted()
    found = divisors_of_terms(rows, dict.fromkeys(rows, normalizer))
    assert Counted.calls == 1
    assert found["classification"] is found["box"]
    assert found["box"] == rows["box"].positive.sum()


def test_a_count_of_the_term_is_its_own():
    rows = rows_of()
    found = divisors_of_terms(rows, dict.fromkeys(rows, EntriesNormalizer()))
    counted = rows["classification"].counted.sum() * 3
    assert found == {"classification": counted, "box": rows["box"].positive.sum() * 4}


def test_what_is_given_is_not_counted():
    rows = rows_of()
    found = divisors_of_terms(rows, {"classification": PositivesNormalizer()}, {"box": 3})
    assert found["box"] == 3
    assert found["classification"] == rows["box"].positive.sum()
    found = divisors_of_terms(rows, {}, np.float32(5))
    assert found == {"classification": 5, "box": 5}


def test_a_given_divisor_of_images_or_of_levels():
    assert divisors_of_terms(rows_of(), {}, torch.tensor([3, 4]))["box"].tolist() == [3, 4]
    of_levels = rows_of(divides_levels=True)
    assert divisors_of_terms(of_levels, {}, torch.tensor([3, 4]))["box"].tolist() == [3, 4]
    with pytest.raises(ValueError, match=r"must be a number or have shape \(2,\), got \(3,\)"):
        divisors_of_terms(rows_of(), {}, torch.ones(3))


@pytest.mark.parametrize("given", ["positives", [3.0, 4.0], None])
def test_a_given_divisor_is_a_number(given):
    with pytest.raises(TypeError, match="normalizer of 'box' must be a number or a tensor, got"):
        divisors_of_terms(rows_of(), {}, {"box": given})
