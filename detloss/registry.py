"""Name -> class, and the constructor's signature as the schema of its options.

Every part that a config can name (a loss, a matcher, a normalizer ...) is a `Part` in the
`Registry` of its room. Registering a class makes its constructor check every argument against its
annotation, so that a value out of range is refused in the same words in Python and in YAML.
It also checks the class itself, and tells its author what to write where something is missing.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
AtLeastOne = Annotated[float, Ge(1)]
AtLeastMinusOne = Annotated[float, Ge(-1)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveInt = Annotated[int, Gt(0)]
PerClass = Sequence[float] | Tensor
"""(C,) values, one per class; a module keeps them as a buffer, so they follow ``.to(device)``."""


class OneOf:
    """In the annotation of an option, the names in a mapping that techniques add to.

    Example:
        >>> known = {"iou": 1}
        >>> Kind = Annotated[str, OneOf(known)]
        >>> known["giou"] = 2
        >>> choices_of(Kind)
        ['giou', 'iou']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """How pydantic checks a value: it is one of the names that are there by then."""
        from pydantic_core.core_schema import literal_schema

        return literal_schema(sorted(self.names))


class ConfigError(ValueError):
    """A mistake in a config, in words that say where it is and what would be right."""


class Part(nn.Module):
    """Anything a config can name. It knows the options that it was built with.

    Each constructor argument is kept in the attribute of its name; `config` reads them there.
    """

    type_name: ClassVar[str] = ""
    """The name under which the class is registered."""
    option_names: ClassVar[tuple[str, ...]] = ()
    """The constructor's arguments."""

    def __init__(self) -> None:
        super().__init__()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.option_names = tuple(options_of(cls))

    @classmethod
    def check_definition(cls) -> None:
        """Raises TypeError, when the class is registered, for what its author forgot.

        A base class adds what its kind of part needs; the message says what to write and where.
        """
        for name, parameter in options_of(cls).items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(
                    f"{cls.__name__}: the constructor takes {str(parameter).split(':')[0]}: write "
                    "out its arguments, they are the options that a config can set"
                )
            if parameter.annotation is parameter.empty:
                default = "" if parameter.default is parameter.empty else " = ..."
                raise TypeError(
                    f"{cls.__name__}: argument {name!r} of the constructor has no annotation: "
                    f"write `{name}: float{default}`, or what else it is, such as one of the types "
                    "in detloss.registry; a config's value is checked against it"
                )

    def check_options_kept(self) -> None:
        """Raises TypeError, after the constructor, for an option that `config` would not find."""
        if "_modules" not in vars(self):
            raise TypeError(
                f"{type(self).__name__}: the constructor does not initialise torch's Module: "
                "write `super().__init__()` as its first line"
            )
        kept = vars(self).keys() | self._parameters.keys() | self._buffers.keys()
        kept |= self._modules.keys()
        for name in self.option_names:
            if name not in kept and not isinstance(
                inspect.getattr_static(type(self), name, None), property
            ):
                raise TypeError(
                    f"{type(self).__name__}: keep option {name!r} in self.{name}: write "
                    f"`self.{name} = {name}` in the constructor; config() and repr read it there"
                )

    def config(self) -> dict[str, Any]:
        """The resolved options as plain values; building them gives an equal part."""
        options = {name: plain_value(getattr(self, name)) for name in self.option_names}
        return {"type": self.type_name, **options}

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={value!r}" for name, value in self.config().items() if name != "type"
        )


P = TypeVar("P", bound=Part)


class Registry:
    """The classes of one room by name.

    Args:
        role: What a member is, in words for an error message, such as "box loss".

    Example:
        >>> from detloss.regression import CIoULoss
        >>> REGRESSION["ciou"] is CIoULoss
        True
    """

    def __init__(self, role: str) -> None:
        self.role = role
        self._classes: dict[str, type[Part]] = {}

    def register(self, name: str) -> Callable[[type[P]], type[P]]:
        """Class decorator: files the class under `name` and makes its constructor check options.

        Raises:
            TypeError: If there is no name, or the class lacks something; see
                `Part.check_definition`.
            ValueError: If the name is no word, or is taken by another class.
        """
        if not isinstance(name, str):
            raise TypeError(
                f'a {self.role} is registered under a name: write `.register("...")`, the word '
                f"that a config gives as its type, got {name!r}"
            )
        if not (name.isidentifier() and name.islower()):
            raise ValueError(
                f"the name of a {self.role} must be lower-case letters, digits and underscores, "
                f"as a config writes it, got {name!r}"
            )

        def add(cls: type[P]) -> type[P]:
            if not issubclass(cls, Part):
                raise TypeError(
                    f"{cls.__name__}: a {self.role} must be a Part: derive it from the base class "
                    "of its room"
                )
            taken = self._classes.get(name)
            if taken is not None and _full_name(taken) != _full_name(cls):
                raise ValueError(
                    f"{self.role} {name!r} is already {_full_name(taken)}: register "
                    f"{_full_name(cls)} under another name"
                )
            cls.check_definition()
            cls.type_name = name
            cls.__init__ = _checked(cls)  # type: ignore[method-assign]
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        return sorted(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> type[Part]:
        return self._classes[name]


CLASSIFICATION = Registry("classification loss")
REGRESSION = Registry("box loss")
CODERS = Registry("coder")
MATCHERS = Registry("matcher")
SAMPLERS = Registry("sampler")
NORMALIZERS = Registry("normalizer")
QUALITIES = Registry("quality")
TERMS = Registry("term")

SECTIONS = {
    "matcher": MATCHERS,
    "coder": CODERS,
    "sampler": SAMPLERS,
    "classification": CLASSIFICATION,
    "box": REGRESSION,
    "quality": QUALITIES,
    "normalizer": NORMALIZERS,
}
"""What can be built by name, in the order in which a criterion uses it."""


def _full_name(cls: type[Part]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def options_of(cls: type[Part]) -> dict[str, inspect.Parameter]:
    """The constructor's arguments by name, without ``self``."""
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p for name, p in parameters.items() if name != "self"}


def option_mistakes(cls: type[Part], options: Mapping[str, Any]) -> dict[str, Exception]:
    """What is wrong with each of `options` as constructor arguments: option -> error.

    Example:
        >>> from detloss.regression import SmoothL1Loss
        >>> option_mistakes(SmoothL1Loss, {"beta": -1.0})
        {'beta': ValueError('expected a value greater than or equal to 0, got -1.0')}
        >>> print(option_mistakes(SmoothL1Loss, {"bta": 1.0})["bta"])
        unknown option, smooth_l1 accepts beta, reduction; did you mean 'beta'?
    """
    accepted = options_of(cls)
    mistakes: dict[str, Exception] = {}
    for name, value in options.items():
        if name not in accepted:
            known = ", ".join(accepted) or "no options"
            hint = nearest(name, accepted)
            mistakes[name] = TypeError(f"unknown option, {cls.type_name} accepts {known}{hint}")
        elif mistake := _value_mistake(cls, name, python_numbers(value)):
            mistakes[name] = mistake
    for name, parameter in accepted.items():
        if parameter.default is parameter.empty and name not in options:
            mistakes[name] = TypeError(f"missing, {cls.type_name} needs it")
    return mistakes


def choices_of(annotation: Any) -> list[Any]:
    """The words that an option with that annotation takes; none where it takes something else.

    Example:
        >>> choices_of(Literal["sum", "mean"]), choices_of(float)
        (['sum', 'mean'], [])
    """
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    grown = [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, OneOf)]
    return sorted(grown[0].names) if grown else []


def nearest(name: object, names: Iterable[str]) -> str:
    """``"; did you mean 'ciou'?"`` for a near miss, else nothing; see `closest`."""
    meant = " or ".join(map(repr, closest(name, names)))
    return f"; did you mean {meant}?" if meant else ""


def closest(name: object, names: Iterable[str]) -> list[str]:
    """Those of `names` that somebody who wrote `name` may have meant.

    A name that is a part of others, such as "focal", means any of them; one that says more than
    another, such as "loss_weight", means that one.

    Example:
        >>> closest("loss_weight", ["class_weight", "weight"]), closest("wieght", ["eps", "weight"])
        (['weight'], ['weight'])
    """
    given, by_lower = str(name).lower(), {each.lower(): each for each in names}
    words = set(given.split("_"))
    close = [lower for lower in by_lower if lower == given]
    close = close or [lower for lower in by_lower if words <= set(lower.split("_"))]
    close = close or [lower for lower in by_lower if words >= set(lower.split("_"))]
    close = close or difflib.get_close_matches(given, by_lower, n=1, cutoff=0.5)
    return [by_lower[lower] for lower in close]


def plain_value(value: Any) -> Any:
    """`value` as what YAML can hold: tensors and sequences as lists."""
    if isinstance(value, Tensor):
        # the shortest decimal that gives the same float32 back: 0.1, not 0.10000000149
        return [float(str(v)) for v in value.detach().cpu().to(torch.float32).numpy()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain_value(v) for v in value]
    return value


def python_numbers(value: Any) -> Any:
    """`value` with numbers of NumPy and of tensors as Python's, and NumPy's arrays as lists.

    A number of less than 64 bits becomes the shortest decimal that it stands for, as in
    `plain_value`.

    Example:
        >>> python_numbers([np.float32(0.1), np.int64(3), torch.tensor(0.5)])
        [0.1, 3, 0.5]
    """
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_meta:
        number = value.item()
        narrow = value.is_floating_point() and value.dtype != torch.float64
        return python_numbers(np.float32(number)) if narrow else number
    if isinstance(value, np.ndarray):
        return [python_numbers(v) for v in value] if value.ndim else python_numbers(value[()])
    if isinstance(value, np.floating):
        return float(str(value))
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(python_numbers(v) for v in value)
    return value


@functools.cache
def _adapters(cls: type[Part]) -> dict[str, "TypeAdapter[Any]"]:
    from pydantic import ConfigDict, TypeAdapter

    rules = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    hints = get_type_hints(cls.__init__, include_extras=True)
    return {name: TypeAdapter(hints[name], config=rules) for name in options_of(cls)}


def _value_mistake(cls: type[Part], name: str, value: Any) -> Exception | None:
    from pydantic import ValidationError

    adapter = _adapters(cls)[name]  # type: ignore[arg-type]
    try:
        valid = adapter.validate_python(value)
        if isinstance(value, bool) and not isinstance(valid, bool):  # True equals a literal 1
            adapter.validate_python(object())
    except ValidationError as error:
        details = error.errors(include_url=False)
        # of the branches of an annotation the one that a list was meant for
        details = [d for d in details if _place(d)] or details
        wrong_type = all(d["type"].endswith(("_type", "_of", "_str", "_required")) for d in details)
        expected = " or ".join(dict.fromkeys(_expected(d) for d in details))
        choices = [
            c for d in details for c in d.get("ctx", {}).get("expected", "").split("'")[1::2]
        ]
        message = f"expected {expected}, got {value!r}{nearest(value, choices)}"
        return TypeError(message) if wrong_type else ValueError(message)
    return None


def _expected(detail: "ErrorDetails") -> str:
    """What one branch of an annotation would have accepted."""
    kind, phrase = detail["type"], detail["msg"].removeprefix("Input should be ")
    if kind in ("too_short", "too_long"):
        bound, count = ("least", "min") if kind == "too_short" else ("most", "max")
        count = detail["ctx"][f"{count}_length"]
        return f"at {bound} {count} value{'s' if count != 1 else ''}"
    if kind in ("sequence_str", "list_type"):
        return "a list"
    if phrase.startswith(("greater", "less")):
        phrase = f"a value {phrase}"
    known = {"an instance of Tensor": "a tensor", "an instance of Sequence": "a list"}
    return known.get(phrase, phrase) + _place(detail)


def _place(detail: "ErrorDetails") -> str:
    """Where in a list a wrong value is, such as " at [1]"."""
    return "".join(f" at [{key}]" for key in detail["loc"] if isinstance(key, int))


def _checked(cls: type[Part]) -> Callable[..., None]:
    """The constructor of `cls`, refusing an argument that its annotation does not allow."""
    init: Callable[..., None] = cls.__init__
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Part, *args: Any, **kwargs: Any) -> None:
        # what is unknown or missing gets a message of its own, with more in it than Python's
        unknown = {name: kwargs.pop(name) for name in kwargs.keys() - signature.parameters.keys()}
        try:
            given = signature.bind_partial(self, *args, **kwargs)
        except TypeError as error:  # too many, or the same one twice
            raise TypeError(f"{cls.__name__}: {error}") from None
        for name, value in given.arguments.items():
            if name != "self":
                given.arguments[name] = python_numbers(value)
        options = {name: value for name, value in given.arguments.items() if name != "self"}
        options |= unknown
        for name, mistake in option_mistakes(cls, options).items():
            raise type(mistake)(f"{cls.__name__}: {name}: {mistake}")
        init(*given.args, **given.kwargs)
        self.check_options_kept()

    return checked
