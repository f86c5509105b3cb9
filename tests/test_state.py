"""What parts and criteria keep: saved and copied, moved, shared by threads, and nothing else."""

import copy
import io
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from registered import LOSSES
from scenes import (
    CLASSES,
    coder_of,
    gradients,
    grid_anchors,
    predictions_for,
    random_targets,
)
from torch.testing import assert_close

import detloss
from detloss.registry import NORMALIZERS, SAMPLERS, SECTIONS

ANCHORS = grid_anchors()
PARTS = [(section, name) for section, registry in SECTIONS.items() for name in registry.names()]
OPTIONS = {"constant": {"value": 7.0}, "random_balanced": {"size": 16}}
"""What a part needs, or needs to have a choice."""
PER_CLASS = [0.1, 0.2, 0.3]


def build(**sections):
    config = {
        "matcher": {"type": "max_iou"},
        "classification": {"type": "sigmoid_focal", "alpha": PER_CLASS},
        "box": {"type": "giou"},
        "normalizer": {"type": "moving_average"},
    } | sections
    return detloss.build({"coder": coder_of(config["box"]["type"])} | config)


def step(criterion, seed=0, device="cpu", **options):
    """The total of a batch, its gradients and its matches, as plain tensors."""
    predictions = predictions_for(criterion, 3, len(ANCHORS), seed=seed)
    predictions = {k: v.detach().to(device).requires_grad_() for k, v in predictions.items()}
    targets = random_targets([seed % 5, 0, 4], seed=seed)
    targets = [{k: v.to(device) for k, v in target.items()} for target in targets]
    output = criterion(predictions, targets, anchors=ANCHORS.to(device), **options)
    matches = [torch.stack([m.target_index, m.positive, m.ignored]) for m in output.matches]
    return output.total.detach(), *gradients(output.total, predictions), *matches


def equal_bits(one, other):
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize(("section", "name"), PARTS, ids=lambda value: value)
def test_every_part_is_saved_pickled_and_copied(section, name):
    config = {"type": name, **OPTIONS.get(name, {})}
    part = detloss.build_part(section, config)
    with torch.no_grad():
        for buffer in part.buffers():
            buffer += 1
    loaded = detloss.build_part(section, config)
    loaded.load_state_dict(part.state_dict())
    for again in (loaded, copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert type(again) is type(part)
        assert again.config() == part.config()
        assert_close(dict(again.named_buffers()), dict(part.named_buffers()))
        for one, other in zip(again.buffers(), part.buffers(), strict=True):
            assert one.data_ptr() != other.data_ptr()


def test_a_checkpoint_holds_what_was_learned_and_not_what_was_configured():
    """R18."""
    criterion = build()
    step(criterion)
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    resumed = build(classification={"type": "sigmoid_focal", "alpha": PER_CLASS[::-1]})
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert list(criterion.state_dict()) == ["normalizer.average"]
    assert resumed.normalizer.average == criterion.normalizer.average != 100
    assert_close(resumed.terms["classification"].loss.alpha, torch.tensor(PER_CLASS[::-1]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_has_a_memory_of_its_own(copied):
    criterion, alone = build(), build()
    other = copied(criterion)
    step(other, seed=1)
    assert equal_bits(step(criterion), step(alone))


@pytest.mark.parametrize(("section", "name"), LOSSES, ids=lambda value: value)
def test_a_criterion_goes_where_the_model_goes(section, name):
    """R45: its buffers follow; what it says does not depend on where they are."""
    config = {"type": name}
    if section == "classification":
        background = SECTIONS[section][name].background_columns
        config["class_weight"] = [1.0, 2.0, 3.0, 4.0][: CLASSES + background]
    criterion = build(**{section: config})
    expected = step(copy.deepcopy(criterion))
    assert_close(step(copy.deepcopy(criterion).double()), expected)
    on_meta = copy.deepcopy(criterion).to("meta")
    assert all(buffer.is_meta for buffer in on_meta.buffers())
    assert all(result.is_meta for result in step(on_meta, device="meta"))


@pytest.mark.parametrize("box", ["smooth_l1", "ciou"])
@pytest.mark.parametrize("classification", ["sigmoid_focal", "softmax_focal"])
def test_threads_may_share_a_criterion(classification, box):
    """With a thread's own inputs each gets the bits that it gets alone."""
    criterion = build(
        classification={"type": classification},
        box={"type": box},
        sampler={"type": "hard_negative"},
        normalizer={"type": "positives"},
    )
    seeds = range(24)
    alone = [step(criterion, seed) for seed in seeds]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: step(criterion, seed), seeds))
    assert all(map(equal_bits, together, alone))
    assert not any(equal_bits(one, other) for one, other in itertools.combinations(alone, 2))


@pytest.fixture
def deterministic():
    """Also fills fresh memory with NaN, so that what was not written is seen when it is read."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def twice(options=None, **sections):
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(step(build(**sections), **(options or {})))
    return results


@pytest.mark.parametrize(("section", "name"), LOSSES, ids=lambda value: value)
def test_every_loss_gives_the_same_bits_twice(section, name, deterministic):
    first, second = twice(**{section: {"type": name}})
    assert equal_bits(first, second)
    assert all(result.isfinite().all() for result in first)


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_every_sampler_gives_the_same_bits_twice(name, deterministic):
    assert equal_bits(*twice(sampler={"type": name, **OPTIONS.get(name, {})}))


@pytest.mark.parametrize(
    "name", [n for n in NORMALIZERS.names() if not NORMALIZERS[n].needs_factors]
)
def test_every_normalizer_gives_the_same_bits_twice(name, deterministic):
    options = {"normalizer": 3.0} if name == "supplied" else {}
    assert equal_bits(*twice(options, normalizer={"type": name, **OPTIONS.get(name, {})}))
