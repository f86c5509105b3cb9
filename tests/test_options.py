"""What functions check of their options: in words that name the option and what it got."""

import math

import numpy as np
import pytest
import torch

from detloss.classification import varifocal_loss
from detloss.options import check_choice, check_fraction, check_non_negative, check_positive


@pytest.mark.parametrize("value", [0.0, 1, np.float32(0.5), torch.tensor(0.5)])
def test_numbers_in_range_pass(value):
    check_fraction("alpha", value)
    check_non_negative("alpha", value)
    check_positive("alpha", value + 1)


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (check_fraction, 1.5, r"alpha must be in \[0, 1\], got 1\.5"),
        (check_fraction, -1e-9, r"alpha must be in \[0, 1\], got -1e-09"),
        (check_fraction, math.nan, r"alpha must be in \[0, 1\], got nan"),
        (check_non_negative, -1, "alpha must be at least 0, got -1"),
        (check_non_negative, math.nan, "alpha must be at least 0, got nan"),
        (check_positive, 0, "alpha must be greater than 0, got 0"),
        (check_positive, math.nan, "alpha must be greater than 0, got nan"),
    ],
)
def test_others_do_not(check, value, expected):
    with pytest.raises(ValueError, match=f"^{expected}$"):
        check("alpha", value)


@pytest.mark.parametrize("value", [[0.25], "0.25", None])
@pytest.mark.parametrize("check", [check_fraction, check_non_negative, check_positive])
def test_what_is_no_number_is_an_error_of_type(check, value):
    with pytest.raises(TypeError, match=f"^alpha must be a number, got {type(value).__name__}$"):
        check("alpha", value)


def test_a_tensor_of_several_is_no_number():
    with pytest.raises(TypeError, match=r"^alpha must be a number, got Tensor$"):
        check_fraction("alpha", torch.tensor([0.25, 0.75]))


def test_a_loss_says_which_option():
    """A list for each class is for losses that say so."""
    with pytest.raises(TypeError, match=r"^alpha must be a number, got list$"):
        varifocal_loss(torch.zeros(1, 2), torch.tensor([1]), alpha=[0.25, 0.75])


def test_a_choice_that_there_is_not():
    check_choice("version", 2, (1, 2))
    with pytest.raises(ValueError, match="^version must be one of 1, 2, got 3$"):
        check_choice("version", 3, (1, 2))
