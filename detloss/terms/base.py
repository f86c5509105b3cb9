"""What every term is: a loss, the rows that it runs over, and what weighs and divides them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from annotated_types import MinLen
from torch import Tensor

from detloss.batch import MatchedBatch
from detloss.kernels import Loss
from detloss.normalizers import Normalizer
from detloss.qualities import Quality
from detloss.registry import NonNegative, Part, Registry
from detloss.terms.rows import Rows

LevelWeights = Annotated[Sequence[NonNegative], MinLen(1)]
Over = Literal["all", "positives"]
TermReduction = Literal["sum", "image"]
TERM_REDUCTIONS = get_args(TermReduction)


class Term(Part):
    """One loss of one prediction.

    A subclass says in which registry its losses are, which prediction it reads and over which
    anchors it runs by default, and computes the sum of its weighted rows.

    Args:
        loss: The loss.
        weight: Factor of the term, >= 0.
        over: The anchors that it runs over, "all" that count or the "positives"; None for the
            term's default.
        weigh_by: A quality that multiplies each row; for a term over positives.
        normalizer: What divides this term, instead of the criterion's.
        level_weights: Factor of each pyramid level, >= 0.
        name: What the term is called behind its key, "box/l1"; None for the key alone.
        reads: Name of its prediction; None for the term's default.

    Raises:
        TypeError: If the loss is of another kind.
        ValueError: If the loss has no gradient, `weigh_by` comes with `over` "all", or the name is
            empty or has a ".".
    """

    losses: ClassVar[Registry]
    """Where its losses are registered."""
    takes: ClassVar[type[Loss]]
    """The base class of its losses."""
    default_reads: ClassVar[str]
    default_over: ClassVar[Over]
    label: Quality | None
    """The label of each positive; None for a label of 1."""

    def __init__(
        self,
        loss: Loss,
        *,
        weight: NonNegative = 1.0,
        over: Over | None = None,
        weigh_by: Quality | None = None,
        normalizer: Normalizer | None = None,
        level_weights: LevelWeights | None = None,
        name: str | None = None,
        reads: str | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.label = None  # not in the class: a module's attribute would never be found behind it
        self.weight = float(weight)
        self.over: Over = self.default_over if over is None else over
        self.weigh_by = weigh_by
        self.normalizer = normalizer
        self.level_weights = None if level_weights is None else list(level_weights)
        self.name = name
        self.reads = self.default_reads if reads is None else reads
        if name is not None and (not name or "." in name):
            raise ValueError(f"name must be a word without '.', got {name!r}")
        if not isinstance(loss, self.takes):
            raise TypeError(
                f"{self.type_name} takes a {self.losses.role}, got {type(loss).__name__}"
            )
        if weigh_by is not None and self.over == "all":
            raise ValueError(
                "weigh_by needs over 'positives', since it is the quality of a positive, got "
                f"weigh_by {weigh_by.type_name!r} with over 'all'"
            )
        self.check_options()

    def check_options(self) -> None:
        """Raises ValueError for options that the term does not go with."""

    @property
    def qualities(self) -> list[Quality]:
        """Its label and what weighs its rows, where they are qualities."""
        return [quality for quality in (self.label, self.weigh_by) if quality is not None]

    @property
    def needs(self) -> frozenset[str]:
        """Predictions that it or a quality looks at, and "score" where one asks the matcher."""
        return frozenset({self.reads, *(name for part in self.qualities for name in part.needs)})

    @property
    def has_factors(self) -> bool:
        """Whether something in its config weighs its rows."""
        return self.weigh_by is not None

    def class_weights(self, batch: MatchedBatch) -> Tensor | None:
        """(B, A) or (P,) the class weight by which the loss multiplies each row; None for all 1.

        Only the classes of a softmax share one loss a row; elsewhere a row has no single weight.
        """
        return None

    def config(self) -> dict[str, Any]:
        """The options of the loss, the weight, and the term's options that are not the default."""
        resolved = self.loss.config()
        del resolved["reduction"]  # the normalizer decides it
        resolved["weight"] = self.weight
        for option, default in self.default_options().items():
            value = getattr(self, option)
            value = value.config() if isinstance(value, Part) else value
            if value != default:
                resolved[option] = value
        return resolved

    def default_options(self) -> dict[str, Any]:
        """The term's own options and their defaults."""
        return {
            "over": self.default_over,
            "weigh_by": None,
            "normalizer": None,
            "level_weights": None,
            "name": None,
            "reads": self.default_reads,
        }

    @abstractmethod
    def columns(self, predictions: Mapping[str, Tensor]) -> int:
        """Values in a row of its prediction."""
        raise NotImplementedError

    @abstractmethod
    def check(self, predictions: Mapping[str, Tensor], width: int) -> None:
        """Raises ValueError unless its prediction has the right shape; `width` is the coder's."""
        raise NotImplementedError

    @abstractmethod
    def compute(
        self, batch: MatchedBatch, rows: Rows, divisor: Tensor, reduction: TermReduction
    ) -> Tensor:
        """The sum of its weighted rows over the divisor, 0-d, or (B,) for "image"."""
        raise NotImplementedError

    def observe(self, batch: MatchedBatch, rows: Rows, divisor: Tensor) -> None:
        """Shows a loss with a memory the rows of `compute`."""
        raise NotImplementedError(
            f"{type(self).__name__} shows no rows to a loss with a memory: write `observe` in it"
        )

    def forward(
        self, batch: MatchedBatch, rows: Rows, divisor: Tensor, reduction: TermReduction = "sum"
    ) -> Tensor:
        """See `compute`."""
        return self.compute(batch, rows, divisor, reduction)

    def weighted(
        self, loss: Tensor, predictions: Mapping[str, Tensor], factor: float = 1.0
    ) -> Tensor:
        """`loss` times the weight; with weight 0 it is 0, and so is its gradient, whatever it was.

        Args:
            loss: What `compute` returns.
            predictions: Of the batch; the term's own one gets the zero gradient.
            factor: A factor of the weight, >= 0.
        """
        if weight := self.weight * factor:
            return loss * weight
        return torch.zeros_like(loss) + predictions[self.reads].flatten()[:0].sum()

    def extra_repr(self) -> str:
        """The config without the loss's options, which the loss prints itself."""
        options = {key: value for key, value in self.config().items() if hasattr(self, key)}
        return ", ".join(f"{key}={value!r}" for key, value in options.items())
