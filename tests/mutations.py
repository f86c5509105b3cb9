"""Plants the bugs that other loss code had, one at a time, and shows that the tests catch each.

    python -m tests.mutations --only matcher --jobs 2

A bug is planted in a copy of the source, never in the working tree. The exit status is 0 only if
every bug is caught; a bug whose place in the source is gone stops the program before the first.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

ROOT = Path(__file__).parents[1]
COPIED = ("detloss", "tests", "configs", "pyproject.toml")

# --- Bugs -----------------------------------------------------------------------------------------

BUGS = """
boxes/overlaps.py
    boxes/test_overlaps.py boxes/test_golden.py

R36 pairwise overlap: transposed
- widen(a)[:, None], widen(b)[None]
+ widen(a)[None], widen(b)[:, None]

R36 paired overlap: broadcasts
- check_same_shape("a", a, "b", b)
+ pass

R5 overlaps: half types not widened
- return _measure(kind)(Lengths(widen(a), widen(b)))
+ return _measure(kind)(Lengths(a, b))

boxes/lengths.py
    boxes/test_lengths.py boxes/test_overlaps.py boxes/test_golden.py

R14 IoU: over the sum of the areas
- product(self.sides) + product(self.target_sides) - shared
+ product(self.sides) + product(self.target_sides)

R14 intersection: sides not clamped
- return torch.maximum(sides, sides.new_zeros(()))
+ return sides

R27 lengths: an inverted box is not empty
- return (begin, torch.maximum(begin, end)), begin - end
+ return (begin, end), begin - end

R27 inverted boxes: what turns them is in the value
- return inverted - inverted.detach()
+ return inverted

R27 inverted boxes: nothing turns them
- return inverted - inverted.detach()
+ return inverted.detach() - inverted.detach()

R26 sides: inclusive pixels, a side is one longer
- self.sides = self._ends[1] - self._ends[0]
+ self.sides = self._ends[1] - self._ends[0] + 1

R28 lengths: the hull is not lengthened with a short side
- return sides + self._lengthened
+ return sides

boxes/lengths.py
    regression/test_finite.py::test_every_kind_of_box_against_every_kind kernels/test_dispatch.py

R28 IoU: a short side stays as it is
- self.target_sides = self._true_sides + self._lengthened
+ self.target_sides = self._true_sides

R19 hull: one without a gradient
- sides = torch.maximum(end, target_end) - torch.minimum(begin, target_begin)
+ sides = (torch.maximum(end, target_end) - torch.minimum(begin, target_begin)).detach()

boxes/checking.py
    boxes/test_checking.py

R25 checking: boxes that say that they are in another format pass
- if found != box_format:
+ if False:

R60 checking: boxes of five numbers pass
- boxes.shape[-1] != 4:
+ boxes.shape[-1] < 4:

R25 checking: an image without a side passes
- side > 0
+ side >= 0

kernels/cores.py
    kernels/test_cores.py

R14 closed form: pairs beyond equal parts are lost
- self.size = count - (self.number - 1) * self._stride
+ self.size = self._stride

kernels/box_pairs.py
    kernels/test_box_pairs.py regression/test_golden.py
    regression/test_finite.py::test_every_kind_of_box_against_every_kind

R27 closed form: an inverted box is turned the wrong way
- self.target_sides / reach, reach, value=0.5)
+ self.target_sides / reach, reach, value=-0.5)

R14 closed form: IoU over the sum of the areas
- area.add_(target_area).sub_(shared)
+ area.add_(target_area)

R14 closed form: intersection not clamped
- self.shared_sides.clamp_(min=0)
+ pass

R27 closed form: an inverted box is not empty
- torch.maximum(begin[2:], end[2:], out=end[2:])
+ pass

R28 closed form: a short side stays as it is
- self._sides[::3].add_(
+ self._sides[:1].add_(

R28 closed form: the hull is not lengthened with a short side
- self._sides[::3].add_(
+ self._sides[3:].add_(

R34 closed form: the offset is of use only before the gradient
- torch.sign(self.overhang, out=sign)
+ sign = self.overhang.sign_()

R19 closed form: no gradient where boxes touch
- self._meets = self.shared_sides.sign()
+ self._meets = self.shared_sides.sign() - (self.shared_sides == 0).to(self.shared_sides)

regression/giou.py
    regression/test_giou.py regression/test_golden.py

R14 GIoU: intersection in place of union
- empty = (pairs.hull_area - union) / pairs.hull_area
+ empty = (pairs.hull_area - pairs.shared_and_union[0]) / pairs.hull_area

R14 closed form: GIoU with intersection in place of union
- empty = (pairs.hull_area - pairs.union)
+ empty = (pairs.hull_area - pairs.shared_sides.prod(0))

regression/penalties.py
    regression/test_penalties.py regression/test_golden.py

R19 closed form: DIoU with the hull detached
- hull_sides=Product(pairs.hull_sides, value * per_diagonal, -2),
+ hull_sides=None,

regression/ciou.py
    regression/test_ciou.py regression/test_golden.py

R15 CIoU: alpha carries a gradient
- with torch.no_grad():
+ with torch.enable_grad():

R15 CIoU: alpha only above an IoU of 1/2
- return centre_distance(pairs), alpha * v
+ return centre_distance(pairs), alpha * v * (pairs.iou > 0.5)

R1 CIoU: alpha of two equal boxes is 0 / 0
- (1 - pairs.iou + v).clamp(min=TINY)
+ (1 - pairs.iou + v)

R1 CIoU: the height is not raised
- raised = torch.maximum(height, pairs.min_size - width)
+ raised = height

R16 closed form: CIoU without w^2 + h^2
- .div_(squared_length_(sides))
+ .mul_(1)

R16 closed form: CIoU turns the wrong way
- torch.stack([-heights[0], widths[0]], dim=1)
+ torch.stack([heights[0], -widths[0]], dim=1)

R15 closed form: the gradient of CIoU without alpha
- turn = difference.mul_(per_v)
+ turn = difference

R15 closed form: CIoU with v squared
- Product(per_v, squared, scale**2), sides
+ Product(per_v.square(), squared, scale**3), sides

regression/family.py
    regression/test_family.py regression/test_iou.py

R17 IoU loss: 1 - IoU^2 by the name of 1 - IoU
- self.mode, self.power) == (0, 1, "linear", 1)
+ self.mode, self.power) == (0, 1, self.mode, 1)

R1 IoU loss: the logarithm of 0
- return -share.clamp(min=self.eps).log()
+ return -share.log()

R19 family: a gain carries a gradient
- loss = loss * self.gain(pairs).detach()
+ loss = loss * self.gain(pairs)

R27 family: a gain excuses an inverted box
- return torch.where(inverted & (loss < 1), 1, loss)
+ return loss

regression/distribution_focal.py
    regression/test_distribution_focal.py kernels/test_dispatch.py

R34 distribution focal: the closed form of the sum of the sides
- exponential_(gradient).div_(4).scatter_add_(-1, bins, -shares)
+ exponential_(gradient).scatter_add_(-1, bins, -shares)

R31 distribution focal: the last bin has no right neighbour
- target.floor().long().clamp(0, count - 2)
+ target.floor().long()

R31 distribution focal: a distance beyond the last bin
- target = target.clamp(0, count - 1)
+ target = target.clamp(min=0)

regression/smooth_l1.py
    regression/test_smooth_l1.py
    regression/test_finite.py::test_every_kind_of_box_against_every_kind

R32 smooth L1: beta is the delta of Huber
- inner / beta * (distance - inner / 2)
+ inner * (distance - inner / 2)

R32 closed form: beta is a sigma
- torch.div(difference, beta, out=gradient)
+ torch.mul(difference, beta**2, out=gradient)

R32 smooth L1: sigma is not squared
- return 1 / sigma**2
+ return 1 / sigma

R33 smooth L1: divides by a beta of 0
- if beta == 0:
+ if beta < 0:

regression/wise_iou.py
    regression/test_wise_iou.py

R18 Wise-IoU: the running mean is not saved
- self.keep_buffer("running_mean", mean, persistent=True)
+ self.keep_buffer("running_mean", mean, persistent=False)

R18 Wise-IoU: the mean never moves
- return self.version != 1
+ return False

R10 Wise-IoU: the rows of a step count in the next one, too
- noted, self._noted = self._noted, None
+ noted = self._noted

R10 Wise-IoU: of several calls in a step only the last counts
- noted if self._noted is None else self._noted + noted
+ noted

R18 Wise-IoU: the mean of a loss changes with the next step
- {**super().options(), "mean": self.running_mean.clone()}
+ {**super().options(), "mean": self.running_mean}

regression/mpdiou.py
    regression/test_mpdiou.py terms/test_box.py

R26 MPDIoU: what the config says does not count
- return self.image_size is None
+ return True

R26 MPDIoU: divides by the area of the image
- return height**2 + width**2
+ return height * width

boxes/formats.py
    boxes/test_formats.py

R25 formats: cxcywh taken for xywh
- position if source == "xywh" else position - size / 2
+ position

R25 formats: image size taken for (width, height)
- [width, height, width, height]
+ [height, width, height, width]

boxes/grids.py
    boxes/test_grids.py

R25 grids: columns before rows
- torch.meshgrid(y, x, indexing="ij")
+ torch.meshgrid(y, x, indexing="xy")

R25 grids: the ratio is width over height
- torch.stack([1 / root, root], dim=-1)
+ torch.stack([root, 1 / root], dim=-1)

R26 grids: the offset in pixels
- x = (torch.arange(width, dtype=made_in, device=device) + offset) * stride_x
+ x = torch.arange(width, dtype=made_in, device=device) * stride_x + offset

boxes/sanitize.py
    boxes/test_sanitize.py

R31 targets: an infinite box is usable
- finite = boxes.isfinite()
+ finite = (~boxes.isnan())

R1 targets: a box without area is usable
- proper = (boxes[:, 2:] > boxes[:, :2])
+ proper = (boxes[:, 2:] >= boxes[:, :2])

R31 targets: a dropped box leaves its label
- if key in clean:
+ if key == "boxes":

R31 targets: clipped along the wrong axis
- boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
+ boxes[:, 0::2].clamp(0, height), boxes[:, 1::2].clamp(0, width)

tensors.py
    kernels/test_device.py

R41 an accelerator is asked for values
- if not tensor.is_cpu or torch.compiler.is_compiling() or _NO_HOST_SYNC.get():
+ if torch.compiler.is_compiling() or _NO_HOST_SYNC.get():

kernels/blocks.py
    test_contract.py kernels/test_dispatch.py

R2 blocks: weight 0 times NaN
- self.zero = weight == 0
+ self.zero = None

R5 blocks: a float16 gradient saturates
- gradient.copy_(wide)
+ gradient.copy_(wide.clamp(-65504, 65504))

R34 blocks: predictions used up
- pred = scratch.pred[: len(pred)].copy_(pred)
+ pred = pred.to(wide_type(pred))

kernels/blocks.py
    kernels/test_memory.py regression/test_finite.py::test_every_kind_of_box_against_every_kind

R43 blocks: everything in one block
- return -(-pred.numel() // size)
+ return 1

kernels/formula.py
    test_contract.py kernels/test_dispatch.py

R5 formula: half types not widened
- pred = widen(pred)
+ pass

kernels/targets.py
    kernels/test_targets.py

R41 class indices: out of range on a CPU
- if bad.any():
+ if False:

R41 class indices: one beside an ignore_index of -100 passes
- if largest <= last and (least >= 0 or least == ignore_index == -1):
+ if largest <= last and (least >= 0 or least == ignore_index):

R2 class indices: a row of weight 0 is looked at
- bad = target.masked_fill(bad & silent, 0), bad & ~silent
+ bad = target, bad

R45 values per class: booleans pass
- if values.dtype == torch.bool:
+ if False:

R41 values per class: a nan passes
- return (value > 0 if positive else value >= 0) and value <= highest and value < math.inf
+ return not (value < 0 or value > highest)

kernels/autograd.py
    test_contract.py kernels/test_dispatch.py

R2 plain formula: weight 0 times NaN
- pred = _zeroed(pred, zero)
+ pass

R5 autograd: a float16 gradient is rounded before it is scaled
- now = pred.dtype != torch.float16
+ now = True

R10 autograd: a second backward scales again
- gradient, ctx.gradient = ctx.gradient, None
+ gradient = ctx.gradient

R11 autograd: backward does not scale
- gradient.mul_(grad[:, None] if grad.ndim == 1 else grad)
+ pass

kernels/reduction.py
    test_contract.py kernels/test_reduction.py

R12 the mean of nothing is NaN
- return 1 if count == 0 else count
+ return torch.as_tensor(count)

R52 the loss of an image is its mean
- loss.flatten(1).sum(1)
+ loss.flatten(1).mean(1)

kernels/rows.py
    test_contract.py

R11 box losses: a mean over the four coordinates
- count=pred.numel() // 4,
+ count=pred.numel(),

R36 box losses: broadcast
- check_same_shape("pred", pred, "target", target)
+ pass

boxes/planes.py
    boxes/test_planes.py matchers/test_max_iou.py

R14 matcher: IoU over the sum of the areas
- (area_of_planes(a) + area_of_planes(b)).sub_(shared)
+ area_of_planes(a) + area_of_planes(b)

matchers/tiles.py
    matchers/test_tiles.py matchers/test_memory.py

R37 matcher: the matrix of all overlaps
- size = max(min(TILE, MOST_PAIRS // max(self._boxes, 1), self._count), 1)
+ size = max(self._count, 1)

R37 matcher: a tile's boxes by another tile's count
- filled = torch.arange(most[first]) < counts[part, None]
+ filled = torch.arange(most[first]) < counts[first]

R37 matcher: a box that begins within a tile is left out
- start < high[..., None]
+ start < low[..., None]

matchers/max_iou.py
    matchers/test_max_iou.py

R29 matcher: > for >= at the positive threshold
- found.best >= self.positive if
+ found.best > self.positive if

R29 matcher: > for >= at the negative threshold
- found.best >= self.negative
+ found.best > self.negative

R29 matcher: a truth that overlaps nothing claims all it does not overlap
- torch.where(best_of_truth > 0, best_of_truth, torch.inf)
+ best_of_truth

R29 matcher: a threshold of 0 takes anchors that overlap nothing
- found.best >= self.positive if self.positive > 0 else found.best > 0
+ found.best >= self.positive

R29 matcher: an anchor that is the best of several goes to the first
- is_best_of.view(-1).scatter_reduce_(0, anchor, near[row, column], "amax")
+ is_best_of.view(-1).scatter_reduce_(0, anchor, near[row, column], "amin", include_self=False)

R29 matcher: mmdet's rule for every convention
- tiles.new_zeros(dtype=torch.long) if self.convention == "mmdet" else None
+ tiles.new_zeros(dtype=torch.long)

R29 matcher: overlaps tie within 1e-5
- (overlap == best_of_truth[near][..., None]).nonzero()
+ (overlap >= best_of_truth[near][..., None] - 1e-5).nonzero()

R29 matcher: low_quality has no effect
- self.low_quality = low_quality
+ self.low_quality = True

matchers/tiles.py
    matchers/test_tiles.py

R29 heat map: the sum of several objects of a class
- values.flatten(), "amax")
+ values.flatten(), "sum")

R29 heat map: each block has the first labels
- labels[:, None, first : first + values.shape[2]]
+ labels[:, None, : values.shape[2]]

matchers/center_point.py
    matchers/test_center_point.py

R29 center point: of equal objects the last
- truths = images.truths.flip(1) if last else images.truths
+ truths = images.truths.flip(1)

R29 center point: the number of the flipped object
- index = truths.shape[1] - 1 - index
+ pass

matchers/fsaf.py
    matchers/test_fsaf.py

R29 fsaf matcher: a candidate's centre may be outside
- inside & touches, smallness
+ touches, smallness

R29 fsaf matcher: the largest has a common candidate
- -area_of_planes(planes)
+ area_of_planes(planes)

R29 fsaf matcher: a rival of another class
- (labels[own] == labels[pairs.row]) & (own != pairs.row)
+ own != pairs.row

R29 fsaf matcher: a candidate may be in the middle of two of a class
- torch.where(rivals > 0, scene.rows, owner)
+ owner

R29 fsaf matcher: the level of least sum
- mean = (sums / counts).float()
+ mean = sums.float()

R29 fsaf matcher: a level without candidates
- mean = torch.where(counts > 0, mean, torch.inf)
+ mean = torch.where(counts > 0, mean, 0)

R29 fsaf matcher: a loss without a number rules out every level
- .clamp(max=torch.finfo(torch.float32).max)
+ .clamp(max=torch.inf)

boxes/planes.py
    boxes/test_planes.py matchers/test_center_point.py matchers/test_grid.py

R29 center of a cell: its upper edges belong to it
- (x >= cells[0]) & (x < cells[2])
+ (x > cells[0]) & (x <= cells[2])

matchers/tiles.py
    matchers/test_max_iou.py

R29 matcher: of equal overlaps the last truth
- index[chosen] = near.gather(1, which)
+ index[chosen] = near.flip(1).gather(1, measure(*tiles.pairs(chosen, near)).flip(1).max(1).indices)

matchers/regions.py
    matchers/test_regions.py matchers/test_base.py

R4 matcher: a box that is not finite takes part
- return keep_boxes(boxes, area.abs() < torch.inf)
+ return boxes

R47 matcher: the share of the region in the anchor
- iof_of_planes(anchors, regions)
+ iof_of_planes(regions, anchors)

R47 matcher: a region of which an anchor has nothing
- (share >= ignore_overlap) & (share > 0)
+ (share >= ignore_overlap)

R4 matcher: a region that is no number hides the others
- flags & ~boxes.isnan().any(-1)
+ flags

matchers/images.py
    matchers/test_images.py matchers/test_base.py

R47 matcher: a crowd region claims anchors
- truths = keep_boxes(boxes, ~is_region)
+ pass

R54 matcher: in a batch at once all images have the first one's anchors
- torch.stack(list(anchors)).to(dtype)
+ torch.stack([anchors[0]] * len(anchors)).to(dtype)

matchers/tiles.py
    matchers/test_batch.py

R29 matcher: of equal boxes in two blocks the last
- larger = largest > self.largest
+ larger = largest >= self.largest

R29 matcher: a box of the second block by its place there
- torch.where(larger, index + self._boxes, self.index)
+ torch.where(larger, index, self.index)

matchers/max_iou.py
    matchers/test_batch.py

R29 matcher: the best of a ground truth that overlaps nothing, in a batch at once
- _if_any(overlap.amax(2, keepdim=True))
+ overlap.amax(2, keepdim=True)

R29 matcher: only the last block's ground truths have a best anchor
- is_best = of_any if is_best is None else is_best | of_any
+ is_best = of_any

R29 matcher: the best of a ground truth of the second block by its place there
- last = _last(of_block, first)
+ last = _last(of_block, 0)

boxes/padding.py
    boxes/test_padding.py matchers/test_batch.py

R54 matcher: the boxes of an image are those of the one before
- row + (ends - counts)[:, None]
+ row + (ends - counts[0])[:, None]

matchers/base.py
    matchers/test_base.py

R29 matcher: a batch takes the first image's anchors
- anchors[image],
+ anchors[0],

R36 matcher: matches of odd shapes pass
- if values.shape != self.target_index.shape:
+ if False:

matchers/fcos.py
    matchers/test_fcos.py

R29 fcos matcher: a point on the edge is inside
- matched = nearest > 0
+ matched = nearest >= 0

R29 fcos matcher: the ends of a level's range do not belong to it
- (farthest >= low) & (farthest <= high)
+ (farthest > low) & (farthest < high)

R29 fcos matcher: the ends belong to the range in torchvision
- (farthest > low) & (farthest < high)
+ (farthest >= low) & (farthest <= high)

R29 fcos matcher: the first level begins like the others
- low = torch.where(side < SAME_LEVEL * smallest, 0, low)
+ pass

R29 fcos matcher: the last level ends like the others
- high = torch.where(side * SAME_LEVEL > largest, torch.inf, high)
+ pass

R29 fcos matcher: sides are compared to the last bit
- SAME_LEVEL = 1.25
+ SAME_LEVEL = 1 + 1e-9

R29 fcos matcher: the radius is in pixels
- matched &= away < self.radius * side
+ matched &= away < self.radius

R29 fcos matcher: the radius is that of a circle
- away = torch.maximum((x - (x1 + x2) / 2).abs_(), (y - (y1 + y2) / 2).abs_())
+ away = torch.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2)

R29 fcos matcher: the largest ground truth
- area = area_of_planes(truths)
+ area = -area_of_planes(truths)

R29 fcos matcher: no areas tie in torchvision
- area -= LARGEST_AREA
+ area = area.double() - LARGEST_AREA

R4 fcos matcher: a point that is not finite makes a level
- torch.where(side > 0, side, torch.inf).amin(2, keepdim=True)
+ side.amin(2, keepdim=True)

matchers/atss.py
    matchers/test_atss.py

R29 atss matcher: the deviation is that of the population
- correction = min(candidates.shape[2] - 1, 1)
+ correction = 0

R29 atss matcher: the mean alone
- base + deviation
+ base + 0 * deviation

R29 atss matcher: the mean of equal overlaps is rounded
- overlap.double() if has_float64(overlap.device) else overlap - base
+ overlap

R29 atss matcher: the mean of equal overlaps is rounded where there is no float64
- overlap[..., :1]
+ 0.0

R29 atss matcher: > for >= at the threshold
- overlap > threshold if self.convention == "paddle" else overlap >= threshold
+ overlap > threshold

R29 atss matcher: >= for > at the threshold
- overlap > threshold if self.convention == "paddle" else overlap >= threshold
+ overlap >= threshold

R29 atss matcher: a centre on the edge is inside
- (inside > MARGIN[self.convention])
+ (inside >= MARGIN[self.convention])

R29 atss matcher: a truth that overlaps nothing claims its candidates
- positive = best > 0
+ positive = best >= 0

R29 atss matcher: of equal overlaps the last truth
- torch.where(wins, truth, nobody).flatten(1), "amin"
+ torch.where(wins, truth, -1).flatten(1), "amax", include_self=False

R29 atss matcher: a contested anchor of paddle stays among those that select it
- torch.where(count > 1, most_overlapped(boxes, truths, count > 1), index)
+ index

matchers/nearest.py
    matchers/test_nearest.py

R29 atss matcher: levels are one
- counts = [min(count, size) for size in level_sizes]
+ level_sizes, counts = [points.shape[1]], [count]

R29 atss matcher: of equal distances any
- order = torch.where(values == last, place, values.shape[1])
+ order = torch.where(values == last, -place, values.shape[1])

R29 atss matcher: groups of equal distances in any order
- groups = smallest(squared.amin(1), count).sort(1).values
+ groups = smallest(squared.amin(1), count).sort(1, descending=True).values

R29 atss matcher: on an accelerator, of equal distances the last
- torch.where(squared > limit, size, place)
+ torch.where(squared > limit, size, size - 1 - place)

R29 atss matcher: on an accelerator all levels begin at 0
- firsts += [first] * taken
+ firsts += [0] * taken

coders/delta.py
    coders/test_delta.py

R25 coder: weights only when it encodes
- _scaled(widen(regression), [1 / weight for weight in self.weights])
+ widen(regression)

R31 coder: the scale is not bounded
- .clamp(max=MAX_LOG_SCALE).exp()
+ .exp()

R25 coder: the floor of a side is no option
- centre_and_size(boxes, self.min_size)
+ centre_and_size(boxes)

R31 coder: the shift is not bounded
- shift.clamp(-self.max_shift, self.max_shift)
+ shift

coders/base.py
    coders/test_base.py coders/test_delta.py coders/test_yolox.py

R1 coder: the logarithm of a box without area
- (bottom_right - top_left).clamp(min=min_size)
+ bottom_right - top_left

R31 coder: a size is not bounded
- log_size.clamp(max=MAX_LOG_SIZE).exp()
+ log_size.exp()

coders/yolo.py
    coders/test_yolo.py coders/test_base.py

R25 coder: the corner of the anchor in place of the cell's
- return centre - side / 2, side, size
+ return centre - size / 2, side, size

R25 coder: the centre does not leave its cell
- doubled[..., :2] - 0.5
+ doubled[..., :2] / 2

R1 coder: the logit of a centre out of reach
- offset.logit(EPS)
+ offset.logit()

coders/yolox.py
    coders/test_yolox.py coders/test_base.py

R25 coder: the centre of the cell in place of its corner
- centre = widen(anchors)[..., :2] + code[..., :2] * side
+ centre = widen(anchors)[..., :2] + (code[..., :2] + 0.5) * side

coders/tblr.py
    coders/test_tblr.py coders/test_base.py

R25 coder: right before left
- LTRB_TO_TBLR = (1, 3, 0, 2)
+ LTRB_TO_TBLR = (1, 3, 2, 0)

coders/fovea.py
    coders/test_fovea.py coders/test_base.py

R1 coder: the logarithm of a distance below 0
- distances.clamp(1 / self.limit, self.limit).log()
+ distances.log()

coders/boxes.py
    coders/test_boxes.py coders/test_base.py

R25 coder: width and height change places
- torch.cat([size, size], dim=-1)
+ torch.cat([size, size], dim=-1).flip(-1)

coders/ltrb.py
    coders/test_ltrb.py coders/test_base.py

R25 coder: distances in pixels where they are in sides
- (bottom_right - top_left).clamp(min=MIN_SIDE) if normalize else 1.0
+ 1.0

R25 coder: left and top on the other side of the centre
- centre - distances[..., :2] * side
+ centre + distances[..., :2] * side

R1 coder: the distance in sides of an anchor without area
- (bottom_right - top_left).clamp(min=MIN_SIDE)
+ (bottom_right - top_left)

coders/distribution.py
    coders/test_distribution.py coders/test_base.py

R31 coder: a box that is too large for the bins
- distances.clamp(0, self.bins - 1 - self.margin)
+ distances.clamp(min=0)

R25 coder: the bins of a side are not side by side
- torch.unflatten(regression, -1, (4, self.bins))
+ torch.unflatten(regression, -1, (self.bins, 4)).transpose(-2, -1)

R50 coder: the expectation is taken in place, whatever has a graph
- p * bins if p.requires_grad else p.mul_(bins)
+ p.mul_(bins)

samplers/hard_negative.py
    samplers/test_hard_negative.py

R59 sampler: the easiest negatives
- keep_smallest(negative, -class_loss, count)
+ keep_smallest(negative, class_loss, count)

R59 sampler: negatives of an image without positives
- rounded_down(positive.sum(-1, keepdim=True), self.ratio)
+ rounded_down(positive.sum(-1, keepdim=True).clamp(min=1), self.ratio)

R59 sampler: 50 x 1.06 in float32
- return count * whole + count * decimals // UNIT
+ return (count * ratio).long()

R59 sampler: a third of three is none
- math.ceil((ratio - whole) * UNIT)
+ int((ratio - whole) * UNIT)

samplers/base.py
    samplers/test_base.py

R59 sampler: pairs of an anchor that is left out stay
- pairs = pairs[stays]
+ pass

R59 sampler: the score of an anchor that is left out stays
- torch.where(positive, torch.stack(scores), 0).unbind()
+ scores

R59 sampler: images of a batch share what they keep
- (rank < count)
+ (rank.view(-1).view_as(rank).amin(0, keepdim=True) < count)

samplers/random_balanced.py
    samplers/test_random_balanced.py

R59 sampler: more anchors than its size
- self.size - drawn.sum(-1, keepdim=True)
+ self.size

samplers/ohem.py
    samplers/test_ohem.py

R59 sampler: the easiest anchors
- keep_smallest(positive, -class_loss, most)
+ keep_smallest(positive, class_loss, most)

R59 sampler: the hardest anchors beyond its size
- self.size - hard.sum(-1, keepdim=True)
+ self.size

samplers/score.py
    samplers/test_score.py

R59 sampler: a small score is rounded to 0
- (-torch.expm1(-class_loss) <
+ (1 - torch.exp(-class_loss) <

R59 sampler: positives with a small score are left out
- return negative & (
+ return (

normalizers/base.py
    normalizers/test_base.py

R12 normalizer: no positives divide by 0
- count = count.clamp(min=self.floor * share)
+ pass

R9 normalizer: not divided by the ranks
- count = total[:-1] / ranks
+ count = total[:-1]

R9 normalizer: the floor of each rank in place of that of all
- 1.0 if self.floor_after_ranks else 1 / ranks
+ 1.0

R9 normalizer: the floor comes before what is added
- count = count + (added
+ count = count.clamp(min=share) + (added

R9 normalizer: an image's count beside the images of one rank
- added = images if self.per == "image" and not self.floor_after_ranks else images / ranks
+ added = images / ranks

R12 normalizer: an image without positives counts 0
- of_image = of_image.clamp(min=self.floor)
+ pass

R11 normalizer: images are added up, not averaged
- count = count * (images / ranks)
+ pass

R9 normalizer: a batch counts the images of all ranks
- count = count * (images / ranks)
+ count = count * images

R11 normalizer: the loss is not multiplied by the images
- count = count / images
+ pass

R9 normalizer: not summed over the ranks
- distributed.all_reduce(summed)
+ pass

R50 normalizer: validation waits for other ranks
- world if normalizer.sync and normalizer.training else 1 for
+ world if normalizer.sync else 1 for

R9 normalizer: ranks that need not agree ask each other
- world if normalizer.sync and normalizer.training else 1 for
+ world if normalizer.training else 1 for

R9 normalizer: ranks send different types
- return count.double() if has_float64(count.device) else count.cpu().double()
+ return count

R5 normalizer: half precision counts in half precision
- return widen(count).sum(1)
+ return count.sum(1)

normalizers/per_image.py
    normalizers/test_per_image.py normalizers/test_base.py

R11 normalizer: short for another
- super().__init__(per="image", sync=sync)
+ super().__init__(per="images", sync=sync)

R9 normalizer: what is short for another asks no rank
- super().__init__(per="image", sync=sync)
+ super().__init__(per="image")

normalizers/moving_average.py
    normalizers/test_moving_average.py

R18 normalizer: the moving average is not saved
- self.keep_buffer("average", initial, persistent=True)
+ self.keep_buffer("average", initial, persistent=False)

R10 normalizer: a step moves the average twice
- return self.average.clone()
+ return self.average.lerp_(positives.clamp(min=1), 1 - self.momentum).clone()

R50 normalizer: validation moves the average
- if self.training:
+ if True:

R18 normalizer: the average that is divided by changes with the next step
- return self.average.clone()
+ return self.average

buffers.py
    test_buffers.py

R45 a kept buffer takes the type of the model
- if new.dtype != old.dtype:
+ if False:

R45 a kept buffer is whatever memory held after to_empty
- if new is not old and not new.is_meta:
+ if False:

normalizers/ground_truths.py
    normalizers/test_ground_truths.py

R12 normalizer: a ground truth on each level
- has_levels: ClassVar[bool] = False
+ has_levels: ClassVar[bool] = True

normalizers/entries.py
    normalizers/test_entries.py

R22 normalizer: rows in place of entries
- rows.rows * rows.columns
+ rows.rows

qualities/iou.py
    qualities/test_iou.py

R63 quality: an overlap below 0
- return overlap.clamp(min=self.floor)
+ return overlap

qualities/centerness.py
    qualities/test_centerness.py qualities/test_base.py

R63 quality: outside both ways is good
- nearer.clamp(min=0)
+ nearer

R63 quality: the anchor's corner in place of its centre
- centre = (first + last) / 2
+ centre = first

R63 quality: a point divides 0 by 0
- torch.where(farther > 0, farther, 1)
+ farther

R63 quality: the product without its root
- share.prod(-1).sqrt()
+ share.prod(-1)

R5 quality: half precision is computed in half precision
- widen(positives.anchors).chunk
+ positives.anchors.chunk

qualities/gaussian.py
    qualities/test_gaussian.py

R56 heat map: not cut at the radius
- near = real & (away <= radius).all(0)
+ near = real

R56 heat map: the distance to the centre, not to its cell
- div_(side).floor_().abs_()
+ div_(side).sub_(0.5).abs_()

R56 heat map: the radius is a part of a cell
- self._radius(size / side).floor_()
+ self._radius(size / side)

qualities/middle.py
    qualities/test_middle.py

R56 middle: the share of the middle
- iof_of_planes(anchors, middle_of(truths, self.region))
+ iof_of_planes(middle_of(truths, self.region), anchors)

R56 middle: the least share counts
- share > self.least
+ share >= 0

qualities/confidence.py
    qualities/test_confidence.py

R63 quality: the mean of the classes
- probabilities.amax(-1)
+ probabilities.mean(-1)

detector.py
    test_detector.py test_requirements.py terms/test_base.py test_config.py samplers/test_base.py

R53 head: total of the unweighted terms
- total: Tensor | int = sum(terms.values())
+ total: Tensor | int = sum(losses.values())

R53 head: losses for the log keep the graph
- name: loss.detach()
+ name: loss

R13 head: given matches are not sampled
- if all(match.sampled for match in matches):
+ if given is not None or all(match.sampled for match in matches):

R10 head: levels are divided like images
- divides_levels=normalizer.per == "level"
+ divides_levels=False

division.py
    test_division.py test_detector.py

R10 head: a supplied normalizer is not used
- if given is not None:
+ if False:

R10 head: a term has the count of another
- name if normalizer.of_term else None
+ None

division.py
    test_state.py test_layers.py

R10 head: terms that share a moving average move it twice a step
- return (id(normalizer),)
+ return id(normalizer), name

R10 head: a divisor that is given moves the average
- if name not in found:
+ if True:

parts.py
    test_parts.py test_config.py

R53 head: two terms of one name
- if name in named:
+ if False:

R46 head: a matcher asks for what is not there
- if unknown:
+ if False:

R63 head: targets are asked for labels that nothing reads
- return of_classes or "gt_labels" in matcher.needs
+ return True

terms/base.py
    terms/test_base.py test_detector.py

R53 head: weights of terms never applied
- return loss * weight
+ return loss

R53 head: a term of weight 0 keeps its NaN
- return torch.zeros_like(loss) + predictions[self.reads].flatten()[:0].sum()
+ return loss * 0

batch.py
    test_batch.py test_detector.py terms/test_rows.py

R47 heat map: a label of an ignore region is a column
- [:-1].clamp(0, classes - 1)
+ [:-1]

R24 head: background is the last class
- torch.cat([labels, labels.new_full((1,), classes)])
+ torch.cat([labels, labels.new_full((1,), classes - 1)])

R63 head: decoded boxes without a gradient where a quality asks first
- with torch.set_grad_enabled(with_grad):
+ with torch.set_grad_enabled(torch.is_grad_enabled()):

R54 head: the boxes of one image are those of another
- firsts.append(firsts[-1] + len(target["boxes"]))
+ firsts.append(0)

R54 head: the pairs of one image are those of the next
- from_host(ends[1:], like), right=True)
+ from_host(ends[1:], like), right=False)

R63 head: an anchor has the best quality of its pairs
- values = torch.where(named, values, 0)
+ pass

R26 head: a quality of no positive is kept
- torch.where(self.is_positive, values, 0)
+ values

terms/rows.py
    terms/test_rows.py terms/test_base.py test_detector.py test_requirements.py

R11 head: multiplied by the images of the batch
- torch.where(countable, divisor.reciprocal(), 0)
+ torch.where(countable, divisor.reciprocal(), 0) / self.images

R54 head: weights of boxes do not count
- weights = scale if self.factors is None else scale * self.factors
+ weights = scale

R13 head: a count of 0 divides
- countable = divisor >= torch.finfo(divisor.dtype).tiny
+ countable = divisor == divisor

R26 head: background rows are weighed where a host sync is spared
- weights = torch.where(batch.is_positive, weights, 0)
+ pass

R2 head: weight 0 times a quality that is not a number
- torch.where(weights == 0, 0, quality * weights)
+ quality * weights

R53 head: weights of levels are not applied
- if self.term.level_weights is not None:
+ if False:

R10 head: a quality of a row is not in its count
- factors = of_class if factors is None else factors * of_class
+ pass

terms/logits.py
    terms/test_classification.py terms/test_logits.py terms/test_base.py test_detector.py

R24 head: a softmax's background counts as a class
- return self.columns(predictions) - self.loss.background_columns
+ return self.columns(predictions)

R47 head: ignored anchors are taught
- torch.where(batch.ignored, self.loss.ignore_index, labels)
+ labels

R63 head: the label is 1 whatever the quality
- quality = None if self.label is None else batch.quality_of_anchors(self.label)
+ quality = None

R47 head: a heat map is taught in an ignore region
- weight = only_counted(weight, ~batch.ignored)
+ pass

R51 head: the class of an object is ignored at its positives
- far |= self.labels(batch, classes)[..., None] == column
+ pass

R51 head: the class of an object is asked of what is near
- asked = far if asked is None else asked & far
+ pass

R22 head: two classes of a cell count once
- (heat == 1).sum(-1)
+ (heat == 1).any(-1)

R22 head: a centre that is ignored counts
- torch.where(batch.ignored, 0, (heat == 1).sum(-1))
+ (heat == 1).sum(-1)

R51 head: classes that are not labelled are hard negatives
- if weight is None
+ if weight is None and False

terms/classification.py
    terms/test_classification.py test_detector.py

R51 head: classes that are not labelled are taught
- if not any("class_mask" in target for target in targets):
+ if True:

terms/box.py
    terms/test_box.py test_detector.py

R3 head: a loss on boxes gets deltas
- if self.compares == "boxes":
+ if False:

inputs.py
    test_inputs.py terms/test_classification.py

R46 head: a near miss of a key is passed over
- if _plain(key) == _plain(read):
+ if False:

R46 head: tensors of two devices pass
- if values.device != anchors.device:
+ if False:

R2 head: a negative weight of a ground truth passes
- (weights.isfinite() & (weights >= 0))
+ weights.isfinite()

R46 head: matches of other anchors pass
- if len(match.positive) != inputs.anchors_an_image:
+ if False:

R8 head: a probability of 1 has no finite logit
- (1 - p).clamp(min=tiny).log()
+ (1 - p).log()

validation.py
    test_validation.py

R24 validation: label C passes
- (labels >= most)
+ (labels > most)

R24 validation: a negative label passes
- (labels < 0) | (labels >= most)
+ (labels >= most)

R25 validation: a box inverted along one axis passes
- (target["boxes"][:, 2:] < target["boxes"][:, :2]).any(1)
+ (target["boxes"][:, 2:] < target["boxes"][:, :2]).all(1)

R25 validation: fractions among pixels pass
- _check_unit(targets, anchors)
+ pass

R46 validation: a pair of a ground truth that is not there passes
- if beyond.any():
+ if False:

R63 validation: an infinite loss passes
- if not value.isfinite().all():
+ if value.isnan().any():

yaml_file.py
    test_yaml_file.py

R46 config: a key given twice is passed over
- if key in seen:
+ if False:

config.py
    test_config.py

R46 config: an unknown section is passed over
- if key not in accepted
+ if False

R53 config: the options of a term are dropped
- return cls(cast(Loss, loss(**of_loss)), **built)
+ return cls(cast(Loss, loss(**of_loss)))

registry.py
    test_contract.py test_config.py

R46 config: True is 1
- if isinstance(value, bool) and not isinstance(valid, bool):
+ if False:

R46 config: an unknown option is passed over
- mistakes[name] = TypeError(f"unknown option, {cls.type_name} accepts {known}{hint}")
+ pass

classification/base.py
    classification/test_base.py

R45 class weights do not follow their module
- self.keep_buffer(name, values, persistent=False)
+ setattr(self, name, torch.as_tensor(values))

kernels/elementary.py
    kernels/test_elementary.py classification/test_sigmoid_cross_entropy.py

R8 closed form: powers of two in place of e
- math.log2(math.e)
+ 1.0

R8 cross-entropy: the logarithm of p + eps
- torch.nn.functional.softplus(z, threshold=LARGE)
+ -torch.log(1 - torch.sigmoid(z) + 1e-12)

R8 closed form: the exponential of a large logit
- if z.numel() and z.amax().item() < LARGE:
+ if z.numel():

kernels/elementary.py
    classification/test_sigmoid_focal.py classification/test_finite.py

R21 focal loss: a negative fades with 1 - p
- (gamma * (moderate - loss))
+ (gamma * -loss)

R7 focal loss: the gradient of a power at 0
- (gamma * (moderate - loss)).exp()
+ z.sigmoid().pow(gamma)

R21 closed form: a negative fades with 1 - p
- return p.square_()
+ return (1 - p).square_()

R21 closed form: the modulation has no gradient
- torch.addcmul(p, derivative, loss, value=gamma, out=derivative)
+ derivative.copy_(p)

R7 closed form: the modulation of a large loss overflows
- torch.addcmul(p, derivative, loss, value=gamma, out=derivative)
+ derivative.mul_(gamma * loss).add_(p)

kernels/elementary.py
    classification/test_quality.py

R8 label: the cross-entropy as a difference of large numbers
- return softplus(torch.where(above, -x, x)) + of_logit
+ return softplus(x) - label * x

R8 label: its distance from a p near 1
- return torch.where(above, smaller - (1 - label), label - smaller), smaller * (1 - smaller)
+ return label - x.sigmoid(), smaller * (1 - smaller)

classification/quality_focal.py
    classification/test_quality_focal.py classification/test_finite.py
    classification/test_quality.py

R20 quality focal loss: weighed by the label
- size = distance.abs()
+ size = label.abs()

R63 closed form: the modulation has no gradient
- -modulation * distance - by_modulation
+ -modulation * distance

R7 quality focal loss: the gradient of a power where the label is met
- .clamp(min=torch.finfo(x.dtype).tiny)
+ .clamp(min=0)

R7 quality focal loss: infinite times nothing far out
- moderate = x.clamp(-LARGE, LARGE)
+ moderate = x

classification/varifocal.py
    classification/test_varifocal.py test_contract.py

R20 varifocal loss: a positive does not count by its quality
- return quality * cross_entropy(x, quality), -quality
+ return cross_entropy(x, quality), -quality

R20 varifocal loss: a positive without a quality is that of focal loss
- positives_alone=True
+ positives_alone=False

R20 varifocal loss: alpha weighs nothing
- no_weight=alpha,
+ no_weight=1.0,

classification/matchability_aware.py
    classification/test_matchability_aware.py

R20 matchability-aware loss: the label is the quality itself
- label = quality.pow(gamma)
+ label = quality

R20 matchability-aware loss: a hard positive is that of focal loss
- positives_alone=True
+ positives_alone=False

classification/ia_bce.py
    classification/test_ia_bce.py

R20 IA-BCE: the label has a gradient
- log_t = log_t.detach().clamp
+ log_t = log_t.clamp

R20 IA-BCE: no label is too small
- .clamp(min=math.log(LEAST_LABEL))
+ .clamp(min=-1e4)

R8 IA-BCE: a label near 1 as a difference
- t, rest = log_t.exp(), -log_t.expm1()
+ t, rest = log_t.exp(), 1 - log_t.exp()

R7 IA-BCE: 0 times the logarithm of 0
- if alpha < 1:
+ if alpha <= 1:

classification/focal_star.py
    classification/test_focal_star.py

R21 focal star loss: shifted the other way
- near = softplus(gamma * z.clamp(max=far) - beta) / gamma
+ near = softplus(gamma * z.clamp(max=far) + beta) / gamma

R21 closed form: focal star loss is steeper than its gradient
- add_(loss, alpha=1 / gamma)
+ add_(loss)

R7 focal star loss: the steeper logit overflows
- return torch.where(z < far, near, z - beta / gamma)
+ return softplus(gamma * z - beta) / gamma

classification/poly1.py
    classification/test_poly1.py classification/test_poly1_focal.py

R21 Poly-1 loss: the first power is taken off twice
- (share + epsilon) * wrong
+ epsilon * wrong

R8 Poly-1 loss: without its first power as a difference
- if epsilon < 0:
+ if False:

R21 closed form: the gradient of Poly-1 loss
- epsilon * rest - (1 + epsilon)
+ -epsilon * rest - 1

R8 Poly-1 loss: 1 less a p that is all but 1
- torch.where(largest, others, 1 - p)
+ 1 - p

classification/poly1_focal.py
    classification/test_poly1_focal.py

R23 Poly-1 focal loss: alpha weighs focal loss alone
- convention == "polyloss_pytorch":
+ convention in CONVENTIONS:

R23 Poly-1 focal loss: alpha is that of the other answer
- loss, with_derivative = _of_share(1 - of_yes, gamma, epsilon)
+ loss, with_derivative = _of_share(of_yes, gamma, epsilon)

R21 closed form: the gradient of the first power
- (share + epsilon) - epsilon * p
+ (share + epsilon) - 0 * p

classification/asymmetric.py
    classification/test_asymmetric.py classification/test_finite.py

R21 asymmetric loss: one gamma for both answers
- positive=_modulated(gamma_positive, detach)
+ positive=_modulated(gamma_negative, detach)

R8 asymmetric loss: 1 less a p that is all but 1
- loss = -torch.where(above, near_1.log(), torch.log1p(-far))
+ loss = -torch.log1p(-p_m)

R21 closed form: an easy "no" learns something
- .masked_fill_(p_m == 0, 0)
+ .mul_(1)

R63 closed form: the power has no gradient
- if not detach:
+ if False:

classification/logit_adjusted.py
    classification/test_logit_adjusted.py

R21 logit-adjusted loss: the prior is taken off, as at inference
- tau * log_prior(counts, logits)
+ -tau * log_prior(counts, logits)

classification/counts.py
    classification/test_counts.py

R8 effective number: the power as a difference
- -1 / math.expm1(count * log_beta)
+ 1 / (1 - beta**count)

R45 class weights: not scaled to the number of classes
- (len(inverse) / sum(inverse))
+ (1 / sum(inverse))

kernels/elementary.py
    classification/test_varifocal.py classification/test_matchability_aware.py

R20 detached: the modulation keeps its gradient
- if detach or gamma == 0:
+ if gamma == 0:

kernels/elementary.py
    classification/test_finite.py

R7 an infinite logit that is right: 0 times infinity
- return torch.where(factor == 0, 0, factor * values)
+ return factor * values

R7 an infinite logit that is right: the power of gamma 0
- z.clamp(torch.finfo(z.dtype).min, LARGE)
+ z.clamp(max=LARGE)

kernels/softmax.py
    classification/test_logit_adjusted.py classification/test_finite.py

R8 an offset: lost to the last bit of large logits
- return x - x.detach().amax(-1, keepdim=True) + offset
+ return x + offset

classification/gaussian_focal.py
    classification/test_gaussian_focal.py

R21 gaussian focal loss: a heat near 1 is a yes
- is_centre = heat == 1
+ is_centre = heat > 0.999

R21 gaussian focal loss: a no counts by its heat
- torch.where(is_centre, 1, 1 - heat)
+ torch.where(is_centre, 1, heat)

R21 closed form: the modulation of a heat map has no gradient
- factor * (alpha * (1 - p) * loss + p.pow(alpha + 1))
+ factor * p.pow(alpha + 1)

R21 closed form: a centre is pushed away
- torch.where(is_centre, -slope, slope)
+ slope

classification/softmax_focal.py
    classification/test_softmax_focal.py kernels/test_dispatch.py

R21 softmax focal loss: fades with p
- gamma * _log_rest(x, log_p)
+ gamma * log_p

R21 closed form: softmax focal loss fades with p
- modulation = rest.pow(gamma)
+ modulation = (1 - rest).pow(gamma)

R7 closed form: 0 / 0 where p rounds to 1
- ratio.masked_fill_(rest <= 0, 1)
+ pass

R23 softmax focal loss: takes a scalar alpha
- isinstance(alpha, (int, float)) or (isinstance(alpha, Tensor) and alpha.ndim == 0)
+ False

kernels/binary.py
    classification/test_sigmoid_focal.py classification/test_sigmoid_cross_entropy.py
    classification/test_label_smoothing.py classification/test_quality.py test_contract.py
    kernels/test_dispatch.py

R23 alpha: inverted
- yes, no = float(alpha), 1.0 - alpha
+ yes, no = 1.0 - alpha, float(alpha)

R23 alpha: of a class scales both answers
- no = 1 - yes
+ no = yes

R35 ignored rows: count in the mean
- count = (target != ignore_index).sum() * logits.shape[-1]
+ pass

R47 ignored rows: are negatives
- loss = negative(torch.where(is_yes, -x, torch.where(ignored, 0, x)))
+ loss, ignored = negative(torch.where(is_yes, -x, x)), is_yes & False

R47 closed form: ignored rows are negatives
- z.index_fill_(0, ignored.nonzero().view(-1), -math.inf)
+ pass

R63 quality: a "no" of the labelled column is kept
- labelled = technique.label_loss(with_label, label, _like(x, yes), _like(x, no))
+ labelled = technique.label_loss(with_label, None, _like(x, yes), _like(x, no))

R63 closed form: the label of another row
- quality.index_select(0, row),
+ quality[: len(row)],

R63 closed form: the share of "no" of a quality
- for_yes, for_no = yes * q, no * (1 - q)
+ for_yes, for_no = yes * q, no * torch.zeros_like(q)

R63 closed form: an ignored row's quality is read
- says_yes &= index != ignore_index
+ pass

R63 closed form: no gradient of the label
- values.view(-1).index_copy_(0, place, at_labels)
+ values.view(-1).index_copy_(0, place, at_labels) if values is loss else None

R57 soft labels: also count in full as a no
- no * (1 - q) * self.negative(x)
+ no * self.negative(x)

R57 closed form: soft labels also count in full as a no
- for_no = 1 - share if _is_one(no) else no * (1 - share)
+ for_no = torch.ones_like(share) * no

R58 label smoothing: lifts no negative
- target.lerp(_like(x, 0.5), label_smoothing)
+ target * (1 - label_smoothing / 2)

R58 label smoothing: teaches ignored rows
- weight = only_counted(weight, target != ignore_index)
+ pass

kernels/binary.py
    kernels/test_at_once.py

R47 accelerator: ignored rows are negatives
- return x.masked_fill(ignored, -math.inf), column, says_yes
+ return x.clone(), column, says_yes

R47 accelerator: an ignored row says yes to the class of that index
- says_yes &= ~ignored
+ pass

R23 accelerator: alpha weighs the value alone
- by_x = by_x * factor
+ pass

R63 accelerator: the gradient of a "no" of the labelled column is kept
- return with_labels(derivative_of(factor), labelled_gradient[:, None] * at_column)
+ return derivative_of(factor)

kernels/at_once.py
    kernels/test_at_once.py

R2 accelerator: weight 0 times NaN
- if weights.zero is not None:
+ if False:

R11 accelerator: backward does not scale
- factor = _beside_elements(grad)
+ factor = torch.ones_like(_beside_elements(grad))

R10 accelerator: a second backward uses up what the first has
- gradient_of, ctx.gradient_of = ctx.gradient_of, None
+ gradient_of = ctx.gradient_of

R11 accelerator: the scale is in the value alone
- elif weights.factor != 1:
+ elif False:

R34 accelerator: the gradient of the gradient is a constant
- return gradient_with_graph(call, pred, grad), None
+ return gradient_with_graph(call, pred, grad).detach(), None

kernels/at_once.py
    kernels/test_dispatch.py::test_a_float16_gradient_is_infinite_where_it_overflows_and_only_there

R5 accelerator: a float16 gradient saturates
- return gradient.to(pred.dtype)
+ return gradient.clamp(-65504, 65504).to(pred.dtype)

kernels/softmax.py
    kernels/test_at_once.py

R57 accelerator: the true class gets no gradient
- return gradient.scatter_(-1, column, -of_others)
+ return gradient.scatter_(-1, column, 0 * of_others)

kernels/memory.py
    kernels/test_memory.py

R43 the constants of log1p are left on disk
- torch.log1p(_SPECIAL)
+ torch.log1p(_SPECIAL[1:0])

kernels/softmax.py
    classification/test_softmax_cross_entropy.py classification/test_label_smoothing.py
    test_contract.py kernels/test_dispatch.py

R35 class weights: but a mean over the plain count
- count = counted.sum() if scale is None else torch.where(counted, scale[target], 0).sum()
+ count = counted.sum()

R35 ignored rows: are taught class 0
- weight = only_counted(weight, counted)
+ pass

R24 background column: off by one
- target + (target >= background)
+ target + (target > background)

R58 label smoothing: only takes from the true class
- share.lerp(share.mean(-1, keepdim=True), label_smoothing)
+ share * (1 - label_smoothing)

R57 closed form: the logarithm of a probability that is 0
- p.amin().item() > VANISHING
+ p.amin().item() >= 0

R57 closed form: the gradient of soft labels is p
- .add_(weighted)
+ .add_(0)
"""
"""A file of the package with the tests that are to catch its bugs, and then the bugs: the number of
the requirement, what is wrong, the source to replace, which occurs once in the file, and what is
planted there. A closed form is the gradient, worked by hand, of a formula that is there as well.
"""


@dataclass(frozen=True)
class Bug:
    """A paragraph of `BUGS`, with the file and the tests that stand above it."""

    requirement: str
    name: str
    source: str
    planted: str
    file: str
    tests: tuple[str, ...]


def bugs_of(text: str) -> list[Bug]:
    """The bugs of a text such as `BUGS`."""
    bugs, file, tests = [], "", ()
    for paragraph in text.strip().split("\n\n"):
        if bug := re.fullmatch(r"(R\d+) (.+)\n- (.+)\n\+ (.+)", paragraph):
            bugs.append(Bug(*bug.groups(), file, tests))
        elif paragraph.startswith("R"):
            raise ValueError(f"a bug is three lines, none of them empty, got {paragraph!r}")
        else:
            file, *tests = paragraph.split()
            file, tests = f"detloss/{file}", tuple(f"tests/{test}" for test in tests)
    return bugs


# --- Catching them --------------------------------------------------------------------------------


def copy_source(tree: Path) -> None:
    """Makes a folder of what the tests need of the working tree."""
    tree.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a copy of the source, so that it imports the copy."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def first_failure(tree: Path, tests: Sequence[str]) -> str | None:
    """The first of the tests that fails, None where all pass.

    Raises:
        RuntimeError: If they cannot be run.
    """
    done = python(tree, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests)
    if done.returncode == 0:
        return None
    failure = re.search(r"^(?:FAILED|ERROR) tests/(\S+::[^\s\[]+)", done.stdout, re.MULTILINE)
    if failure is None:
        raise RuntimeError(done.stdout + done.stderr)
    return failure[1]


def astray(source: Path, bugs: Sequence[Bug]) -> list[str]:
    """What is wrong with the places of the bugs that have not one place."""
    counts = [(source / bug.file).read_text().count(bug.source) for bug in bugs]
    return [
        f"{bug.name}: {bug.source!r} occurs {count} times in {bug.file}, not once"
        for bug, count in zip(bugs, counts, strict=True)
        if count != 1
    ]


def check(source: Path, bugs: Sequence[Bug]) -> None:
    """Exits unless every bug has its place, Python imports the copy, and the tests pass there."""
    if wrong := astray(source, bugs):
        sys.exit("\n".join(wrong))
    imported = python(source, "-c", "import detloss; print(detloss.__file__)").stdout.strip()
    if imported != str(source / "detloss" / "__init__.py"):
        sys.exit(f"the tests would import {imported!r}, not the copy in {source}")
    if failure := first_failure(source, sorted({test for bug in bugs for test in bug.tests})):
        sys.exit(f"{failure} fails without a bug")


def catcher(source: Path, bug: Bug) -> str | None:
    """The first test that catches a bug planted in a copy of `source`, None where it survives."""
    with TemporaryDirectory() as folder:
        tree = Path(folder) / "planted"
        shutil.copytree(source, tree)
        file = tree / bug.file
        file.write_text(file.read_text().replace(bug.source, bug.planted))
        return first_failure(tree, bug.tests)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plants the bugs and reports; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    only = "bugs with this in their name or file"
    parser.add_argument("--only", default="", metavar="TEXT", help=only)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    bugs = [bug for bug in bugs_of(BUGS) if options.only in f"{bug.file} {bug.name}"]
    if not bugs:
        parser.error(f"no bug has {options.only!r} in its name or file")

    console = Console()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        source = Path(folder).resolve() / "source"
        copy_source(source)
        check(source, bugs)
        found = pool.map(lambda bug: catcher(source, bug), bugs)
        catchers = list(track(found, "bugs", total=len(bugs), console=console, transient=True))

    table = Table("", "bug", "requirement", Column("caught by", overflow="fold"), box=None)
    for number, (bug, test) in enumerate(zip(bugs, catchers, strict=True), 1):
        table.add_row(str(number), bug.name, bug.requirement, test or "[red]nothing")
    console.print(table)
    survivors = catchers.count(None)
    console.print(f"{len(bugs)} bugs, {survivors} survived", highlight=False)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
