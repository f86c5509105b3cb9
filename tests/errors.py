"""The errors that a user is most likely to read, with their cures: the cases of docs/errors.md.

    python -m tests.errors

writes the page from the cases below; test_errors.py runs them and holds the page to them.
"""

import contextlib
import re
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

import detloss
from detloss import registry

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"

INTRODUCTION = """\
# Errors

The errors that one reads most often: what was written, the message, what to do, and the same lines
mended. In a message `...` stands for names that `detloss list` prints. `python -m tests.errors`
writes this page from cases that the tests run.

The lines of a config replace those of the same keys here:

```yaml
{base}
```

The lines of Python follow these:

```python
{before}
```
"""

BASE = """\
matcher: {type: max_iou}
classification: {type: sigmoid_focal}
box: {type: giou}"""

BEFORE = """\
import torch

import detloss
from detloss.boxes import convert_boxes, grid_anchors

criterion = detloss.load_config("retinanet")
anchors, level_sizes = grid_anchors([(8, 8), (4, 4)], [8, 16], scales=[4.0])  # 80 anchors
logits, deltas = torch.zeros(1, 80, 3), torch.zeros(1, 80, 4)
predictions = {"class_logits": logits, "box_regression": deltas}
boxes, labels = torch.tensor([[2.0, 1, 30, 33]]), torch.tensor([2])
target = {"boxes": boxes, "labels": labels}"""

# A case is its title, the lines that are wrong, the cure in a sentence or two, and the same lines
# mended.

CONFIGS = """
## A name that there is not
bbox: {type: giou}
classification: {type: sigmod_focal}
--
Write the name of the hint, or another that is listed; `detloss list` prints all of them with their
options. A config's mistakes are listed all at once.
--
box: {type: giou}
classification: {type: sigmoid_focal}

## An option that there is not
box: {type: giou, loss_weight: 2.0}
--
Write one of those listed: first come the loss's own, then those of every term. A term's factor is
called `weight`.
--
box: {type: giou, weight: 2.0}

## A value out of range
classification: {type: sigmoid_focal, alpha: 25}
--
Give a value in the range of the message. A list has one value for each class.
--
classification: {type: sigmoid_focal, alpha: 0.25}

## A reduction in a criterion
box: {type: giou, reduction: mean}
--
Leave it out. What the sum of a term is divided by is the `normalizer`: the positives of the batch
unless the config says something else.
--
box: {type: giou}
normalizer: {type: positives}

## A box loss that does not go with the coder
box: {type: distribution_focal}
--
A loss on bins needs a coder with bins, and a head that predicts them. A loss on deltas needs a
coder with deltas; a loss on boxes goes with every coder.
--
coder: {type: distribution, bins: 16}
box: {type: distribution_focal}

## A score that the matcher does not give
classification: {type: sigmoid_cross_entropy, label: score}
--
`score` is a measure of the matcher's own, which not every matcher has. Take a matcher that has one,
or another quality, such as `iou`.
--
classification: {type: sigmoid_cross_entropy, label: iou}
"""

CALLS = """
## A prediction that is missing
criterion({"logits": logits, "deltas": deltas}, [target], anchors=anchors)
--
Pass each prediction under the name that the message asks for: which they are depends on the terms
of the config. Predictions that no term reads may be there, too.
--
criterion({"class_logits": logits, "box_regression": deltas}, [target], anchors=anchors)

## Too few columns
criterion = detloss.load_config("gfl")
criterion(predictions, [target], anchors=anchors, level_sizes=level_sizes)
--
The coder says how many columns "box_regression" has, 4 or 4 x bins: give the head
`criterion.coder.width` of them for each anchor, or set the coder's `bins` to what the head has.
--
criterion = detloss.load_config("gfl")
predictions["box_regression"] = torch.zeros(1, 80, criterion.coder.width)
criterion(predictions, [target], anchors=anchors, level_sizes=level_sizes)

## Anchors that are not those of the predictions
criterion(predictions, [target], anchors=anchors[:64])
--
The predictions are for as many anchors as the message asks for. Make anchors for the feature maps
of this very batch, in the order in which the head joins the levels.
--
criterion(predictions, [target], anchors=anchors)

## The sizes of the pyramid levels
criterion = detloss.load_config("atss")
predictions["centerness"] = torch.zeros(1, 80)
criterion(predictions, [target], anchors=anchors)
--
Pass `level_sizes`, the number of anchors of each level: `grid_anchors` and `grid_points` return
them beside the anchors.
--
criterion = detloss.load_config("atss")
predictions["centerness"] = torch.zeros(1, 80)
criterion(predictions, [target], anchors=anchors, level_sizes=level_sizes)

## Labels of an image without objects
target = {"boxes": torch.zeros(0, 4), "labels": torch.tensor([])}
criterion(predictions, [target], anchors=anchors)
--
PyTorch makes floats of an empty list, so say the type. Boxes of a list that may be empty need
`.reshape(-1, 4)`.
--
target = {"boxes": torch.zeros(0, 4), "labels": torch.tensor([], dtype=torch.long)}
criterion(predictions, [target], anchors=anchors)

## Boxes of whole numbers
target["boxes"] = torch.tensor([[2, 1, 30, 33]])
criterion(predictions, [target], anchors=anchors)
--
Coordinates are continuous. Make the tensor one of floats, `.float()`.
--
target["boxes"] = torch.tensor([[2, 1, 30, 33]]).float()
criterion(predictions, [target], anchors=anchors)

## A list or an array in place of a tensor
target["labels"] = [2]
criterion(predictions, [target], anchors=anchors)
--
Make it a tensor, on the device of the predictions. `torch.as_tensor` takes lists and arrays.
--
target["labels"] = torch.as_tensor([2])
criterion(predictions, [target], anchors=anchors)

## A key of a target, nearly
target["weight"] = torch.tensor([2.0])
criterion(predictions, [target], anchors=anchors)
--
Write the key of the hint. What is read is "boxes", "labels", "ignore", "weights" and "class_mask",
and other keys, such as an image's number, are left alone.
--
target["weights"] = torch.tensor([2.0])
criterion(predictions, [target], anchors=anchors)

## Debug validation: boxes of another format
criterion = detloss.load_config("retinanet", validate=True)
target["boxes"] = torch.tensor([[40.0, 30, 20, 16]])
criterion(predictions, [target], anchors=anchors)
--
Boxes are (x1, y1, x2, y2); `convert_boxes` makes them of `xywh`, which COCO has, or of `cxcywh`.
A few inverted boxes among many are bad annotations, which `sanitize_targets` drops.
--
criterion = detloss.load_config("retinanet", validate=True)
target["boxes"] = convert_boxes(torch.tensor([[40.0, 30, 20, 16]]), "xywh", "xyxy")
criterion(predictions, [target], anchors=anchors)

## Debug validation: fractions of the image
criterion = detloss.load_config("retinanet", validate=True)
target["boxes"] = torch.tensor([[0.125, 0.25, 0.5, 0.75]])
criterion(predictions, [target], anchors=anchors)
--
Boxes and anchors have one unit. Convert the boxes, with the size of the image as the network sees
it.
--
criterion = detloss.load_config("retinanet", validate=True)
fractions = torch.tensor([[0.125, 0.25, 0.5, 0.75]])
target["boxes"] = convert_boxes(fractions, "xyxyn", "xyxy", image_size=(64, 64))
criterion(predictions, [target], anchors=anchors)

## Debug validation: a label that is no class
criterion = detloss.load_config("retinanet", validate=True)
target["labels"] = torch.tensor([3])
criterion(predictions, [target], anchors=anchors)
--
C columns of logits have the labels 0..C-1, and background needs no label: subtract 1 from labels
that begin at 1. A softmax loss has a column for background, so C classes need C + 1 columns.
--
criterion = detloss.load_config("retinanet", validate=True)
target["labels"] = torch.tensor([3]) - 1
criterion(predictions, [target], anchors=anchors)

## A loss alone: shapes that would broadcast
from detloss.regression import CIoULoss

CIoULoss()(anchors, boxes)
--
A loss compares row with row: pick each prediction's target, or write `expand_as`.
`detloss.boxes.pairwise_overlap` compares all with all.
--
from detloss.regression import CIoULoss

CIoULoss()(anchors, boxes.expand_as(anchors))

## A loss alone: weights of another number of classes
from detloss.classification import SigmoidFocalLoss

SigmoidFocalLoss(class_weight=[1.0, 2.0])(logits[0], torch.zeros(80, dtype=torch.long))
--
Give a weight for each column of the logits, background's too where the loss has a column for it.
--
from detloss.classification import SigmoidFocalLoss

SigmoidFocalLoss(class_weight=[1.0, 2.0, 1.0])(logits[0], torch.zeros(80, dtype=torch.long))

## A torchvision model that decodes with another coder
from torchvision.models.detection import retinanet_resnet50_fpn

from detloss.integrations.torchvision import use_loss

model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
config = criterion.config()
config["coder"]["weights"] = [10.0, 10.0, 5.0, 5.0]
use_loss(model, detloss.build(config))
--
Loss and detection must mean the same by deltas: put the coder of the message into the config.
--
from torchvision.models.detection import retinanet_resnet50_fpn

from detloss.integrations.torchvision import use_loss

model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
config = criterion.config()
config["coder"]["weights"] = [1.0, 1.0, 1.0, 1.0]
use_loss(model, detloss.build(config))
"""


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        title: What is wrong, in a few words.
        language: "yaml" for lines of a config, "python" for lines after `BEFORE`.
        wrong: The lines.
        cure: What to do.
        mended: The lines when that is done.
    """

    title: str
    language: str
    wrong: str
    cure: str
    mended: str

    def message(self) -> str:
        """What Python prints last.

        Raises:
            AssertionError: If nothing is wrong.
        """
        try:
            self.run(self.wrong)
        except (TypeError, ValueError) as error:
            return "".join(traceback.format_exception_only(error)).strip()
        raise AssertionError(f"{self.title}: no error")

    def run(self, lines: str) -> None:
        """Runs lines of Python, or builds the config that these lines are a part of."""
        if self.language == "python":
            exec(f"{BEFORE}\n{lines}", {})
            return
        keys = re.findall(r"^(\w+):", lines, flags=re.MULTILINE)
        rest = [line for line in BASE.splitlines() if line.split(":")[0] not in keys]
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("mine.yaml").write_text("\n".join([lines, *rest]))
            detloss.load_config("mine.yaml")

    def section(self) -> str:
        """Its part of the page."""
        return (
            f"## {self.title}\n\n"
            f"```{self.language}\n{self.wrong}\n```\n\n"
            f"```\n{without_names(self.message())}\n```\n\n"
            f"{self.cure}\n\n"
            f"```{self.language}\n{self.mended}\n```\n"
        )


def cases_of(text: str, language: str) -> list[Case]:
    """The cases that a text lists."""
    entries = [entry.split("\n", 1) for entry in f"\n{text.strip()}".split("\n## ")[1:]]
    parts = [(title, [part.strip() for part in rest.split("\n--\n")]) for title, rest in entries]
    return [Case(title, language, *of_case) for title, of_case in parts]


def without_names(message: str) -> str:
    """`message` with "..." for a list of parts of a kind, to which a new technique may add itself.

    A list stands behind a colon, or at the end of another list, and may be "none".
    """
    found = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    for names in [*(each.names() for each in found), ["none"]]:
        name = f"(?:{'|'.join(names)})"
        listed = rf"(?<=[:,] ){name}(?:, {name})*(?=;|$)"
        message = re.sub(listed, "...", message, flags=re.MULTILINE)
    return message


def page() -> str:
    """The text of docs/errors.md."""
    introduction = INTRODUCTION.format(before=BEFORE, base=BASE)
    return "\n".join([introduction, *(case.section() for case in CASES)])


CASES = [*cases_of(CONFIGS, "yaml"), *cases_of(CALLS, "python")]


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}: {len(CASES)} errors\n")
