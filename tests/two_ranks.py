"""What the processes of a distributed test run: a module that they can import."""

from contextlib import contextmanager
from datetime import timedelta

import torch
from scenes import CLASSES, grid_anchors, random_targets
from term_rows import DIVIDING, OPTIONS, term_rows
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import detloss
from detloss.normalizers import PositivesNormalizer
from detloss.registry import NORMALIZERS

RANKS = 2
STEPS = 3
ANCHORS = grid_anchors()
LEVELS = [40, 24]
COUNTS = {
    "unequal": [[7, 0], [1, 2]],
    "unequal batches, one without objects": [[5, 0, 2], [0]],
    "no objects at all": [[0, 0], [0, 0]],
}
CHOICES = [
    {"per": "image"},
    {"per": "image", "plus": "images"},
    {"per": "image", "floor": "images"},
    {"per": "images"},
    {"per": "level"},
    {"per": "level", "floor": "none"},
    {"plus": 1},
    {"plus": "images"},
    {"floor": 30.0},
    {"floor": "images"},
    {"floor": "none"},
    {"times_images": True},
]
"""How a count may become a divisor."""


def criterion_config(name, **options):
    """Of a normalizer; one of row weights divides a box loss that has such."""
    normalizer = {"type": name, **OPTIONS.get(name, {}), **options}
    box = {"type": "giou", "weigh_by": "centerness"}
    if NORMALIZERS[name].needs_factors:
        return {
            "classification": {"type": "sigmoid_focal"},
            "box": {**box, "normalizer": normalizer},
            "normalizer": {"type": "positives"},
        }
    return {"classification": {"type": "sigmoid_focal"}, "box": box, "normalizer": normalizer}


SEVERAL = {
    "classification": {
        "type": "sigmoid_cross_entropy",
        "label": "iou",
        "normalizer": {"type": "target_scores", "times_images": True},
    },
    "box": [
        {"type": "giou", "weigh_by": "iou", "normalizer": {"type": "row_weights", "plus": 1}},
        {"type": "l1", "normalizer": {"type": "entries", "per": "level"}},
        {"type": "smooth_l1", "normalizer": {"type": "moving_average"}},
    ],
}
"""Terms with normalizers of their own, and a soft label."""
WITH_MEMORY = {
    "classification": {"type": "sigmoid_focal"},
    "box": {"type": "wise_iou", "version": 3, "momentum": 0.5, "sync": True},
}
"""A loss that remembers the rows of all ranks."""
SCENARIOS = {
    **{
        f"{name}, {kind}": {"config": criterion_config(name), "counts": counts}
        for name in DIVIDING
        for kind, counts in COUNTS.items()
    },
    **{
        f"{name} {options}": {
            "config": criterion_config(name, **options),
            "counts": COUNTS["unequal batches, one without objects"],
        }
        for name in ("positives", "row_weights")
        for options in CHOICES
    },
    **{
        f"several normalizers and a label, {kind}": {"config": SEVERAL, "counts": counts}
        for kind, counts in COUNTS.items()
    },
    **{
        f"a loss with a running mean, {kind}": {"config": WITH_MEMORY, "counts": counts}
        for kind, counts in COUNTS.items()
    },
    "weights on one rank, in float64": {
        "config": criterion_config("target_scores"),
        "counts": [[5, 1], [2, 0]],
        "double": True,
    },
}
"""A criterion, the objects of each image of each rank, and whether all is in float64."""


class Head(nn.Module):
    """Features of each anchor -> what a criterion asks for."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(6, CLASSES)
        self.regression = nn.Linear(6, 4)

    def forward(self, features):
        return {"class_logits": self.logits(features), "box_regression": self.regression(features)}


def synced(config, sync):
    """`config` with each normalizer told whether to ask other ranks."""
    if isinstance(config, list):
        return [synced(value, sync) for value in config]
    if not isinstance(config, dict):
        return config
    config = {key: synced(value, sync) for key, value in config.items()}
    if "normalizer" in config:
        config["normalizer"]["sync"] = sync
    return config


def build(config, *, sync):
    config = {"matcher": {"type": "max_iou"}, "normalizer": {"type": "positives"}, **config}
    return detloss.build(synced(config, sync))


def batch(counts, *, double=False):
    """Features and targets of the images of all ranks."""
    torch.manual_seed(0)
    features = torch.randn(sum(map(len, counts)), len(ANCHORS), 6)
    targets = random_targets([count for part in counts for count in part])
    for image, target in enumerate(targets):
        if not double or image < len(counts[0]):
            target["weights"] = torch.rand(len(target["boxes"])) + 0.5
    return features.double() if double else features, targets


def learned(scenario, rank=None):
    """The weights of a head after some steps, of one process or of a rank; and the terms' names."""
    config, counts = SCENARIOS[scenario]["config"], SCENARIOS[scenario]["counts"]
    double = SCENARIOS[scenario].get("double", False)
    features, targets = batch(counts, double=double)
    head = Head().double() if double else Head()
    criterion = build(config, sync=rank is not None)
    model = head
    if rank is not None:
        first = sum(map(len, counts[:rank]))
        part = slice(first, first + len(counts[rank]))
        features, targets = features[part], targets[part]
        model = DistributedDataParallel(head)  # raises at a parameter without a gradient
    names = []
    for _ in range(STEPS):
        output = criterion(model(features), targets, anchors=ANCHORS, level_sizes=LEVELS)
        output.total.backward()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter -= 0.5 * parameter.grad
                parameter.grad = None
        names.append(tuple(output.terms))
    assert len(set(names)) == 1
    return {**head.state_dict(), **criterion.state_dict()}, names[0]


@contextmanager
def all_reduces():
    """The tensors that this process sends meanwhile."""
    sent, all_reduce = [], distributed.all_reduce

    def counted(tensor):
        sent.append(tensor.clone())
        return all_reduce(tensor)

    distributed.all_reduce = counted
    try:
        yield sent
    finally:
        distributed.all_reduce = all_reduce


def asked(rank):
    """How often ranks ask each other: in a step, in evaluation by rank 0 alone, without sync."""
    features, targets = batch(COUNTS["unequal"])
    head, found = Head(), {}
    modes = {"step": (True, True), "evaluation": (True, False), "without sync": (False, True)}
    for mode, (sync, training) in modes.items():
        criterion = build(SEVERAL, sync=sync).train(training)
        with all_reduces() as sent:
            if mode == "step" or rank == 0:
                criterion(head(features), targets, anchors=ANCHORS, level_sizes=LEVELS)
        found[mode] = len(sent)
    return found


class WithLoss(nn.Module):
    """A head that has its criterion with it, as a module that DistributedDataParallel wraps."""

    def __init__(self, rank):
        super().__init__()
        self.head = Head()
        self.criterion = build(
            {
                # as where each rank reads a config of its own: DDP takes the buffers of rank 0
                "classification": {
                    "type": "sigmoid_focal",
                    "alpha": [0.25, 0.5, 0.75],
                    "class_weight": [1.0, 2.0, 3.0 + rank],
                },
                "box": {"type": "wise_iou", "version": 2, "momentum": 0.5, "sync": True},
                "normalizer": {"type": "moving_average", "momentum": 0.5},
            },
            sync=True,
        )

    def forward(self, features, targets):
        return self.criterion(self.head(features), targets, anchors=ANCHORS).total


def wrapped(rank):
    """The buffers of a criterion inside DistributedDataParallel after each step."""
    counts = COUNTS["unequal batches, one without objects"]
    features, targets = batch(counts)
    first = sum(map(len, counts[:rank]))
    part = slice(first, first + len(counts[rank]))
    model = DistributedDataParallel(WithLoss(rank))
    found = []
    for _ in range(STEPS):
        model(features[part], targets[part]).backward()
        found.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    return found


def floors(rank):
    """The divisor of a rank where the two have one positive together."""
    rows = term_rows([1, 0] if rank == 0 else [0, 0])
    return {
        after: PositivesNormalizer(sync=True, floor_after_ranks=after)(rows).item()
        for after in (False, True)
    }


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),  # a rank that waits for one that does not come
    )
    found = {
        "asked": asked(rank),
        "floors": floors(rank),
        "wrapped": wrapped(rank),
        "learned": {scenario: learned(scenario, rank) for scenario in SCENARIOS},
    }
    torch.save(found, f"{folder}/{rank}")
    distributed.destroy_process_group()
