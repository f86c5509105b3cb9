"""The loss of a batch over a number that the caller passes with it."""

import pytest
from term_rows import term_rows

from detloss.normalizers import SuppliedNormalizer


@pytest.mark.parametrize("positives", [[4, 0], [0, 0], [1]])
def test_raises_wherever_the_caller_passed_no_number(positives):
    message = (
        r"normalizer 'supplied' needs a number with each call: "
        r"criterion\(\.\.\., normalizer=number\), got None"
    )
    with pytest.raises(ValueError, match=message):
        SuppliedNormalizer()(term_rows(positives))


def test_has_no_options():
    with pytest.raises(TypeError, match="value"):
        SuppliedNormalizer(value=128.0)
