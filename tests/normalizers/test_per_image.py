"""The mean over images of each one's loss over its own positive anchors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from term_rows import normalized, on_ranks, random_rows, term_rows

from detloss.normalizers import PerImageNormalizer, PositivesNormalizer


@pytest.mark.parametrize(
    ("positives", "sums", "expected"),
    [
        pytest.param([4, 0], [4.0, 0.0], 0.5, id="4 of loss 1 each: the mean of 4 / 4 and 0 / 1"),
        pytest.param([1, 4], [2.0, 4.0], 1.5, id="the mean of 2 / 1 and 4 / 4"),
        pytest.param([0, 0], [0.5, 0.25], 0.375, id="no positives: the mean of the sums"),
        pytest.param([5], [10.0], 2.0, id="one image"),
    ],
)
def test_worked_by_hand(positives, sums, expected):
    assert normalized(PerImageNormalizer(), positives, sums) == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100)), min_size=1, max_size=8))
def test_is_the_mean_of_each_images_quotient(images):
    # torchvision's RetinaNet: losses.append(loss.sum() / max(1, num_foreground)); their mean
    positives, sums = (list(column) for column in zip(*images, strict=True))
    expected = sum(s / max(1, p) for p, s in images) / len(images)
    assert normalized(PerImageNormalizer(), positives, sums) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_an_image_counts_the_same_whatever_its_positives(positives):
    sums = [3.0 * count for count in positives]  # 3 a positive, everywhere
    assert normalized(PerImageNormalizer(), positives, sums) == pytest.approx(3.0, rel=1e-12)


def test_each_image_has_its_divisor():
    assert PerImageNormalizer()(term_rows([2, 0, 3])).tolist() == [6, 3, 9]


@pytest.mark.parametrize("seed", range(5))
def test_is_short_for_positives_of_each_image(seed):
    rows = random_rows(4, seed=seed)
    assert torch.equal(PerImageNormalizer()(rows), PositivesNormalizer(per="image")(rows))


def test_ranks_with_batches_of_different_sizes():
    """Of three images, so that an image weighs 1 / 3 in the mean of two ranks: 1.5 in each."""
    ranks = [term_rows([4, 2]), term_rows([0])]
    divisors = on_ranks(PerImageNormalizer(sync=True), ranks)
    assert [divisor.tolist() for divisor in divisors] == [[6, 3], [1.5]]


def test_has_no_other_options():
    with pytest.raises(TypeError, match="floor"):
        PerImageNormalizer(floor=2.0)
