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
    SIZE,
    coder_of,
    gradients,
    grid_anchors,
    predictions_for,
    random_targets,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
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
    call = {"anchors": ANCHORS.to(device), "image_size": (SIZE, SIZE)}
    output = criterion(predictions, targets, **call, **options)
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


@pytest.mark.parametrize("option", ["alpha", "class_weight"])
@pytest.mark.parametrize("move", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_values_of_classes_are_not_rounded_with_the_model(option, move):
    criterion = build(classification={"type": "sigmoid_focal", option: PER_CLASS})
    expected = step(copy.deepcopy(criterion))
    assert equal_bits(step(move(torch.nn.Sequential(criterion))[0]), expected)


@pytest.mark.parametrize("how", ["to_empty", "reset_parameters", "assign"])
def test_a_criterion_may_be_built_without_memory(how):
    """R45: as FSDP and large models are; its options and a checkpoint say all there is to know."""
    expected = step(build())
    with torch.device("meta"):
        criterion = build()
        assert criterion.config() == build().config()
        assert "alpha=[0.1, 0.2, 0.3]" in repr(criterion)
    if how == "assign":
        criterion.load_state_dict(build().state_dict(), assign=True)
    else:
        criterion.to_empty(device="cpu")
    if how == "reset_parameters":
        for module in criterion.modules():
            if any(True for _ in module.buffers(recurse=False)):
                module.reset_parameters()
    assert equal_bits(step(criterion), expected)


def test_a_criterion_without_memory_says_so():
    criterion = build()
    criterion.terms["classification"].loss.to("meta")
    with pytest.raises(RuntimeError, match="sigmoid_focal has no values for alpha, which is on"):
        step(criterion)


def test_values_of_another_number_of_classes_are_named_when_they_are_used():
    """They are in no checkpoint: a head of other classes loads, and its criterion refuses it."""
    criterion = build(classification={"type": "sigmoid_focal", "alpha": [0.5] * (CLASSES + 2)})
    criterion.load_state_dict(build().state_dict(), strict=True)
    message = rf"alpha must have shape \({CLASSES},\), one value per class, got \({CLASSES + 2},\)"
    with pytest.raises(ValueError, match=message):
        step(criterion)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_of_models_has_the_criterion_too(use_buffers):
    """As torch's AveragedModel makes it of a model whose loss is a part of it."""
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2), "criterion": build()})
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
    step(model["criterion"])
    averages = [model["criterion"].normalizer.average.item()]
    averaged.update_parameters(model)
    step(model["criterion"], seed=1)
    averages.append(model["criterion"].normalizer.average.item())
    averaged.update_parameters(model)
    criterion = averaged.module["criterion"]
    expected = sum(averages) / 2 if use_buffers else averages[1]
    assert criterion.normalizer.average.item() == pytest.approx(expected)
    assert_close(criterion.terms["classification"].loss.alpha, torch.tensor(PER_CLASS))


def parts_of(seed, parts, criterion, **options):
    """Calls `criterion` with each of some images and yields the outputs."""
    targets = random_targets([3, 0, 4], seed=seed)
    predictions = predictions_for(criterion, 3, len(ANCHORS), seed=seed)
    for part in parts:
        yield criterion(
            {name: value[part] for name, value in predictions.items()},
            targets[part],
            anchors=ANCHORS,
            **options,
        )


BATCH, MICRO_BATCHES = [slice(0, 3)], [slice(0, 1), slice(1, 3)]


def test_terms_that_share_a_moving_average_move_it_once():
    config = build().config()
    three = detloss.build({**config, "box": [{"type": "giou"}, {"type": "ciou"}]})
    one = detloss.build({key: value for key, value in config.items() if key != "classification"})
    for criterion in (one, three):
        list(parts_of(0, BATCH, criterion))
    assert one.normalizer.average == three.normalizer.average != 100


def test_matching_and_a_given_number_do_not_move_an_average():
    criterion = build()
    targets = random_targets([3, 0, 4])
    matches = criterion.match(targets, anchors=ANCHORS)
    list(parts_of(0, BATCH, criterion, normalizer=5.0, matches=matches))
    list(parts_of(0, BATCH, criterion, normalizer=torch.tensor(5.0)))
    list(parts_of(0, BATCH, criterion, normalizer={"classification": 5.0, "box": 3}))
    assert criterion.normalizer.average == 100
    list(parts_of(0, BATCH, criterion, normalizer={"box": 3}))  # the other term divides by it
    assert criterion.normalizer.average != 100


def test_micro_batches_that_share_their_divisors_move_an_average_once():
    criterion, first_alone = build(), build()
    (first,) = parts_of(0, MICRO_BATCHES[:1], criterion)
    (second,) = parts_of(0, MICRO_BATCHES[1:], criterion, normalizer=first.divisors)
    list(parts_of(0, MICRO_BATCHES[:1], first_alone))
    assert criterion.normalizer.average == first_alone.normalizer.average != 100
    assert second.divisors == first.divisors


def test_micro_batches_learn_what_their_batch_does_with_a_moving_average():
    whole, criterion = build(), build()
    for seed in range(3):
        (expected,) = parts_of(seed, BATCH, whole)
        matches = criterion.match(random_targets([3, 0, 4], seed=seed), anchors=ANCHORS)
        divisor = criterion.normalizer.move(sum(found.positive.sum() for found in matches))
        outputs = list(parts_of(seed, MICRO_BATCHES, criterion, normalizer=divisor))
        assert_close(sum(output.total for output in outputs), expected.total)
    assert criterion.normalizer.average == whole.normalizer.average != 100


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
