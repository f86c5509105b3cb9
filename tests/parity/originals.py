"""How each original is said in a criterion's words: one entry a detector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from .chance import EQUALLY_NEAR, NOT_ALIGNED, Chance
from .golden import Golden

Made = Callable[[Mapping[str, Tensor]], Tensor]
"""Makes a prediction of the file's, by their names without "pred_"."""


@dataclass(frozen=True)
class Original:
    """What of a golden file goes where.

    Attributes:
        config: Name of the shipped config.
        predictions: Name of the criterion's prediction -> the file's, without its "pred_", or what
            makes it of them. That of a set of predictions is called "set/name".
        terms: Name of the criterion's term -> the file's loss, without its "loss_". What several
            terms belong to is their sum.
        anchors: Makes the anchors of the file.
        sets: Set of predictions -> what the names of its matches begin with in the file.
        call: Makes further arguments of the criterion's call.
        of_an_image: Whether the file's terms, not its total, are the criterion's over the images.
        beside: What the file has among its losses that is none.
        factors: The file's loss -> by what it is multiplied in the total.
        shown: Key paths of options of the config that only this original has; the row shows them
            with their values.
        convention: Key path -> value: what is changed in the config, which follows the paper, for
            an original that does not; the row shows it.
        sampled: Whether the file's matches are those before a sampler leaves some background out.
        chance: What the original leaves to the order in which a sort finds equal values, so that
            anchors may be matched otherwise.
        given: Whether the criterion is given the original's matches, since ties are what the file
            is about: which of several equal overlaps is largest is a matter of rounding.
    """

    config: str
    predictions: Mapping[str, str | Made]
    terms: dict[str, str]
    anchors: Callable[[Golden], Tensor]
    sets: Mapping[str, str] = field(default_factory=dict)
    call: Callable[[Golden], dict[str, Any]] = lambda golden: {}
    of_an_image: bool = False
    beside: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    convention: dict[str, Any] = field(default_factory=dict)
    sampled: bool = False
    chance: Chance | None = None
    given: bool = False

    def made(self) -> dict[str, Made]:
        """Name of the criterion's prediction -> what makes it of the file's."""
        return {
            name: itemgetter(source) if isinstance(source, str) else source
            for name, source in self.predictions.items()
        }


def of_maps(place: int | slice) -> Made:
    """Those columns of the maps "p0", "p1", ..., a level each: (B, anchor, row, column, K)."""

    def made(read: Mapping[str, Tensor]) -> Tensor:
        maps = [read[f"p{level}"] for level in range(len(read))]
        return torch.cat([one.permute(0, 2, 3, 1, 4).flatten(1, 3) for one in maps], 1)[..., place]

    return made


def columns(name: str, which: Sequence[int] | slice) -> Made:
    """Those columns of a prediction, in that order."""
    return lambda read: read[name][..., which]


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

TV_RPN = Original(
    "rpn",
    {"objectness": "objectness", "box_regression": "pred_bbox_deltas"},
    {"objectness": "objectness", "box": "rpn_box_reg"},
    Golden.anchors,
)

TV_SSD = Original(
    "ssd",
    {
        "class_logits": lambda read: read["cls_logits"].roll(
            -1, -1
        ),  # background comes first there
        "box_regression": "bbox_regression",
    },
    TV_RETINANET.terms,
    Golden.anchors,
    sampled=True,
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

# ultralytics

UL_PREDICTIONS = {"class_logits": "scores", "box_regression": "boxes"}
UL_HEADS = {"one_to_many": "one2many_", "one_to_one": "one2one_"}
UL_TERMS = {"classification": "cls", "box/ciou": "box", "box/distribution_focal": "dfl"}
YOLOV8 = Original(
    "yolov8",
    UL_PREDICTIONS,
    UL_TERMS,
    Golden.points,
    shown=("matcher.min_side",),
    chance=NOT_ALIGNED,
)
YOLO11_L1 = replace(
    YOLOV8,
    config="yolo11_l1",
    terms={"classification": "cls", "box/ciou": "box", "box/l1": "l1"},
    call=lambda golden: {"image_size": golden["image_size"]},
)
YOLOV9 = replace(YOLOV8, config="yolov9", shown=(), of_an_image=True)
YOLOV6 = Original(
    "yolov6",
    {"class_logits": "cls_logits", "box_regression": "reg"},
    {"classification": "cls", "box/giou": "iou", "box/distribution_focal": "dfl"},
    Golden.points,
)
PPYOLOE = replace(
    YOLOV6, config="ppyoloe", predictions={"class_logits": "cls", "box_regression": "reg"}
)


YOLOX = Original(
    "yolox",
    {"class_logits": "cls", "objectness": "obj", "box_regression": "reg"},
    {"classification": "cls", "objectness": "obj", "box": "iou"},
    Golden.points,
)
YOLOX_L1 = {"classification": "cls", "objectness": "obj", "box/iou": "iou", "box/l1": "l1"}
MM_YOLOX = Original(
    "yolox_mmdet",
    MM_PREDICTIONS | {"objectness": "objectnesses"},
    MM_TERMS | {"objectness": "obj"},
    Golden.cells,
)
YOLOV3 = Original(
    "yolov3",
    {
        "box_regression": columns("pred_maps", slice(4)),
        "objectness": columns("pred_maps", slice(4, 5)),
        "class_logits": columns("pred_maps", slice(5, None)),
    },
    {"classification": "cls", "objectness": "conf", "box/centre": "xy", "box/size": "wh"},
    Golden.anchors,
)
YOLOV5 = Original(
    "yolov5",
    {
        "box_regression": of_maps(slice(4)),
        "objectness": of_maps(4),
        "class_logits": of_maps(slice(5, None)),
    },
    {"classification": "cls", "objectness": "obj", "box": "box"},
    Golden.cell_anchors,
    of_an_image=True,
)
CENTERNET = Original(
    "centernet",
    {
        "class_probabilities": "center_heatmap_preds",
        "box_regression": lambda read: torch.cat([read["offset_preds"], read["wh_preds"]], -1),
    },
    {"classification": "center_heatmap", "box/offset": "offset", "box/size": "wh"},
    Golden.grid_cells,
)
TOOD = Original(
    "tood",
    {"class_probabilities": "cls_scores", "box_regression": "bbox_preds"},
    MM_TERMS,
    Golden.points,
)
NANODET = Original(
    "nanodet_plus",
    {"class_logits": "cls", "box_regression": "reg"},
    {"classification": "qfl", "box/giou": "bbox", "box/distribution_focal": "dfl"},
    Golden.points,
)


def of_sets(
    config: str,
    original: Original,
    sets: Mapping[str, str],
    matches: Mapping[str, str] | None = None,
    terms: Mapping[str, str] | None = None,
    **call: Any,
) -> Original:
    """The same for several sets of predictions.

    Args:
        config: Name of the config.
        original: What each set is like.
        sets: Set -> what the names of its predictions begin with.
        matches: Set -> what the names of its matches begin with, if anything else.
        terms: Set -> what the names of its losses begin with; "" by default.
        **call: Further arguments of the criterion's call.
    """
    return replace(
        original,
        config=config,
        predictions={
            f"{name}/{ours}": f"{prefix}{theirs}"
            for name, prefix in sets.items()
            for ours, theirs in original.predictions.items()
        },
        terms={
            f"{name}/{ours}": (terms or {}).get(name, "") + theirs
            for name in sets
            for ours, theirs in original.terms.items()
        },
        sets=sets if matches is None else matches,
        shown=(),
        call=lambda golden: {**original.call(golden), **call},
    )


ORIGINALS: Mapping[tuple[str, str], Original] = {
    ("torchvision", "tv_retinanet"): TV_RETINANET,
    ("torchvision", "tv_retinanet_giou"): replace(TV_RETINANET, config="retinanet_giou"),
    ("torchvision", "tv_fcos"): TV_FCOS,
    ("torchvision", "tv_ssd"): TV_SSD,
    ("torchvision", "tv_rpn"): TV_RPN,
    ("torchvision", "tv_rpn_sampled"): replace(TV_RPN, given=True),
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
    ("ultralytics", "yolov8"): YOLOV8,
    ("ultralytics", "yolo11_l1"): YOLO11_L1,
    ("ultralytics", "yolo26_e2e"): of_sets("yolo26", YOLO11_L1, UL_HEADS, progress=0.0),
    ("ultralytics", "yolov10_e2e"): of_sets("yolov10_e2e", YOLOV8, UL_HEADS, progress=0.0),
    ("ultralytics", "yolov10_legacy"): of_sets("yolov10", YOLOV8, UL_HEADS),
    ("WongKinYiu", "yolov9"): YOLOV9,
    ("WongKinYiu", "yolov9_dual"): of_sets(
        "yolov9_dual",
        YOLOV9,
        {"auxiliary": "aux_", "main": ""},
        {"auxiliary": "aux_", "main": "main_"},
    ),
    ("meituan", "yolov6"): YOLOV6,
    ("meituan", "yolov6s"): replace(
        YOLOV6, config="yolov6s", terms={"classification": "cls", "box": "iou"}
    ),
    ("meituan", "yolov6n"): replace(
        YOLOV6, config="yolov6n", terms={"classification": "cls", "box": "iou"}
    ),
    ("meituan", "yolov6_atss"): replace(YOLOV6, config="yolov6_atss"),
    ("ultralytics", "yolov5"): YOLOV5,
    ("ultralytics", "yolov5_focal_smooth"): replace(YOLOV5, config="yolov5_focal"),
    ("Megvii-BaseDetection", "yolox"): YOLOX,
    ("Megvii-BaseDetection", "yolox_l1"): replace(YOLOX, config="yolox_l1", terms=YOLOX_L1),
    ("mmdet", "yolox"): MM_YOLOX,
    ("mmdet", "yolox_l1"): replace(
        MM_YOLOX, config="yolox_mmdet_l1", terms=YOLOX_L1 | {"box/iou": "bbox"}
    ),
    ("mmdet", "fsaf"): Original(
        "fsaf", MM_PREDICTIONS, MM_TERMS, Golden.anchors, beside=("num_pos", "pos_recall")
    ),
    ("mmdet", "foveabox"): Original("foveabox", MM_PREDICTIONS, MM_TERMS, Golden.points),
    ("mmdet", "paa"): Original(
        "paa",
        MM_PREDICTIONS | {"iou_score": "iou_preds"},
        MM_TERMS | {"iou_score": "iou"},
        Golden.anchors,
    ),
    ("mmdet", "vfnet"): Original(
        "vfnet",
        MM_PREDICTIONS | {"refined": "bbox_preds_refine"},
        {"classification": "cls", "box/giou": "bbox", "box/refined": "bbox_rf"},
        Golden.points,
        convention={"matcher.convention": "mmdet"},
    ),
    ("mmdet", "centernet"): CENTERNET,
    ("mmdet", "yolov3"): YOLOV3,
    ("mmdet", "rtmdet"): Original("rtmdet", MM_PREDICTIONS, MM_TERMS, Golden.points),
    ("mmdet", "ssd"): Original("ssd_mmdet", MM_PREDICTIONS, MM_TERMS, Golden.anchors, sampled=True),
    ("mmdet", "tood"): TOOD,
    ("mmdet", "yolof"): Original(
        "yolof",
        MM_PREDICTIONS,
        MM_TERMS,
        Golden.anchors,
        chance=EQUALLY_NEAR,
    ),
    ("mmdet", "tood_initial"): replace(
        TOOD, config="tood_initial", convention={"matcher.convention": "mmdet"}
    ),
    ("effdet", "effdet"): Original(
        "efficientdet",
        {"class_logits": "class_out", "box_regression": columns("box_out", [1, 0, 3, 2])},
        {"classification": "class", "box": "box"},
        Golden.anchors,
        factors={"box": 50},
    ),
    ("RangiLyu", "nanodet_plus"): NANODET,
    ("RangiLyu", "nanodet_plus_aux"): of_sets(
        "nanodet_plus_aux",
        NANODET,
        {"auxiliary": "aux_", "main": ""},
        {"auxiliary": "", "main": ""},
        {"auxiliary": "aux_", "main": ""},
    ),
    ("Deci-AI", "ppyoloe"): PPYOLOE,
    ("Deci-AI", "ppyoloe_focal"): replace(PPYOLOE, config="ppyoloe_focal"),
    ("Deci-AI", "ppyoloe_atss"): replace(PPYOLOE, config="yolov6_atss"),
}
"""Project and name -> what of its files goes where."""
