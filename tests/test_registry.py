"""The registry: names, constructors that check their options, and what an author forgot."""

import re
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from detloss.kernels import Loss, Reduction, Space, box_loss
from detloss.registry import (
    REGRESSION,
    NonNegative,
    Part,
    PerClass,
    Positive,
    Registry,
    nearest,
    options_of,
    plain_value,
    python_numbers,
)
from detloss.regression import BoxLoss


@pytest.fixture
def toys():
    return Registry("toy")


@pytest.fixture
def top(toys):
    @toys.register("top")
    class Top(Part):
        def __init__(
            self,
            *,
            speed: NonNegative = 1.0,
            weights: PerClass | None = None,
            turns: int = 1,
            hums: bool = False,
        ) -> None:
            super().__init__()
            self.speed = speed
            self.weights = weights
            self.turns = turns
            self.hums = hums

    return Top


def test_a_registered_class_is_found_by_name(toys, top):
    assert toys["top"] is top
    assert "top" in toys
    assert toys.names() == ["top"]
    assert top.type_name == "top"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"speed": -1.0}, ValueError, "Top: speed: expected a value greater than or equal to 0"),
        ({"speed": "fast"}, TypeError, "Top: speed: expected a valid number, got 'fast'"),
        ({"speed": True}, TypeError, "Top: speed: expected a valid number, got True"),
        ({"speed": float("nan")}, ValueError, "Top: speed: expected a finite number, got nan"),
        ({"weights": 3}, TypeError, "Top: weights: expected a list or a tensor, got 3"),
        ({"speed": np.float32("nan")}, ValueError, "Top: speed: expected a finite number, got nan"),
        ({"turns": np.float64(1.5)}, TypeError, "Top: turns: expected a valid integer, got 1.5"),
        (
            {"speed": np.ones(2)},
            TypeError,
            r"Top: speed: expected a valid number, got \[1.0, 1.0\]",
        ),
        ({"weights": np.ones((1, 2))}, TypeError, r"expected a valid number at \[0\], got"),
        ({"weights": [1.0, True]}, TypeError, r"expected a valid number at \[1\], got \[1.0, True"),
        ({"weights": "12"}, TypeError, "Top: weights: expected a list or a tensor, got '12'"),
        ({"weights": range(2)}, TypeError, r"expected a list or a tensor, got range\(0, 2\)"),
    ],
)
def test_the_constructor_checks_its_options(top, options, error, message):
    with pytest.raises(error, match=message):
        top(**options)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        pytest.param({"sped": 1.0}, "; did you mean 'speed'?", id="a near miss"),
        pytest.param({"loss_weight": 1.0}, "; did you mean 'weights'?", id="more than the name"),
        pytest.param({"speed": 2.0, "z": None}, "", id="like nothing, beside a good one"),
    ],
)
def test_an_unknown_option_is_told_what_is_accepted_and_the_nearest(top, options, hint):
    (name,) = options.keys() - {"speed"}
    message = f"Top: {name}: unknown option, top accepts speed, weights, turns, hums{hint}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        top(**options)


@pytest.mark.parametrize("name", REGRESSION.names())
def test_a_box_loss_with_a_weight_of_its_own_is_told_what_it_accepts(name):
    accepts = ", ".join(options_of(REGRESSION[name]))
    message = f"loss_weight: unknown option, {name} accepts {accepts}"
    with pytest.raises(TypeError, match=re.escape(message)):
        REGRESSION[name](loss_weight=2.0)


def test_an_option_without_a_default_is_missed_by_its_name(toys):
    @toys.register("disc")
    class Disc(Part):
        def __init__(self, radius: Positive) -> None:
            super().__init__()
            self.radius = radius

    assert Disc(2.0).radius == Disc(radius=2.0).radius == 2.0
    with pytest.raises(TypeError, match="^Disc: radius: missing, disc needs it$"):
        Disc()
    with pytest.raises(TypeError, match="^Disc: radios: unknown option, disc accepts radius; did"):
        Disc(radios=2.0)
    with pytest.raises(TypeError, match="^Disc: too many positional arguments$"):
        Disc(2.0, 3.0)
    with pytest.raises(TypeError, match="multiple values for argument 'radius'"):
        Disc(2.0, radius=3.0)


def test_an_integer_is_a_number(top):
    assert top(speed=2).config()["speed"] == 2


def test_config_and_repr_follow_the_attributes(top):
    part = top(weights=[0.5, 1.0])
    part.speed = 3.0
    expected = {"type": "top", "speed": 3.0, "weights": [0.5, 1.0], "turns": 1, "hums": False}
    assert part.config() == expected
    assert repr(part) == "Top(speed=3.0, weights=[0.5, 1.0], turns=1, hums=False)"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        pytest.param("speed", np.float64(0.1), 0.1, id="float64"),
        pytest.param("speed", np.float32(0.1), 0.1, id="float32: its shortest decimal"),
        pytest.param("speed", np.float16(0.1), 0.1, id="float16"),
        pytest.param("speed", np.int64(3), 3, id="an integer as a number"),
        pytest.param("speed", np.array(0.5), 0.5, id="an array of no axis"),
        pytest.param("turns", np.int32(3), 3, id="int32"),
        pytest.param("hums", np.True_, True, id="bool"),
        pytest.param("weights", np.array([0.1, 2], np.float32), [0.1, 2.0], id="an array"),
        pytest.param("weights", [np.float32(0.1), 2], [0.1, 2], id="a list with a NumPy number"),
        pytest.param("speed", torch.tensor(0.1), 0.1, id="a tensor of no axis"),
        pytest.param(
            "speed", torch.tensor(0.1).double(), float(torch.tensor(0.1)), id="of float64"
        ),
        pytest.param("turns", torch.tensor(3), 3, id="of integers"),
    ],
)
def test_what_numpy_or_torch_gives_is_kept_as_plain_python(top, option, value, expected):
    part = top(**{option: value})
    kept = getattr(part, option)
    assert kept == expected
    assert type(kept) is type(expected)
    assert yaml.safe_load(yaml.safe_dump(part.config()))[option] == expected


def test_a_tuple_stays_one():
    assert python_numbers((np.int8(1), "a")) == (1, "a")


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


# --- What an author forgets: each is told what to write -------------------------------------------


def forgets(message):
    return pytest.raises((TypeError, ValueError), match=re.escape(message))


def test_a_name_is_taken_once(toys, top):
    with forgets(f"toy 'top' is already {__name__}.top.<locals>.Top: register {__name__}.test_a"):

        @toys.register("top")
        class Other(Part):
            pass


def test_the_same_class_name_elsewhere_does_not_replace_a_class(toys, top):
    other = type("Top", (Part,), {"__module__": "elsewhere", "__qualname__": top.__qualname__})
    with forgets("is already"):
        toys.register("top")(other)


def test_a_name_is_missing(toys):
    with forgets('a toy is registered under a name: write `.register("...")`'):

        @toys.register
        class Top(Part):
            pass


@pytest.mark.parametrize("name", ["", "Top", "spinning-top", "spinning top"])
def test_a_name_is_no_word_of_a_config(toys, name):
    with forgets(
        f"the name of a toy must be lower-case letters, digits and underscores, as a config writes "
        f"it, got {name!r}"
    ):
        toys.register(name)


def test_a_class_that_is_no_part(toys):
    with forgets("Top: a toy must be a Part: derive it from the base class of its room"):

        @toys.register("top")
        class Top(nn.Module):
            pass


def test_an_argument_without_annotation(toys):
    with forgets(
        "Disc: argument 'radius' of the constructor has no annotation: write `radius: float = ...`"
    ):

        @toys.register("disc")
        class Disc(Part):
            def __init__(self, *, radius=1.5):
                super().__init__()
                self.radius = radius


def test_an_argument_without_annotation_or_default(toys):
    with forgets("has no annotation: write `radius: float`, or what else it is"):

        @toys.register("disc")
        class Disc(Part):
            def __init__(self, *, radius):
                super().__init__()
                self.radius = radius


def test_a_constructor_that_takes_anything(toys):
    with forgets("Disc: the constructor takes **options: write out its arguments"):

        @toys.register("disc")
        class Disc(Part):
            def __init__(self, **options: Any) -> None:
                super().__init__()


def test_an_option_that_is_not_kept(toys):
    @toys.register("disc")
    class Disc(Part):
        def __init__(self, *, eps: Positive = 1e-7) -> None:
            super().__init__()

    with forgets("Disc: keep option 'eps' in self.eps: write `self.eps = eps` in the constructor"):
        Disc()


def test_a_default_of_the_class_does_not_count_as_kept(toys):
    @toys.register("disc")
    class Disc(Part):
        eps: float = 1.0

        def __init__(self, *, eps: Positive = 1e-7) -> None:
            super().__init__()

    with forgets("keep option 'eps' in self.eps"):
        Disc(eps=2.0)


def test_a_property_or_a_buffer_keeps_an_option(toys):
    @toys.register("disc")
    class Disc(Part):
        def __init__(self, *, eps: Positive = 1.0, weights: PerClass = (1.0,)) -> None:
            super().__init__()
            self._root = eps**0.5
            self.register_buffer("weights", torch.tensor(weights))

        @property
        def eps(self) -> float:
            return self._root**2

    assert Disc(eps=4.0).config() == {"type": "disc", "eps": 4.0, "weights": [1.0]}


def test_a_constructor_that_leaves_torch_out(toys):
    @toys.register("disc")
    class Disc(Part):
        def __init__(self, *, eps: Positive = 1e-7) -> None:
            self.eps = eps

    with forgets("Disc: the constructor does not initialise torch's Module: write `super()"):
        Disc()


# --- The same for losses --------------------------------------------------------------------------


def huber(pred, target, delta):
    """One loss a row."""
    error = (pred - target).abs()
    inner = error.clamp(max=delta)
    return (inner * (error - inner / 2)).sum(-1)


def huber_loss(pred, target, *, delta=1.0, weight=None, reduction="none"):
    """A loss as an author writes it, without mistake."""
    formula = partial(huber, delta=delta)
    return box_loss(formula, pred, target, weight=weight, reduction=reduction)


def class_of(function, base=Loss, **names):
    """A loss class of that function, as an author writes it, not yet registered."""

    class HuberLoss(base):
        def __init__(self, *, delta: Positive = 1.0, reduction: Reduction = "mean") -> None:
            super().__init__(reduction)
            self.delta = delta

    HuberLoss.function = function
    for name, value in names.items():
        setattr(HuberLoss, name, value)
    return HuberLoss


def test_without_mistake_it_registers(toys):
    cls = class_of(staticmethod(huber_loss), BoxLoss, space="deltas")
    loss = toys.register("huber")(cls)(delta=0.5)
    assert loss.config() == {"type": "huber", "delta": 0.5, "reduction": "mean"}
    assert loss(torch.zeros(1, 4), torch.ones(1, 4)) == 4 * (0.5 - 0.5**2 / 2)


def test_a_function_that_would_become_a_method(toys):
    with forgets(
        "HuberLoss: it has to name its function without making it a method: write "
        "`function = staticmethod(huber_loss)` in the class"
    ):
        toys.register("huber")(class_of(huber_loss))


def test_no_function(toys):
    class HuberLoss(Loss):
        def __init__(self, *, reduction: Reduction = "mean") -> None:
            super().__init__(reduction)

    with forgets("write `function = staticmethod(...)` in the class"):
        toys.register("huber")(HuberLoss)


@pytest.mark.parametrize("space", [None, "delta", 3])
def test_a_box_loss_in_no_space(toys, space):
    named = {} if space is None else {"space": space}
    with forgets(
        "HuberLoss: a box loss states what its rows hold: write `space: ClassVar[Space] = ...` in "
        f"the class, 'boxes' or 'deltas' or 'bins', got {space!r}"
    ):
        toys.register("huber")(class_of(staticmethod(huber_loss), BoxLoss, **named))


def test_a_keyword_that_the_constructor_does_not_take(toys):
    def scaled_loss(pred, target, *, delta=1.0, scale=1.0, weight=None, reduction="none"): ...

    with forgets(
        "HuberLoss: scaled_loss takes 'scale' and the constructor does not: write `scale` among "
        "its arguments and `self.scale = scale` in it"
    ):
        toys.register("huber")(class_of(staticmethod(scaled_loss)))


def test_an_argument_that_the_function_does_not_take(toys):
    def plain_loss(pred, target, *, weight=None, reduction="none"): ...

    with forgets(
        "HuberLoss: the constructor takes 'delta' and plain_loss does not: write `delta` among the "
        "keywords of the function"
    ):
        toys.register("huber")(class_of(staticmethod(plain_loss)))


def test_a_function_without_weight(toys):
    def bare_loss(pred, target, *, delta=1.0, reduction="none"): ...

    with forgets("HuberLoss: bare_loss does not take 'weight': write `weight` among its keywords"):
        toys.register("huber")(class_of(staticmethod(bare_loss)))


def test_a_constructor_without_reduction(toys):
    class HuberLoss(BoxLoss):
        function = staticmethod(huber_loss)
        space: ClassVar[Space] = "deltas"

        def __init__(self, *, delta: Positive = 1.0) -> None:
            super().__init__("mean")
            self.delta = delta

    with forgets("HuberLoss: the constructor does not take 'reduction': write `reduction: Red"):
        toys.register("huber")(HuberLoss)


@pytest.mark.parametrize("gradient", [False, True], ids=["value", "gradient"])
@pytest.mark.parametrize(
    ("formula", "got"),
    [
        pytest.param(lambda p, t: (p - t).abs().mean(), "()", id="reduced"),
        pytest.param(lambda p, t: (p - t).abs().sum(-1, keepdim=True), "(5, 1)", id="an axis left"),
        pytest.param(lambda p, t: (p - t).abs().sum(0), "(4,)", id="summed over the wrong axis"),
        pytest.param(lambda p, t: (p - t)[None].abs(), "(1, 5, 4)", id="an axis too many"),
    ],
)
def test_a_formula_of_the_wrong_shape(formula, got, gradient):
    pred = torch.zeros(5, 4, requires_grad=gradient)
    for weight in (None, torch.ones(5)):
        with forgets(
            "the formula must return one loss a row, of shape (5,), or one an element, (5, 4): the "
            f"engine weighs and reduces, got {got}"
        ):
            box_loss(formula, pred, torch.ones(5, 4), weight=weight, reduction="sum")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        pytest.param("focl_a", "; did you mean 'focal_a'?", id="a near miss"),
        pytest.param("Focal_A", "; did you mean 'focal_a'?", id="another case"),
        pytest.param("focal", "; did you mean 'focal_a' or 'b_focal'?", id="a part of two"),
        pytest.param("a_focal", "; did you mean 'focal_a'?", id="its words in another order"),
        pytest.param("softmax_loss", "; did you mean 'softmax'?", id="more than the name"),
        pytest.param("focal_a", "; did you mean 'focal_a'?", id="the name itself, of no part"),
        pytest.param("hinge", "", id="nothing like it"),
        pytest.param("", "", id="nothing"),
        pytest.param(None, "", id="no text"),
        pytest.param(["focal"], "; did you mean 'vfocal'?", id="a list"),
    ],
)
def test_the_nearest_name(name, hint):
    assert nearest(name, ["vfocal", "focal_a", "b_focal", "softmax"]) == hint
