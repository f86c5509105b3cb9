"""YAML file or mapping -> criterion, with errors that say file, key and cure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

from detloss.detector import DetectorLoss
from detloss.kernels import Loss
from detloss.layers import Layer, LayeredLoss, Schedule
from detloss.registry import (
    NORMALIZERS,
    QUALITIES,
    SECTIONS,
    TERMS,
    ConfigError,
    Part,
    Registry,
    closest,
    nearest,
    option_mistakes,
    options_of,
)
from detloss.shipped import config_path
from detloss.terms import Term
from detloss.yaml_file import read_yaml

PARTS = ("matcher", "coder", "sampler", "normalizer")
"""The top-level keys of a config that are not terms."""
LAYER_OPTIONS = ("weight", "matches", "class_agnostic")
"""The keys of a set of predictions beside those of a criterion."""
QUALITY_OPTIONS = {"label": "one", "weigh_by": "none", "ignore_by": "none"}
"""The options of a term that name a quality, and what they say for none."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "coder": {"type": "delta"},
    "sampler": {"type": "all"},
    "normalizer": {"type": "positives"},
}
"""The parts that a config may leave out, and what they then are."""


def load_config(path: str | PathLike[str], *, validate: bool = False) -> DetectorLoss | LayeredLoss:
    """The criterion that a YAML file describes.

    Args:
        path: A file with the keys that `build` takes, or the name of a config that comes with
            detloss, such as "retinanet".
        validate: Debug validation; see `DetectorLoss`.

    Raises:
        ConfigError: For any mistake in the file, naming file, key path, the bad value, what is
            accepted and the nearest name.
        FileNotFoundError: If there is no such file.
        TypeError: If it is no path.

    Example:
        >>> criterion = load_config("retinanet")
        >>> criterion.terms["box"].loss
        L1Loss(reduction='mean')
    """
    if not isinstance(path, (str, PathLike)):
        raise TypeError(
            f"path must be a path or the name of a config, got {type(path).__name__}; "
            "detloss.build takes a mapping"
        )
    if isinstance(path, str) and Path(path).stem == path and not Path(path).is_file():
        path = config_path(path)
    return build(read_yaml(path), source=str(path), validate=validate)


def build(
    config: Mapping[str, Any], *, source: str = "config", validate: bool = False
) -> DetectorLoss | LayeredLoss:
    """The criterion that a mapping describes.

    Args:
        config: "matcher", optionally "coder", "sampler" and "normalizer", and the terms, such as
            "classification" and "box". A part is a mapping with "type", a registered name, and the
            keyword arguments of that class. A term is such a mapping of its loss, and takes the
            options of the term beside those of the loss: "weight", a factor >= 0, "normalizer" ...
            Several losses of one key are a list of such mappings, or {"terms": [...]} beside the
            options that they share. "layers" maps each set of predictions of a `LayeredLoss` to
            what differs there: such keys, "weight", a factor or {"start": ..., "end": ...},
            "matches" and "class_agnostic". Mappings merge key by key, unless they name another
            type; a list replaces a list, and None leaves a term out.
        source: What an error calls the config.
        validate: Debug validation; see `DetectorLoss`.

    Raises:
        ConfigError: For any mistake, all of them listed with their key path, the bad value, what
            is accepted and the nearest name.

    Example:
        >>> criterion = build({
        ...     "matcher": {"type": "max_iou", "positive": 0.5, "negative": 0.4},
        ...     "classification": {"type": "sigmoid_focal"},
        ...     "box": [{"type": "l1"}, {"type": "ciou", "weight": 2.0}],
        ... })
        >>> list(criterion.terms)
        ['classification', 'box/l1', 'box/ciou']
        >>> build(criterion.config()).config() == criterion.config()
        True
        >>> build({"matcher": {"type": "max_iuo"}})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        detloss.registry.ConfigError: config: matcher.type: unknown matcher 'max_iuo', accepted: ...
    """
    if not isinstance(config, Mapping):
        terms = " and ".join(TERMS.names()[:2])
        got = "nothing" if config is None else repr(config)
        raise ConfigError(
            f"{source}: expected a mapping with matcher, and with terms such as {terms}, got {got}"
        )
    try:
        if "layers" in config:
            return _build_layers(config, validate)
        return _build_criterion(config, validate)
    except ConfigError as error:
        mistakes = str(error).splitlines()
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in mistakes)) from None


def _build_criterion(
    config: Mapping[str, Any], validate: bool, others: Sequence[str] = ("layers",)
) -> DetectorLoss:
    """The criterion of a config without layers; `others` are the keys that stand beside its own."""
    accepted = [*PARTS, *TERMS.names(), *others]
    mistakes = [
        f"{key}: unknown key, accepted: {', '.join(accepted)}{nearest(key, accepted)}"
        for key in config
        if key not in accepted
    ]
    if "matcher" not in config:
        mistakes.append("matcher: missing, a criterion needs it")
    parts: dict[str, Part] = {}
    terms: list[Term] = []
    for key, value in ({**DEFAULTS, **config}).items():
        try:
            if key in PARTS:
                parts[key] = build_part(key, value)
            elif key in TERMS:
                terms += _build_terms(key, value)
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    try:
        return DetectorLoss(**parts, terms=terms, validate=validate)  # type: ignore[arg-type]
    except ValueError as error:  # parts that do not go together
        raise ConfigError(str(error)) from None


def _build_layers(config: Mapping[str, Any], validate: bool) -> LayeredLoss:
    """The criteria of a config with layers; a mistake that all sets share is told once."""
    common = {key: value for key, value in config.items() if key != "layers"}
    sets = config["layers"]
    if not isinstance(sets, Mapping) or not sets:
        raise ConfigError(f"layers: expected a mapping from sets of predictions, got {sets!r}")
    mistakes: dict[str, None] = {}
    layers: dict[str, Layer] = {}
    for name, changes in sets.items():
        if not isinstance(changes, Mapping):
            mistakes[f"layers.{name}: expected a mapping, got {changes!r}"] = None
            continue
        merged = _merged(common, {k: v for k, v in changes.items() if k not in LAYER_OPTIONS})
        source = sets.get(changes.get("matches"))
        if isinstance(source, Mapping):  # whose matches it takes
            if "matcher" in changes:
                mistakes[f"layers.{name}.matcher: the set takes the matches of another"] = None
            merged = _merged(merged, {k: v for k, v in source.items() if k == "matcher"})
        merged = {key: value for key, value in merged.items() if value is not None}
        try:
            layers[name] = _build_layer(merged, changes, validate)
        except ConfigError as error:
            for line in str(error).splitlines():
                own = re.split(r"\W", line, maxsplit=1)[0] in changes
                mistakes[f"layers.{name}.{line}" if own else line] = None
    if not mistakes:
        try:
            return LayeredLoss(layers)
        except ValueError as error:
            mistakes[f"layers: {error}"] = None
    raise ConfigError("\n".join(mistakes))


def _build_layer(merged: Mapping[str, Any], changes: Mapping[str, Any], validate: bool) -> Layer:
    """One set of predictions; `merged` is the config of its criterion."""
    criterion = _build_criterion(merged, validate, LAYER_OPTIONS)
    options: dict[str, Any] = {key: changes[key] for key in LAYER_OPTIONS if key in changes}
    weight = options.pop("weight", 1.0)
    if isinstance(weight, Mapping):
        if set(weight) != {"start", "end"}:
            raise ConfigError(f"weight: expected a number or {{start: , end: }}, got {weight!r}")
        weight = Schedule(**weight)
    mistakes = option_mistakes(Layer, {"criterion": criterion, **options})
    if mistakes:
        raise ConfigError("\n".join(f"{key}: {text}" for key, text in mistakes.items()))
    try:
        return Layer(criterion, weight=weight, **options)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _merged(base: object, change: object) -> Any:
    """`base` with `change`: mappings key by key, unless they are of different types."""
    if not (isinstance(base, Mapping) and isinstance(change, Mapping)):
        return change
    if change.get("type", base.get("type")) != base.get("type"):
        return change
    merged = dict(base)
    for key, value in change.items():
        merged[key] = _merged(base[key], value) if key in base else value
    return merged


def build_part(section: str, config: Mapping[str, Any]) -> Part:
    """One part of a criterion, or a loss alone.

    Args:
        section: "matcher", "coder", "sampler", "classification", "box", "quality" or "normalizer".
        config: A mapping with "type" and the keyword arguments of that class.

    Raises:
        ConfigError: For any mistake, as `build` reports it.

    Example:
        >>> build_part("box", {"type": "giou"})
        GIoULoss(eps=1e-07, reduction='mean')
    """
    if not isinstance(section, str) or section not in SECTIONS:
        raise ConfigError(
            f"section must be one of {', '.join(SECTIONS)}, got {section!r}"
            f"{nearest(section, SECTIONS)}"
        )
    return _build(SECTIONS[section], config, section)


def _build(registry: Registry, config: object, path: str) -> Part:
    """The part of that registry; `path` says where in the config it stands."""
    cls = _class_of(registry, config, path)
    options = {key: value for key, value in _mapping(config).items() if key != "type"}
    if mistakes := option_mistakes(cls, options):
        raise ConfigError("\n".join(f"{path}.{key}: {text}" for key, text in mistakes.items()))
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:  # options that do not go together
        raise ConfigError(_at_option(path, error, options_of(cls))) from None


def _at_option(path: str, error: Exception, options: Iterable[str]) -> str:
    """What a constructor says, behind the key path of the option that it begins with."""
    name, *rest = re.split(r"[ :]+", str(error), maxsplit=1)
    return f"{path}.{name}: {rest[0]}" if name in options and rest else f"{path}: {error}"


def _class_of(registry: Registry, config: object, path: str) -> type[Part]:
    """The class that a mapping names in "type"."""
    accepted = ", ".join(registry.names())
    if not isinstance(config, Mapping):
        meant = closest(config, registry.names()) if isinstance(config, str) else []
        cure = f"{{type: {[*meant, *registry.names()][0]}}}"
        raise ConfigError(f"{path}: expected a mapping such as {cure}, got {config!r}")
    if "type" not in config:
        near = [key for key in config if closest(key, ["type"])]
        hint = f"; did you mean 'type' where it says {near[0]!r}?" if near else ""
        raise ConfigError(f"{path}.type: missing, accepted: {accepted}{hint}")
    name = config["type"]
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(
            f"{path}.type: unknown {registry.role} {name!r}, accepted: {accepted}"
            f"{nearest(name, registry.names())}"
        )
    return registry[name]


def _mapping(config: object) -> Mapping[str, Any]:
    assert isinstance(config, Mapping)
    return config


def _build_terms(key: str, config: object) -> list[Term]:
    """The terms of one key: a mapping, a list of mappings, or a list beside common options."""
    if isinstance(config, (list, tuple)):
        found, common, path = config, {}, key
    elif isinstance(config, Mapping) and "terms" in config:
        common = {option: value for option, value in config.items() if option != "terms"}
        found, path = config["terms"], f"{key}.terms"
    else:
        return [_build_term(key, config, key)]
    if not isinstance(found, (list, tuple)) or not found:
        raise ConfigError(f"{path}: expected a list of mappings, at least one, got {found!r}")
    terms, mistakes = [], []
    for place, one in enumerate(found):
        try:
            merged = {**common, **one} if isinstance(one, Mapping) else one
            term = _build_term(key, merged, f"{path}[{place}]")
            term.name = term.name or term.loss.type_name
            terms.append(term)
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return terms


def _build_term(key: str, config: object, path: str) -> Term:
    """A term from the options of its loss and its own, which stand side by side."""
    cls = TERMS[key]
    assert issubclass(cls, Term)
    loss = _class_of(cls.losses, config, path)
    loss_options = [name for name in options_of(loss) if name != "reduction"]
    term_options = [name for name in options_of(cls) if name != "loss"]
    of_loss, of_term, mistakes = {}, {}, {}
    for name, value in _mapping(config).items():
        if name in term_options:
            of_term[name] = value
        elif name in loss_options:
            of_loss[name] = value
        elif name == "reduction":
            mistakes[name] = (
                "in a criterion the normalizer decides what a sum is divided by, leave it out"
            )
        elif name != "type":
            accepted = [*loss_options, *term_options]
            mistakes[name] = (
                f"unknown option, {loss.type_name} accepts {', '.join(accepted)}"
                f"{nearest(name, accepted)}"
            )
    lines = [f"{path}.{name}: {text}" for name, text in mistakes.items()]
    lines += [f"{path}.{name}: {text}" for name, text in option_mistakes(loss, of_loss).items()]
    built: dict[str, Any] = {}
    for name, value in of_term.items():
        try:
            built[name] = _term_option(name, value, f"{path}.{name}")
        except ConfigError as error:
            lines += str(error).splitlines()
    wrong = option_mistakes(cls, built)
    lines += [f"{path}.{name}: {text}" for name, text in wrong.items() if name != "loss"]
    if not lines:
        try:
            return cls(cast(Loss, loss(**of_loss)), **built)
        except (TypeError, ValueError) as error:  # options that do not go together
            lines = [_at_option(path, error, [*loss_options, *term_options])]
    raise ConfigError("\n".join(lines))


def _term_option(name: str, value: object, path: str) -> object:
    """What the constructor of a term takes for an option of a config."""
    if name in QUALITY_OPTIONS and value is not None:
        nothing = QUALITY_OPTIONS[name]
        if value == nothing:
            return None if nothing == "none" else nothing
        if not isinstance(value, Mapping):
            if value not in QUALITIES.names():
                accepted = [nothing, *QUALITIES.names()]
                raise ConfigError(
                    f"{path}: unknown quality {value!r}, accepted: {', '.join(accepted)}"
                    f"{nearest(value, accepted)}"
                )
            value = {"type": value}
        return _build(QUALITIES, value, path)
    if name == "normalizer" and value is not None:
        return _build(NORMALIZERS, value, path)
    return value
