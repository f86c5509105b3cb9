"""What the processes of a distributed test run: a module that they can import."""

import torch
from scenes import CLASSES, grid_anchors, random_targets
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import detloss

RANKS = 2
STEPS = 3
ANCHORS = grid_anchors()
COUNTS = {
    "unequal": [[7, 0], [1, 2]],
    "a rank without objects": [[5, 2], [0, 0]],
    "no objects at all": [[0, 0], [0, 0]],
}
UNEQUAL_BATCHES = {"unequal batches": [[7, 3, 2], [1]]}
NORMALIZERS = {
    "positives": COUNTS,
    "ground_truths": COUNTS,
    "target_scores": COUNTS,
    "moving_average": COUNTS,
    "constant": COUNTS,
    "per_image": COUNTS | UNEQUAL_BATCHES,
}
OPTIONS = {"constant": {"value": 20.0}}
SCENARIOS = [(name, kind) for name, kinds in NORMALIZERS.items() for kind in kinds]


class Head(nn.Module):
    """Features of each anchor -> what a criterion asks for."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(6, CLASSES)
        self.regression = nn.Linear(6, 4)

    def forward(self, features):
        return {"class_logits": self.logits(features), "box_regression": self.regression(features)}


def learned(name, kind, rank=None):
    """The weights of a head after some steps, of one process or of a rank; and the terms' names."""
    torch.manual_seed(0)
    counts = NORMALIZERS[name][kind]
    features = torch.randn(sum(map(len, counts)), len(ANCHORS), 6)
    targets = random_targets([count for part in counts for count in part])
    for target in targets:
        target["weights"] = torch.rand(len(target["boxes"])) + 0.5
    head = Head()
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_focal"},
            "box": {"type": "giou"},
            "normalizer": {"type": name, "sync": rank is not None, **OPTIONS.get(name, {})},
        }
    )
    model = head
    if rank is not None:
        first = sum(map(len, counts[:rank]))
        part = slice(first, first + len(counts[rank]))
        features, targets = features[part], targets[part]
        model = DistributedDataParallel(head)  # raises at a parameter without a gradient
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    names = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        output = criterion(model(features), targets, anchors=ANCHORS)
        output.total.backward()
        optimizer.step()
        names.append(tuple(output.terms))
    assert len(set(names)) == 1
    return {**head.state_dict(), **criterion.state_dict()}, names[0]


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS
    )
    found = {scenario: learned(*scenario, rank=rank) for scenario in SCENARIOS}
    torch.save(found, f"{folder}/{rank}")
    distributed.destroy_process_group()
