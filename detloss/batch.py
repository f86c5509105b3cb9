"""A matched batch: what every term is computed from, each thing once."""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from detloss.boxes import anchor_strides
from detloss.coders import Coder
from detloss.inputs import Inputs, check_labels
from detloss.matchers import Losses, Matcher, Matches
from detloss.matchers.images import images_of
from detloss.matchers.tiles import largest_of_each_class
from detloss.qualities import HeatQuality, Quality
from detloss.tensors import from_host, sync_is_free, wide_type, widen

S = TypeVar("S")
T = TypeVar("T")


def computed_once(compute: Callable[[S], T]) -> Callable[[S], T]:
    """The getter of a property that is computed when it is first read, and kept.

    `functools.cached_property` holds a lock in Python 3.11, which a compiler cannot trace.
    """
    place = f"_{compute.__name__}_kept"

    @functools.wraps(compute)
    def read(owner: S) -> T:
        if not hasattr(owner, place):
            setattr(owner, place, compute(owner))
        value: T = getattr(owner, place)
        return value

    return read


class MatchedBatch:
    """B images with A anchors each, and the ground truths that their anchors are assigned to.

    The T ground truths of all images are one table; its row T stands for background. A *positive*
    is an anchor with the ground truth that it is assigned to, or each of its pairs where a matcher
    lists pairs (`Matches.pairs`). Where picking the P positives would be a host sync, every anchor
    of the batch stands in the place of a positive, and `is_positive` says which of them are.

    Everything is computed once, when it is first asked for. Predictions and decoded boxes keep
    their gradient even if that is under ``no_grad``, as when a quality asks first.

    Args:
        inputs: The checked batch.
        matches: Of each image.
        coder: What "box_regression" means.
    """

    def __init__(self, inputs: Inputs, matches: Sequence[Matches], coder: Coder) -> None:
        self.inputs = inputs
        self.matches = matches
        self.coder = coder
        self.with_grad = torch.is_grad_enabled()
        self._kept: dict[str, Tensor] = {}

    # The anchors of the batch, (B, A).

    @property
    @computed_once
    def positive(self) -> Tensor:
        """(B, A) bool, the anchors that are assigned to a ground truth."""
        return torch.stack([match.positive for match in self.matches])

    @property
    @computed_once
    def ignored(self) -> Tensor:
        """(B, A) bool, the anchors that do not count."""
        return torch.stack([match.ignored for match in self.matches])

    @property
    @computed_once
    def assigned(self) -> Tensor:
        """(B, A) row of each anchor in the table of ground truths, T for background."""
        of_image = torch.stack([match.target_index for match in self.matches])
        rows = of_image + self._first_truth[:, None]
        return torch.where(self.positive, rows, self._background)

    def labels(self, classes: int) -> Tensor:
        """(B, A) class of each anchor; `classes` is background's."""
        return self._table_of_labels(classes)[self.assigned]

    @property
    @computed_once
    def anchor_weights(self) -> Tensor | None:
        """(B, A) weight of each anchor's ground truth, 1 for background; None for all 1."""
        return None if self._table_of_weights is None else self._table_of_weights[self.assigned]

    def quality_of_anchors(self, quality: Quality) -> Tensor:
        """(B, A) `quality` of each positive anchor, 0 elsewhere."""
        return self.of_anchors(self.quality(quality))

    def of_anchors(self, values: Tensor) -> Tensor:
        """(B, A) the value, at least 0, of each positive anchor, 0 elsewhere, from those (P,)."""
        if self.index is None:
            return torch.where(self.positive, values.view(self.positive.shape), 0)
        if self.has_pairs:  # of an anchor's pairs, the one that `target_index` names
            named = self.truth == self.assigned.flatten()[self.index]
            values = torch.where(named, values, 0)
        of_anchors = values.new_zeros(self.positive.numel())
        return of_anchors.scatter_reduce_(0, self.index, values, "amax").view(self.positive.shape)

    def heat(self, quality: HeatQuality, classes: int | None) -> Tensor:
        """(B, A, C) the largest `quality` of each anchor with a ground truth of each class.

        It is 0 where there is none, and an ignore region is no ground truth.

        Args:
            quality: Of any anchor with any ground truth.
            classes: C; None for ground truths of whatever class, (B, A, 1).
        """
        key = f"heat {quality.config()}, {classes}"
        return self._once(key, lambda: self._heat(quality, classes), with_grad=False)

    def _heat(self, quality: HeatQuality, classes: int | None) -> Tensor:
        targets = self.inputs.targets
        if classes is None:
            labels = torch.zeros_like(self.image_of_truths)
        else:
            labels = self._table_of_labels(classes)[:-1].clamp(0, classes - 1)  # regions have any
        images = images_of(
            self.inputs.anchors,
            [target["boxes"] for target in targets],
            gt_labels=torch.split(labels, [len(target["boxes"]) for target in targets]),
            gt_ignore=[target.get("ignore") for target in targets],
        )
        assert images.labels is not None
        return largest_of_each_class(
            images.anchors, images.truths, images.labels, classes or 1, quality.of_planes
        )

    # The positives, (P,).

    @property
    def has_pairs(self) -> bool:
        """Whether the matcher lists pairs of anchor and ground truth."""
        return any(match.pairs is not None for match in self.matches)

    @property
    @computed_once
    def index(self) -> Tensor | None:
        """(P,) place of each positive among the B * A anchors; None for every anchor in order."""
        if self.has_pairs:
            return self._pairs[:, 0] + self._image_of_pairs * self.positive.shape[1]
        return self.positive.flatten().nonzero().view(-1) if sync_is_free(self.positive) else None

    @property
    @computed_once
    def is_positive(self) -> Tensor | None:
        """(P,) bool, which rows are positives; None where all are."""
        if self.index is None:
            return self.positive.flatten()
        flags = [match.is_pair for match in self.matches]
        if all(flag is None for flag in flags):
            return None
        every = self.positive.new_ones(len(self.index))
        counted = zip(flags, self._pairs_of_images, strict=True)
        return torch.cat([every[: len(of)] if flag is None else flag for flag, of in counted])

    @property
    @computed_once
    def truth(self) -> Tensor:
        """(P,) row of each positive in the table of ground truths."""
        if not self.has_pairs:
            return self.take(self.assigned)
        truth = self._pairs[:, 1] + self._first_truth[self._image_of_pairs]
        if self.is_positive is None:
            return truth
        return torch.where(self.is_positive, truth, self._background)

    def take(self, values: Tensor) -> Tensor:
        """(P, ...) the positives of `values` (B, A, ...)."""
        values = values.flatten(0, 1)
        return values if self.index is None else values.index_select(0, self.index)

    def sum_of_images(self, values: Tensor) -> Tensor:
        """(B,) sums of `values` (P,) of the positives."""
        images, size = self.positive.shape
        if self.index is None:
            return values.view(images, size).sum(1)
        return values.new_zeros(images).index_add(0, self.image, values)

    @property
    @computed_once
    def image(self) -> Tensor:
        """(P,) image of each positive."""
        images, size = self.positive.shape
        index = self.index
        if index is None:
            index = torch.arange(images * size, device=self.positive.device)
        return index // max(size, 1)

    def truth_labels(self, classes: int) -> Tensor:
        """(P,) class of each positive; `classes` for background."""
        return self._table_of_labels(classes)[self.truth]

    @property
    @computed_once
    def truth_weights(self) -> Tensor | None:
        """(P,) weight of each positive's ground truth; None for all 1."""
        return None if self._table_of_weights is None else self._table_of_weights[self.truth]

    @property
    @computed_once
    def truth_boxes(self) -> Tensor:
        """(P, 4) ground-truth boxes; see `detloss.qualities.Positives`."""
        boxes = [target["boxes"] for target in self.inputs.targets]
        return torch.cat([*boxes, self._all_anchors[:1]])[self.truth]  # background: any box

    @property
    @computed_once
    def anchors(self) -> Tensor:
        """(P, 4) anchors of the positives."""
        anchors = self._all_anchors
        if self.index is not None:
            return anchors[self.index % max(len(anchors), 1)]
        return anchors.repeat(len(self.positive) if self.inputs.shared_anchors else 1, 1)

    @property
    @computed_once
    def image_size(self) -> Tensor:
        """(P, 2) height and width of each positive's image.

        Raises:
            ValueError: If the caller gave no image size.
        """
        size = self.inputs.image_size
        if size is None:
            raise ValueError(
                "image_size must be given where a term asks for it, as image_size= of the call or "
                "as 'size' of every target, got None"
            )
        return size[self.image]

    @property
    @computed_once
    def image_sides(self) -> Tensor:
        """(P, 4) width, height, width and height of each positive's image.

        Raises:
            ValueError: If the caller gave no image size.
        """
        return self.image_size.flip(-1).repeat(1, 2)

    def regression(self, name: str) -> Tensor:
        """(P, K) the prediction of that name, with its gradient.

        To take its rows twice would make two gradients of its whole size.
        """
        return self._once(
            f"regression {name}",
            lambda: self.take(self.inputs.predictions[name]),
            with_grad=self.with_grad,
        )

    def decoded(self, name: str) -> Tensor:
        """(P, 4) boxes decoded from the prediction of that name, with their gradient."""
        return self._once(
            f"decoded {name}",
            lambda: self.coder.decode(self.regression(name), self.anchors, *self._strides),
            with_grad=self.with_grad,
        )

    def _once(self, key: str, compute: Callable[[], Tensor], *, with_grad: bool) -> Tensor:
        """What is kept under that key, computed when it is first asked for."""
        if key not in self._kept:
            with torch.set_grad_enabled(with_grad):
                self._kept[key] = compute()
        return self._kept[key]

    @property
    @computed_once
    def encoded(self) -> Tensor:
        """(P, 4) ground-truth boxes as the coder encodes them."""
        return self.coder.encode(self.truth_boxes, self.anchors, *self._strides)

    @property
    @computed_once
    def _strides(self) -> tuple[Tensor, ...]:
        """(P,) strides of the positives' anchors, where the coder asks for them."""
        return tuple(map(self.take, strides_for(self.coder, self.inputs)))

    def quality(self, quality: Quality) -> Tensor:
        """(P,) `quality` of each positive; 0 where there is none."""
        key = f"quality {quality.config()}"
        return self._once(key, lambda: self._quality(quality), with_grad=False)

    def _quality(self, quality: Quality) -> Tensor:
        values: Tensor = quality(self)
        return values if self.is_positive is None else torch.where(self.is_positive, values, 0)

    # The rest of what a quality may look at; see `detloss.qualities.Positives`.

    def pred_boxes(self, name: str) -> Tensor:
        """(P, 4) boxes decoded from the prediction of that name, without their gradient."""
        return self.decoded(name).detach()

    @property
    @computed_once
    def probabilities(self) -> Tensor:
        """(P, C) sigmoids of the class logits."""
        return widen(self.take(self.inputs.predictions["class_logits"].detach())).sigmoid()

    @property
    @computed_once
    def score(self) -> Tensor:
        """(P,) the matcher's own measure.

        Raises:
            ValueError: If the matches of an image have none.
        """
        scores = []
        for image, match in enumerate(self.matches):
            if match.score is None:
                raise ValueError(f"matches[{image}] must have a score, got None")
            scores.append(match.score)
        return self.take(torch.stack(scores))

    # The table of ground truths.

    @property
    @computed_once
    def _background(self) -> int:
        return sum(len(target["boxes"]) for target in self.inputs.targets)

    def _table_of_labels(self, classes: int) -> Tensor:
        """(T + 1,) class of each ground truth; all are 0 where there are no labels.

        Raises:
            ValueError: If a label that is learned is outside 0..C-1; not looked for where that is a
                host sync. It would be background, and its box would be trained.
        """
        labels = self.of_truths("labels", 0, torch.long)
        table = torch.cat([labels, labels.new_full((1,), classes)])
        if sync_is_free(table):
            least, largest = (value.item() for value in table.aminmax())
            if least < 0 or largest > classes or (table[:-1] == classes).any():
                check_labels(self.inputs.targets, classes)
        return table

    @property
    @computed_once
    def _table_of_weights(self) -> Tensor | None:
        """(T + 1,) weight of each ground truth, 1 for background; None for all 1."""
        if not any("weights" in target for target in self.inputs.targets):
            return None
        values = list(self.inputs.predictions.values()) or [self._all_anchors]
        dtype = wide_type(values[0])
        weights = self.of_truths("weights", 1, dtype)
        return torch.cat([weights, weights.new_ones(1)]).detach()

    @property
    @computed_once
    def _all_anchors(self) -> Tensor:
        """(A, 4) where the images share them, else (B * A, 4)."""
        anchors = self.inputs.anchors
        return anchors[0] if self.inputs.shared_anchors else torch.cat(list(anchors))

    @property
    @computed_once
    def _pairs(self) -> Tensor:
        """(P, 2) the pairs of all images, as each has them."""
        return torch.cat(self._pairs_of_images)

    @property
    def _pairs_of_images(self) -> list[Tensor]:
        """The pairs of each image."""
        found = []
        for image, match in enumerate(self.matches):
            if match.pairs is None:
                raise ValueError(f"matches[{image}] must have pairs like the others, got None")
            found.append(match.pairs)
        return found

    @property
    @computed_once
    def _image_of_pairs(self) -> Tensor:
        """(P,) image of each pair."""
        return _image_of([len(pairs) for pairs in self._pairs_of_images], self.positive)

    @property
    @computed_once
    def image_of_truths(self) -> Tensor:
        """(T,) image of each ground truth."""
        return _image_of([len(target["boxes"]) for target in self.inputs.targets], self.positive)

    @property
    @computed_once
    def _first_truth(self) -> Tensor:
        """(B,) row of each image's first ground truth in the table."""
        firsts = [0]
        for target in self.inputs.targets[:-1]:
            firsts.append(firsts[-1] + len(target["boxes"]))
        return from_host(firsts, self.positive)

    def of_truths(self, key: str, default: float, dtype: torch.dtype) -> Tensor:
        """(T,) an entry of the targets; `default` for each box of an image that has no such entry.

        It is one launch, not one an image.
        """
        targets, like = self.inputs.targets, self._all_anchors
        without = sum(len(target["boxes"]) for target in targets if key not in target)
        values = like.new_full((without,), default, dtype=dtype)
        found = [target.get(key, values[: len(target["boxes"])]) for target in targets]
        return torch.cat(found).to(dtype)


def _image_of(counts: Sequence[int], like: Tensor) -> Tensor:
    """The image of each of so many entries an image, on the device of `like`."""
    ends = [0]
    for count in counts:
        ends.append(ends[-1] + count)
    place = torch.arange(ends[-1], device=like.device)
    return torch.bucketize(place, from_host(ends[1:], like), right=True)


def strides_for(coder: Coder, inputs: Inputs) -> tuple[Tensor, ...]:
    """What the coder takes beside anchors: their strides (B, A), or nothing.

    Raises:
        ValueError: If it takes strides and the caller gave no level sizes, or too many.
    """
    if coder.strides is None:
        return ()
    like = inputs.anchors[0]
    sizes, dtype = inputs.levels(), wide_type(like)
    strides = anchor_strides(sizes, coder.strides, device=like.device, dtype=dtype)
    return (strides.expand(inputs.images, -1),)


def match_images(
    matcher: Matcher, inputs: Inputs, coder: Coder, losses: Losses | None = None
) -> list[Matches]:
    """What the matcher says of each image; boxes are decoded only where it looks at them.

    Raises:
        ValueError: If `inputs` have not what the matcher needs.
    """
    needs, predictions, targets = matcher.needs, inputs.predictions, inputs.targets
    if "level_sizes" in needs and inputs.level_sizes is None:
        raise ValueError(f"matcher {matcher.type_name} needs level_sizes, got None")
    if needs & {"class_logits", "pred_boxes", "objectness", "losses"} and not predictions:
        raise ValueError(f"matcher {matcher.type_name} needs predictions, got None")
    labels = boxes = objectness = None
    if all("labels" in target for target in targets):
        labels = [target["labels"] for target in targets]
    if "pred_boxes" in needs:
        anchors = torch.stack(list(inputs.anchors))
        strides = strides_for(coder, inputs)
        boxes = coder.decode(predictions["box_regression"], anchors, *strides)
    if "objectness" in needs:
        objectness = predictions["objectness"].flatten(1)
    return matcher.batch(
        inputs.anchors,
        [target["boxes"] for target in targets],
        gt_labels=labels,
        gt_ignore=[target.get("ignore") for target in targets],
        level_sizes=inputs.level_sizes,
        class_logits=predictions["class_logits"] if "class_logits" in needs else None,
        pred_boxes=boxes,
        objectness=objectness,
        losses=losses if "losses" in needs else None,
    )
