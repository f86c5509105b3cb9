"""The registry: names, and constructors that check their options."""

import pytest
import torch

from detloss.registry import NonNegative, Part, PerClass, Registry, plain_value


@pytest.fixture
def toys():
    return Registry("toy")


@pytest.fixture
def top(toys):
    @toys.register("top")
    class Top(Part):
        def __init__(self, *, speed: NonNegative = 1.0, weights: PerClass | None = None) -> None:
            super().__init__()
            self.speed = speed
            self.weights = weights

    return Top


def test_a_registered_class_is_found_by_name(toys, top):
    assert toys["top"] is top
    assert "top" in toys
    assert toys.names() == ["top"]
    assert top.type_name == "top"


def test_a_name_is_taken_once(toys, top):
    with pytest.raises(ValueError, match="toy 'top' is already .*Top"):

        @toys.register("top")
        class Other(Part):
            pass


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"speed": -1.0}, ValueError, "Top: speed: expected a value greater than or equal to 0"),
        ({"speed": "fast"}, TypeError, "Top: speed: expected a valid number, got 'fast'"),
        ({"speed": True}, TypeError, "Top: speed: expected a valid number, got True"),
        ({"speed": float("nan")}, ValueError, "Top: speed: expected a finite number, got nan"),
        ({"weights": 3}, TypeError, "Top: weights: expected a list or a tensor, got 3"),
    ],
)
def test_the_constructor_checks_its_options(top, options, error, message):
    with pytest.raises(error, match=message):
        top(**options)


def test_an_unknown_option_is_python_s_own_error(top):
    with pytest.raises(TypeError, match="unexpected keyword argument 'sped'"):
        top(sped=1.0)


def test_an_integer_is_a_number(top):
    assert top(speed=2).config() == {"type": "top", "speed": 2, "weights": None}


def test_config_and_repr_follow_the_attributes(top):
    part = top(weights=[0.5, 1.0])
    part.speed = 3.0
    assert part.config() == {"type": "top", "speed": 3.0, "weights": [0.5, 1.0]}
    assert repr(part) == "Top(speed=3.0, weights=[0.5, 1.0])"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(torch.tensor([0.1, 0.25]), [0.1, 0.25], id="shortest decimal of a float32"),
        pytest.param((1, (2.0, None)), [1, [2.0, None]], id="nested sequences"),
        pytest.param("word", "word", id="a string is no sequence"),
    ],
)
def test_plain_values(value, expected):
    assert plain_value(value) == expected
