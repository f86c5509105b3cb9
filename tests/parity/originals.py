"""How each original is said in a criterion's words: one entry a detector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from .golden import Golden


@dataclass(frozen=True)
class Original:
    """What of a golden file goes where.

    Attributes:
        config: Name of the shipped config.
        predictions: Name of the criterion's prediction -> the file's, without its "pred_".
        terms: Name of the criterion's term -> the file's loss, without its "loss_". What several
            terms belong to is their sum.
        anchors: Makes the anchors of the file.
        shown: Key paths of options of the config that only this original has; the row shows them
            with their values.
        convention: Key path -> value: what is changed in the config, which follows the paper, for
            an original that does not; the row shows it.
        given: Whether the criterion is given the original's matches, since ties are what the file
            is about: which of several equal overlaps is largest is a matter of rounding.
    """

    config: str
    predictions: dict[str, str]
    terms: dict[str, str]
    anchors: Callable[[Golden], Tensor]
    shown: tuple[str, ...] = ()
    convention: dict[str, Any] = field(default_factory=dict)
    given: bool = False


# torchvision

TV_RETINANET = Original(
    "retinanet",
    {"class_logits": "cls_logits", "box_regression": "bbox_regression"},
    {"classification": "classification", "box": "bbox_regression"},
    Golden.anchors,
    shown=("normalizer.type",),
)
TV_FCOS = Original(
    "fcos",
    TV_RETINANET.predictions | {"centerness": "bbox_ctrness"},
    TV_RETINANET.terms | {"centerness": "bbox_ctrness"},
    Golden.points,
    convention={"matcher.convention": "torchvision"},
)

# mmdetection

MM_PREDICTIONS = {"class_logits": "cls_scores", "box_regression": "bbox_preds"}
MM_TERMS = {"classification": "cls", "box": "bbox"}
MM_RETINANET = Original(
    "retinanet_mmdet",
    MM_PREDICTIONS,
    MM_TERMS,
    Golden.anchors,
    shown=("normalizer.per",),
)
MM_FCOS = Original(
    "fcos_mmdet",
    MM_PREDICTIONS | {"centerness": "centernesses"},
    MM_TERMS | {"centerness": "centerness"},
    Golden.points,
    shown=("box.weigh_by.type", "box.normalizer.floor"),
)

ORIGINALS: Mapping[tuple[str, str], Original] = {
    ("torchvision", "tv_retinanet"): TV_RETINANET,
    ("torchvision", "tv_retinanet_giou"): replace(TV_RETINANET, config="retinanet_giou"),
    ("torchvision", "tv_fcos"): TV_FCOS,
    ("mmdet", "retinanet_l1"): MM_RETINANET,
    ("mmdet", "retinanet_giou"): replace(MM_RETINANET, config="retinanet_mmdet_giou"),
    ("mmdet", "retinanet_ties"): replace(MM_RETINANET, given=True),
    ("mmdet", "fcos"): MM_FCOS,
    ("mmdet", "fcos_center"): replace(MM_FCOS, config="fcos_mmdet_center"),
    ("mmdet", "atss"): replace(
        MM_FCOS,
        config="atss",
        anchors=Golden.anchors,
        shown=("normalizer.per",),
        convention={"matcher.convention": "mmdet"},
    ),
    ("mmdet", "gfl"): Original(
        "gfl",
        MM_PREDICTIONS,
        {"classification": "cls", "box/giou": "bbox", "box/distribution_focal": "dfl"},
        Golden.points,
        shown=("normalizer.per", "coder.margin"),
        convention={"matcher.convention": "mmdet"},
    ),
}
"""Project and name -> what of its files goes where."""
