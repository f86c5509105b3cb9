"""YAML file or mapping -> DetectorLoss, with errors that say file, key and cure."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from detloss.detector import DetectorLoss
from detloss.registry import SECTIONS, ConfigError, Part, nearest, option_mistakes

DEFAULTS: dict[str, dict[str, Any]] = {
    "coder": {"type": "delta"},
    "sampler": {"type": "all"},
    "normalizer": {"type": "positives"},
}
"""The sections that a config may leave out, and what they then are."""


def load_config(path: str | Path, *, validate: bool = False) -> DetectorLoss:
    """The criterion that a YAML file describes.

    Args:
        path: A file with the keys that `build` takes.
        validate: Debug validation; see `DetectorLoss`.

    Raises:
        ConfigError: For any mistake in the file, naming file, key path, the bad value, what is
            accepted and the nearest name.
        FileNotFoundError: If there is no such file.

    Example:
        >>> criterion = load_config("configs/retinanet.yaml")
        >>> criterion.box
        L1Loss(reduction='mean')
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        config = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    return build(config, source=str(path), validate=validate)


def build(
    config: Mapping[str, Any], *, source: str = "config", validate: bool = False
) -> DetectorLoss:
    """The criterion that a mapping describes.

    Args:
        config: "matcher", "classification" and "box", optionally "coder", "sampler" and
            "normalizer". Each is a mapping with "type", a registered name, and the keyword
            arguments of that class; the two losses also take "weight", a factor >= 0.
        source: What an error calls the config.
        validate: Debug validation; see `DetectorLoss`.

    Raises:
        ConfigError: For any mistake, all of them listed with their key path, the bad value, what
            is accepted and the nearest name.

    Example:
        >>> criterion = build({
        ...     "matcher": {"type": "max_iou", "positive": 0.5, "negative": 0.4},
        ...     "classification": {"type": "sigmoid_focal"},
        ...     "box": {"type": "ciou", "weight": 2.0},
        ... })
        >>> build(criterion.config()).config() == criterion.config()
        True
        >>> build({"matcher": {"type": "max_iou"}, "classification": {"type": "sigmoid_focal"},
        ...        "box": {"type": "cious"}})
        Traceback (most recent call last):
        detloss.registry.ConfigError: config: box.type: unknown box loss 'cious', accepted: \
ciou, diou, giou, iou, l1, l2, smooth_l1; did you mean 'ciou'?
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"{source}: expected a mapping, got {config!r}")
    mistakes = [
        f"{key}: unknown key, accepted: {', '.join(SECTIONS)}{nearest(key, SECTIONS)}"
        for key in config
        if key not in SECTIONS
    ]
    weights: dict[str, float] = {}
    parts: dict[str, Part] = {}
    for section in SECTIONS:
        if section not in config and section not in DEFAULTS:
            mistakes.append(f"{section}: missing, a criterion needs it")
            continue
        options = config.get(section, DEFAULTS.get(section))
        if section in DetectorLoss.term_names and isinstance(options, Mapping):
            options, weights[section], found = _split_term(section, options)
            mistakes += found
        try:
            parts[section] = build_part(section, options)
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    try:
        return DetectorLoss(**parts, weights=weights, validate=validate)  # type: ignore[arg-type]
    except ValueError as error:  # parts that do not go together
        raise ConfigError(f"{source}: {error}") from None


def build_part(section: str, config: Mapping[str, Any]) -> Part:
    """One part of a criterion.

    Args:
        section: "matcher", "coder", "sampler", "classification", "box" or "normalizer".
        config: A mapping with "type" and the keyword arguments of that class.

    Raises:
        ConfigError: For any mistake, as `build` reports it.

    Example:
        >>> build_part("box", {"type": "giou"})
        GIoULoss(eps=1e-07, reduction='mean')
    """
    if section not in SECTIONS:
        raise ConfigError(
            f"section must be one of {', '.join(SECTIONS)}, got {section!r}"
            f"{nearest(section, SECTIONS)}"
        )
    if mistakes := _part_mistakes(section, config):
        raise ConfigError("\n".join(mistakes))
    options = {name: value for name, value in config.items() if name != "type"}
    try:
        return SECTIONS[section][config["type"]](**options)
    except (TypeError, ValueError) as error:  # options that do not go together
        raise ConfigError(f"{section}: {error}") from None


def _part_mistakes(section: str, config: object) -> list[str]:
    """What is wrong with the config of one part, each with its key path."""
    registry = SECTIONS[section]
    accepted = ", ".join(registry.names())
    if not isinstance(config, Mapping):
        cure = f"{{type: {config if config in registry else registry.names()[0]}}}"
        return [f"{section}: expected a mapping such as {cure}, got {config!r}"]
    if "type" not in config:
        return [f"{section}.type: missing, accepted: {accepted}"]
    name = config["type"]
    if name not in registry:
        hint = nearest(name, registry.names())
        return [f"{section}.type: unknown {registry.role} {name!r}, accepted: {accepted}{hint}"]
    options = {key: value for key, value in config.items() if key != "type"}
    mistakes = option_mistakes(registry[name], options)
    return [f"{section}.{key}: {mistake}" for key, mistake in mistakes.items()]


def _split_term(section: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], float, list[str]]:
    """The options of a term's loss, its weight, and what is wrong with the keys beside them."""
    options = dict(config)
    weight = options.pop("weight", 1.0)
    mistakes = []
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        mistakes.append(f"{section}.weight: expected a number, got {weight!r}")
    elif not 0 <= weight < math.inf:
        mistakes.append(f"{section}.weight: expected a finite number >= 0, got {weight!r}")
    if options.pop("reduction", None) is not None:
        mistakes.append(
            f"{section}.reduction: in a criterion the normalizer decides what a sum is divided by, "
            "leave it out"
        )
    return options, weight, mistakes


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-7 is a number, and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
