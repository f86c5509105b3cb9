"""A golden file: what an original loss was fed, and what it returned."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detloss.boxes import grid_anchors, grid_points
from detloss.matchers import Matches

FILE_NAME = re.compile(r"(?P<name>.+)_seed(?P<seed>\d+)\.npz")


@dataclass(frozen=True)
class Golden:
    """The arrays of one file, named as the README of the golden files says.

    Attributes:
        name: What the original is called.
        seed: Of its random inputs.
        source: Where the original is from, with its version.
        arrays: Name -> tensor; float64 where the file has it, as the losses are.
    """

    name: str
    seed: int
    source: str
    arrays: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "Golden":
        """The file, whole.

        Raises:
            ValueError: If it is not a golden file: its name, its meta, an array of another kind.
            OSError: If it cannot be opened.
        """
        matched = FILE_NAME.fullmatch(path.name)
        if matched is None:
            raise ValueError(f"the file must be called NAME_seedN.npz, got {path.name!r}")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
        if "meta" not in values:
            raise ValueError("the file must have an entry 'meta', got none")
        meta: dict[str, Any] = json.loads(str(values.pop("meta")))
        if "source" not in meta:
            raise ValueError("meta must have a 'source', got none")
        arrays = {name: torch.from_numpy(np.asarray(value)) for name, value in values.items()}
        return cls(matched["name"], int(matched["seed"]), meta["source"], arrays)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.arrays:
            raise ValueError(f"the file must have an array {name!r}, got none")
        return self.arrays[name]

    @property
    def project(self) -> str:
        """The first word of its source, such as "mmdet"; two projects may use one name."""
        return re.split(r"[\s/]", self.source, maxsplit=1)[0]

    @property
    def images(self) -> int:
        """B."""
        return sum(name.startswith("gt_boxes_") for name in self.arrays)

    def starting_with(self, prefix: str) -> dict[str, Tensor]:
        """The arrays of that prefix, by what follows it."""
        found = {name: value for name, value in self.arrays.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): value for name, value in found.items()}

    def losses(self) -> dict[str, Tensor]:
        """What the original returned, by name, and their "total"."""
        return {name: loss for name, loss in self.starting_with("loss_").items() if not loss.ndim}

    def targets(self) -> list[dict[str, Tensor]]:
        """The ground truths of each image."""
        return [
            {"boxes": self[f"gt_boxes_{image}"], "labels": self[f"gt_labels_{image}"]}
            for image in range(self.images)
        ]

    def level_sizes(self) -> list[int]:
        """Anchors of each pyramid level."""
        if "level_sizes" not in self.arrays:
            of_cell = self["anchors_px"].shape[1] if "anchors_px" in self.arrays else 1
            return [int(height * width) * of_cell for height, width in self["level_shapes"]]
        return [int(size) for size in self["level_sizes"]]

    def strides(self) -> Tensor:
        """(A,) stride of each anchor, from one an anchor or one a level."""
        if "point_strides" in self.arrays:
            return self["point_strides"]
        strides = self["strides"].float()
        sizes = self["level_sizes"]
        return strides if len(strides) == sizes.sum() else strides.repeat_interleave(sizes)

    def anchors(self) -> Tensor:
        """(A, 4) the anchors as they are stored."""
        return self["anchors"]

    def points(self) -> Tensor:
        """(A, 4) the square of its stride's side around each stored point, or anchor's centre."""
        points = "points" if "points" in self.arrays else "points_px"
        if points in self.arrays:
            centre = self[points]
        else:
            centre = (self["anchors"][:, :2] + self["anchors"][:, 2:]) / 2
        half = self.strides()[:, None] / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def cells(self) -> Tensor:
        """(A, 4) the square of its stride's side whose top left corner is a stored point."""
        side = self.strides()[:, None]
        return torch.cat([self["points"], self["points"] + side], dim=-1)

    def grid_cells(self) -> Tensor:
        """(A, 4) the cells of each level's map."""
        strides = [int(level[0]) for level in self.strides().split(self.level_sizes())]
        return grid_points(self["level_shapes"].tolist(), strides)[0]

    def cell_anchors(self) -> Tensor:
        """(A, 4) the sizes of each level around the centres of its cells."""
        shapes, strides, sizes = (
            self[name].tolist() for name in ("level_shapes", "strides", "anchors_px")
        )
        return grid_anchors(shapes, strides, sizes=sizes, offset=0.5)[0]

    def matched(self, prefix: str = "") -> list[Tensor]:
        """For each image (A,) the ground truth of each anchor, -1 background, -2 ignored.

        Args:
            prefix: What the names of the arrays begin with, before "match_".
        """
        if "indices_0" in self.arrays:
            return list(self._last_of_rows())
        if "match_final_0" in self.arrays:  # after a first choice
            prefix = "match_final_"
            return [self[f"{prefix}{image}"].long() for image in range(self.images)]
        matched = [self[f"{prefix}match_{image}"].long() for image in range(self.images)]
        if "positive_final" not in self.arrays:
            return matched
        return [torch.where(*of, -1) for of in zip(self["positive_final"], matched, strict=True)]

    def _last_of_rows(self) -> Tensor:
        """(B, A) the ground truth that an anchor has last in the rows of a level, -1 for none."""
        sizes = self.level_sizes()
        matched = torch.full((self.images, sum(sizes)), -1)
        for level, (height, width) in enumerate(self["level_shapes"].tolist()):
            of_cell = sizes[level] // (height * width)
            image, anchor, row, column = self[f"indices_{level}"].long().unbind(1)
            place = sum(sizes[:level]) + (row * width + column) * of_cell + anchor
            truths = self[f"truth_{level}"].long()
            for some in zip(image, place, truths, strict=True):
                matched[some[:2]] = some[2]
        return matched

    def matches(self, prefix: str = "") -> list[Matches]:
        """What `matched` says, as a criterion takes it; with the sample that the file records.

        Args:
            prefix: What the names of the arrays begin with.
        """
        recorded = self.starting_with("sampled_")
        recorded.pop("total", None)
        labels = self.arrays.get(f"{prefix}target_scores")
        matches = []
        for image, index in enumerate(self.matched(prefix)):
            counts = index != -2
            if recorded:
                counts &= recorded[str(image)] >= 0
            positive = (index >= 0) & counts
            score = None if labels is None else torch.where(positive, labels[image].amax(-1), 0)
            target_index = torch.where(positive, index, 0)
            matches.append(Matches(target_index, positive, ~counts, score, sampled=bool(recorded)))
        return matches

    @property
    def has_pairs(self) -> bool:
        """Whether it records pairs of predicted boxes and ground truths beside the matches."""
        return "regression_used_0" in self.arrays

    def with_pairs(self, matches: Sequence[Matches], predicted: Tensor) -> list[Matches]:
        """The matches with the pairs that it records.

        Args:
            matches: Of each image.
            predicted: (B, A, 4) boxes.
        """
        found = []
        for image, match in enumerate(matches):
            used = self[f"regression_used_{image}"]
            of_boxes, of_truths = (
                self[f"regression_{name}_boxes_{image}"][used] for name in ("pred", "gt")
            )
            anchor = _nearest(of_boxes, predicted[image])
            truth = _nearest(of_truths, self[f"gt_boxes_{image}"])
            found.append(replace(match, pairs=torch.stack([anchor, truth], dim=1)))
        return found


def _nearest(some: Tensor, boxes: Tensor) -> Tensor:
    """(P,) the one of `boxes` that each of `some` (P, 4) is, but for rounding."""
    if not len(some):
        return torch.zeros(0, dtype=torch.long)
    return (some[:, None] - boxes).abs().sum(-1).argmin(1)
