"""What every normalizer is, and how the ranks of a distributed run agree on what they count."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, distributed

from detloss.registry import NonNegative, Part
from detloss.tensors import has_float64, widen

Per = Literal["batch", "image", "images", "level"]
Floor = NonNegative | Literal["none", "images", "background"]
Plus = Literal[0, 1, "images"]


class TermRows(Protocol):
    """What a normalizer may count of one term, in a batch of B images with A anchors each.

    Everything but `ground_truths` is (B, A), a number for each anchor, so that it can be summed
    over the batch, each image or each pyramid level.
    """

    @property
    def images(self) -> int:
        """B."""

    @property
    def level_sizes(self) -> Sequence[int]:
        """Anchors of each pyramid level; raises ValueError where the caller gave none."""

    @property
    def positive(self) -> Tensor:
        """Whether each anchor is positive, after sampling."""

    @property
    def counted(self) -> Tensor:
        """Whether each anchor counts: not ignored, and sampled."""

    @property
    def ground_truths(self) -> Tensor:
        """(B,) boxes to learn in each image, ignore regions left out."""

    @property
    def pairs(self) -> Tensor:
        """How many ground truths each anchor is assigned to."""

    @property
    def rows(self) -> Tensor:
        """How many rows of the term each anchor is."""

    @property
    def columns(self) -> int:
        """Values in a row of the term's predictions."""

    @property
    def target_scores(self) -> Tensor:
        """Label of each positive in the classification term, times its ground truth's weight."""

    @property
    def row_weights(self) -> Tensor:
        """Product of the factors of each anchor's row."""


class Normalizer(Part):
    """Says what the sum of a term over the rows of a batch is divided by.

    It is two functions: what this rank counts, and the divisor from the sums over all ranks.
    Between them all normalizers of a criterion share one ``all_reduce``, see `divisors`.

    With DistributedDataParallel each rank has a loss of its own and the gradients are averaged. A
    normalizer with ``sync`` counts over all ranks and divides by their number, so that W ranks with
    B images each learn what one process with W B images learns. Every rank must then call the
    criterion equally often. In evaluation mode no rank is asked.
    """

    per: Per = "batch"
    sync: bool = False
    of_term: ClassVar[bool] = False
    """Whether the count depends on the term, so that terms of a batch cannot share it."""
    has_memory: ClassVar[bool] = False
    """Whether a call changes it, so that it is asked once a call."""
    needs_factors: ClassVar[bool] = False
    """Whether the rows of the term must have factors."""
    needs_number: ClassVar[bool] = False
    """Whether it divides by nothing but the ``normalizer=`` of the criterion's call."""

    @abstractmethod
    def local(self, rows: TermRows) -> Tensor:
        """(K,) what this rank counts; the ranks' are added."""
        raise NotImplementedError

    @abstractmethod
    def divisor(self, total: Tensor, rows: TermRows, ranks: int) -> Tensor:
        """The divisor from the sum of `local` over that many ranks.

        Returns:
            () for the whole batch, (B,) for `per` "image", (L,) for `per` "level". The loss is the
            sum of the quotients.
        """
        raise NotImplementedError

    def forward(self, rows: TermRows) -> Tensor:
        """The divisor of one term alone."""
        return divisors([(self, rows)])[0]


class CountNormalizer(Normalizer):
    """A normalizer that counts something of the rows; a subclass says what, in `count`.

    The order is: count, sum over the ranks, divide by their number, `plus`, `floor`, and over the
    images for `per` "image".

    Args:
        per: "batch" counts all images together; "image" divides each image's sum by its own count
            and takes the mean over the images; "images" sums ``max(count, floor)`` of each image;
            "level" divides each pyramid level's sum by its own count.
        floor: Least divisor, >= 0; "images" for the number of images, "background" for that of
            background anchors where the count is 0, "none" for no floor, where a term whose count
            is 0 is 0.
        plus: What is added to the count: 0, 1, or "images" for the number of images.
        times_images: Whether the loss is multiplied by the number of images.
        sync: Whether the batch is that of all ranks, see `Normalizer`.
        floor_after_ranks: With `sync`, whether `plus` and `floor` apply to the mean of the ranks,
            as much other code has it; otherwise to their sum, as one process would apply them.

    Raises:
        ValueError: For `per` "level" of what has no levels, `floor` "images" with `per` "images",
            or `floor` "background" with another `per` than "batch".
    """

    has_levels: ClassVar[bool] = True
    """Whether `count` is of each anchor, so that each pyramid level has a count."""

    def __init__(
        self,
        *,
        per: Per = "batch",
        floor: Floor = 1,
        plus: Plus = 0,
        times_images: bool = False,
        sync: bool = False,
        floor_after_ranks: bool = False,
    ) -> None:
        super().__init__()
        if per == "level" and not self.has_levels:
            raise ValueError(
                f"per must be 'batch', 'image' or 'images', since {self.type_name} have no levels, "
                "got 'level'"
            )
        if per == "images" and floor == "images":
            raise ValueError("floor must be a number or 'none' with per 'images', got 'images'")
        if floor == "background" and per != "batch":
            raise ValueError(f"floor 'background' needs per 'batch', got {per!r}")
        self.per = per
        self.floor = floor
        self.plus = plus
        self.times_images = times_images
        self.sync = sync
        self.floor_after_ranks = floor_after_ranks

    @abstractmethod
    def count(self, rows: TermRows) -> Tensor:
        """(B, A) what each anchor counts; (B,) what each image counts, without `has_levels`."""
        raise NotImplementedError

    def local(self, rows: TermRows) -> Tensor:
        """See `Normalizer.local`: the count or those of the levels, and the number of images.

        Between them is that of background anchors, if it is the floor.
        """
        if self.per == "level":
            levels = torch.split(widen(self.count(rows)), list(rows.level_sizes), 1)
            counted = torch.stack([level.sum() for level in levels])
        else:
            of_image = self._of_image(rows)
            if self.per == "images" and isinstance(self.floor, (int, float)):
                of_image = of_image.clamp(min=self.floor)
            counted = of_image.sum()[None]
        counted = _floating(counted)
        if self.floor == "background":
            background = (rows.counted & ~rows.positive).sum()[None]
            counted = torch.cat([counted, background.to(counted.dtype)])
        return torch.cat([counted, counted.new_full((1,), rows.images)])

    def divisor(self, total: Tensor, rows: TermRows, ranks: int) -> Tensor:
        """See `Normalizer.divisor`."""
        images = total[-1]
        if self.per == "image":
            count, share = _floating(self._of_image(rows)), 1.0
        else:
            count = total[:-1] / ranks
            share = 1.0 if self.floor_after_ranks else 1 / ranks
        # Gradients are averaged over the ranks. A count over all ranks is divided by their number
        # (above); the count of one image is this rank's alone and is not.
        added = images if self.per == "image" and not self.floor_after_ranks else images / ranks
        if self.plus:
            count = count + (added if self.plus == "images" else share)
        if self.floor == "images":
            count = torch.maximum(count, added)
        elif self.floor == "background":
            count = torch.where(count[:1] > 0, count[:1], count[1:])
        elif isinstance(self.floor, (int, float)) and self.per != "images":
            count = count.clamp(min=self.floor * share)
        if self.per == "image":
            count = count * (images / ranks)
        if self.times_images:
            count = count / images
        return count if self.per in ("image", "level") else count[0]

    def _of_image(self, rows: TermRows) -> Tensor:
        """(B,) what each image counts."""
        count = self.count(rows)
        return widen(count).sum(1) if self.has_levels else count


def divisors(normalizers: Sequence[tuple[Normalizer, TermRows]]) -> list[Tensor]:
    """The divisor of each normalizer for the rows beside it; all ranks agree in one ``all_reduce``.

    Where no normalizer asks for `Normalizer.sync`, or there is one rank, nothing is exchanged.
    """
    counts = [normalizer.local(rows) for normalizer, rows in normalizers]
    world = _world_size()
    ranks = [
        world if normalizer.sync and normalizer.training else 1 for normalizer, _ in normalizers
    ]
    shared = [index for index, together in enumerate(ranks) if together > 1]
    if any(len(counts[index]) for index in shared):
        summed = torch.cat([_sent(counts[index]) for index in shared])
        distributed.all_reduce(summed)
        totals = torch.split(summed, [len(counts[index]) for index in shared])
        for index, total in zip(shared, totals, strict=True):
            counts[index] = total.to(counts[index].dtype).to(counts[index].device)
    return [
        normalizer.divisor(total, rows, together)
        for (normalizer, rows), total, together in zip(normalizers, counts, ranks, strict=True)
    ]


def _world_size() -> int:
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


def _sent(count: Tensor) -> Tensor:
    """`count` as ranks send it: in float64, since its type depends on the targets of this rank.

    From a device without float64 it goes through the CPU, which is also where gloo sends from.
    """
    return count.double() if has_float64(count.device) else count.cpu().double()


def _floating(count: Tensor) -> Tensor:
    """`count` in float32, or in float64 where it is."""
    return count if count.dtype == torch.float64 else count.float()
