"""What a model of another package cannot serve is refused before the first step."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from detloss.classification import ClassificationLoss
from detloss.detector import DetectorLoss
from detloss.parts import needed_predictions


def check_parts(criterion: DetectorLoss, model: str, predictions: Iterable[str]) -> None:
    """Raises unless a model that gives `predictions`, and no number, can serve `criterion`.

    Args:
        criterion: What is to become the loss of a model.
        model: What the model is, for an error message.
        predictions: What it predicts, in the criterion's names.

    Raises:
        TypeError: If it is no DetectorLoss.
        ValueError: If a part needs another prediction, or a number with each call.
    """
    if not isinstance(criterion, DetectorLoss):
        raise TypeError(
            "criterion must be a DetectorLoss, such as detloss.load_config('retinanet'), got "
            f"{type(criterion).__name__}"
        )
    given = list(predictions)
    needs = {
        f"term {name!r}": sorted(term.needs - {"score"}) for name, term in criterion.terms.items()
    }
    needs[f"matcher {criterion.matcher.type_name!r}"] = needed_predictions([], criterion.matcher)
    for part, needed in needs.items():
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(
                f"criterion must need no prediction but those of {model}, "
                f"{' and '.join(map(repr, given))}; its {part} needs "
                f"{' and '.join(map(repr, missing))}"
            )
    for name, term in criterion.terms.items():
        normalizer = term.normalizer or criterion.normalizer
        if normalizer.needs_number:
            raise ValueError(
                "criterion must have a normalizer that needs no number with each call, which "
                f"{model} cannot pass on, got {name}: {normalizer.type_name}"
            )


def check_coder(criterion: DetectorLoss, options: Mapping[str, Any]) -> None:
    """Raises ValueError unless the coder of the criterion has these options."""
    config = criterion.coder.config()
    if any(config.get(name) != value for name, value in options.items()):
        expected = yaml.safe_dump(dict(options), default_flow_style=True, sort_keys=False).strip()
        raise ValueError(
            f"criterion must have the coder that the model decodes with, {expected}, got {config}"
        )


def check_background(criterion: DetectorLoss, *, column: bool) -> None:
    """Raises ValueError for a loss of classes that differs in a column for background."""
    for name, term in criterion.terms.items():
        loss = term.loss
        if isinstance(loss, ClassificationLoss) and bool(loss.background_columns) != column:
            raise ValueError(
                f"criterion must have a classification loss {'with' if column else 'without'} a "
                f"background column, got {name}: {loss.type_name}"
            )


def check_levels(criterion: DetectorLoss, levels: int) -> None:
    """Raises ValueError for a term with weights of another number of pyramid levels."""
    for name, term in criterion.terms.items():
        if term.level_weights is not None and len(term.level_weights) != levels:
            raise ValueError(
                f"criterion must have {levels} level_weights, one for each pyramid level of the "
                f"model, got {name}: {term.level_weights}"
            )
