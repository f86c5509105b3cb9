"""Configs: what builds, and what each mistake says."""

import itertools
from pathlib import Path

import pytest
import torch
import yaml
from scenes import call_of, grid_anchors, leaves, predictions_for, random_targets

import detloss
from detloss.boxes.overlaps import OVERLAPS
from detloss.registry import (
    CLASSIFICATION,
    CODERS,
    MATCHERS,
    QUALITIES,
    REGRESSION,
    TERMS,
    options_of,
)

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
GOOD = {
    "matcher": {"type": "max_iou", "positive": 0.5, "negative": 0.4, "low_quality": True},
    "coder": {"type": "delta", "weights": [1, 1, 1, 1]},
    "classification": {"type": "sigmoid_focal", "alpha": 0.25, "gamma": 2.0, "weight": 1.0},
    "box": {"type": "ciou", "weight": 2.0},
    "normalizer": {"type": "positives"},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_trains_and_round_trips(path):
    criterion = detloss.load_config(path)
    again = detloss.build(yaml.safe_load(yaml.safe_dump(criterion.config(), sort_keys=False)))
    assert again.config() == criterion.config()
    predictions, anchors = predictions_for(criterion, 2, 64), grid_anchors(side=8.0)
    outputs = [
        c(predictions, random_targets([2, 0]), anchors=anchors, **call_of(c))
        for c in (criterion, again)
    ]
    assert torch.equal(outputs[0].total, outputs[1].total)
    outputs[0].total.backward()
    for prediction in leaves(predictions):
        assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_cites_its_source(path):
    text = path.read_text()
    assert "arXiv:" in text
    lines = text.splitlines()
    for above, line in itertools.pairwise(["", *lines]):
        if line[:1].isalpha():  # a key of the top level
            assert above.startswith("#"), f"{line!r} has no comment above it"


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_the_variants_of_retinanet_differ_in_one_word(kind):
    base, variant = (
        yaml.safe_load((CONFIGS[0].parent / f"{name}.yaml").read_text())
        for name in ("retinanet", f"retinanet_{kind}")
    )
    assert variant["box"].pop("type") == kind
    assert base["box"].pop("type") == "l1"
    assert variant == base


def test_the_contract_config_resolves():
    criterion = detloss.build(GOOD)
    resolved = criterion.config()
    expected = {"type": "ciou", "convention": "paper", "eps": 1e-7, "weight": 2.0}
    assert resolved["box"] == expected
    assert resolved["sampler"] == {"type": "all"}
    assert resolved["coder"]["weights"] == [1.0, 1.0, 1.0, 1.0]
    assert list(resolved) == ["matcher", "coder", "sampler", "classification", "box", "normalizer"]


def test_a_list_of_losses_shares_what_stands_beside_it():
    common = {"weigh_by": "centerness", "normalizer": {"type": "row_weights"}, "weight": 3.0}
    criterion = detloss.build(
        GOOD | {"box": {"terms": [{"type": "l1"}, {"type": "giou", "weight": 2.0}], **common}}
    )
    assert list(criterion.terms) == ["classification", "box/l1", "box/giou"]
    assert [criterion.terms[name].weight for name in ("box/l1", "box/giou")] == [3.0, 2.0]
    for name in ("box/l1", "box/giou"):
        assert criterion.terms[name].weigh_by.type_name == "centerness"
        assert criterion.terms[name].normalizer.type_name == "row_weights"
    assert detloss.build(criterion.config()).config() == criterion.config()


def test_a_term_of_a_list_has_the_name_that_it_is_given():
    twice = [{"type": "giou", "name": "first"}, {"type": "giou", "reads": "refined"}]
    criterion = detloss.build(GOOD | {"box": twice})
    assert list(criterion.terms) == ["classification", "box/first", "box/giou"]
    assert criterion.terms["box/giou"].reads == "refined"
    assert detloss.build(criterion.config()).config() == criterion.config()


def test_a_quality_is_a_word_or_a_mapping():
    word, mapping = (
        detloss.build(changed("classification", label=label)).config()["classification"]["label"]
        for label in ("iou", {"type": "iou", "kind": "iou"})
    )
    assert word == mapping == detloss.build_part("quality", {"type": "iou"}).config()
    for nothing in ("one", None):
        resolved = detloss.build(changed("classification", label=nothing)).config()
        assert "label" not in resolved["classification"]
    assert "weigh_by" not in detloss.build(changed("box", weigh_by="none")).config()["box"]


def test_no_term_is_required():
    criterion = detloss.build({"matcher": {"type": "max_iou"}, "box": {"type": "giou"}})
    boxes = torch.tensor([[0.0, 0, 8, 8]])
    output = criterion({"box_regression": torch.zeros(1, 1, 4)}, [{"boxes": boxes}], anchors=boxes)
    assert list(output.terms) == ["box"]
    assert output.total == 0


def test_per_class_values_survive_the_round_trip_as_written():
    config = GOOD | {"classification": {"type": "sigmoid_focal", "alpha": [0.1, 0.7]}}
    assert detloss.build(config).config()["classification"]["alpha"] == [0.1, 0.7]


BOX_LOSSES = ", ".join(REGRESSION.names())
TERM_OPTIONS = ", ".join(name for name in options_of(TERMS["classification"]) if name != "loss")
FOCAL_OPTIONS = ", ".join(
    name for name in options_of(CLASSIFICATION["sigmoid_focal"]) if name != "reduction"
)
BINNED = ", ".join(name for name in CODERS.names() if "bins" in CODERS[name].spaces)
SCORING = ", ".join(name for name in MATCHERS.names() if MATCHERS[name].scores) or "none"
*SOME, LAST = map(repr, sorted(OVERLAPS))
KINDS = f"{', '.join(SOME)} or {LAST}"
KEYS = ", ".join(["matcher", "coder", "sampler", "normalizer", *TERMS.names(), "layers"])


def changed(section, **options):
    return GOOD | {section: {**GOOD.get(section, {}), **options}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed("box", type="cuoi"),
            f"config: box.type: unknown box loss 'cuoi', accepted: {BOX_LOSSES}; "
            "did you mean 'ciou'?",
        ),
        (
            GOOD | {"bocks": {"type": "ciou"}},
            f"config: bocks: unknown key, accepted: {KEYS}; did you mean 'box'?",
        ),
        (
            changed("classification", gama=2.0),
            "config: classification.gama: unknown option, sigmoid_focal accepts "
            f"{FOCAL_OPTIONS}, {TERM_OPTIONS}; did you mean 'gamma'?",
        ),
        (
            changed("classification", gamma=-1.0),
            "config: classification.gamma: expected a value greater than or equal to 0, got -1.0",
        ),
        (
            changed("classification", gamma="2"),
            "config: classification.gamma: expected a valid number, got '2'",
        ),
        (
            changed("matcher", positive=1.5),
            "config: matcher.positive: expected a value less than or equal to 1, got 1.5",
        ),
        (
            changed("matcher", positive=0.3),
            "config: matcher.negative: must be at most positive (0.3), got 0.4",
        ),
        (
            changed("matcher", low_quality="yes"),
            "config: matcher.low_quality: expected a valid boolean, got 'yes'",
        ),
        (
            GOOD | {"box": {"type": "iou", "mode": "lin"}},
            "config: box.mode: expected 'linear', 'log' or 'square', got 'lin'; "
            "did you mean 'linear'?",
        ),
        (
            GOOD | {"box": {"weight": 2.0}},
            f"config: box.type: missing, accepted: {BOX_LOSSES}",
        ),
        (
            GOOD | {"box": "ciou"},
            "config: box: expected a mapping such as {type: ciou}, got 'ciou'",
        ),
        (
            GOOD | {"box": None},
            f"config: box: expected a mapping such as {{type: {REGRESSION.names()[0]}}}, got None",
        ),
        (
            changed("box", weight=-1),
            "config: box.weight: expected a value greater than or equal to 0, got -1",
        ),
        (
            changed("box", weight="2"),
            "config: box.weight: expected a valid number, got '2'",
        ),
        (
            changed("box", reduction="sum"),
            "config: box.reduction: in a criterion the normalizer decides what a sum is divided "
            "by, leave it out",
        ),
        (
            GOOD | {"normalizer": {"type": "constant"}},
            "config: normalizer.value: missing, constant needs it",
        ),
        (
            {k: v for k, v in GOOD.items() if k != "matcher"},
            "config: matcher: missing, a criterion needs it",
        ),
        (
            GOOD | {"classification": {"type": "softmax_focal", "alpha": 0.25}},
            "config: classification.alpha: expected a list or a tensor, got 0.25",
        ),
        (
            GOOD | {"box": [{"type": "l1"}, {"type": "giuo"}]},
            f"config: box[1].type: unknown box loss 'giuo', accepted: {BOX_LOSSES}; "
            "did you mean 'giou'?",
        ),
        (
            GOOD | {"box": {"terms": [{"type": "l1"}], "weight": -1.0}},
            "config: box.terms[0].weight: expected a value greater than or equal to 0, got -1.0",
        ),
        (
            GOOD | {"box": {"terms": {"type": "l1"}}},
            "config: box.terms: expected a list of mappings, at least one, got {'type': 'l1'}",
        ),
        (
            GOOD | {"box": []},
            "config: box: expected a list of mappings, at least one, got []",
        ),
        (
            changed("box", name="a.b"),
            "config: box.name: must be a word without '.', got 'a.b'",
        ),
        (
            changed("box", level_weights=[]),
            "config: box.level_weights: expected at least 1 value, got []",
        ),
        (
            GOOD | {"box": [{"type": "l1"}, {"type": "l1"}]},
            "config: terms must differ in name, got two 'box/l1'; give one of them a name",
        ),
        (
            changed("box", weigh_by="iuo"),
            "config: box.weigh_by: unknown quality 'iuo', accepted: none, "
            f"{', '.join(QUALITIES.names())}; did you mean 'iou'?",
        ),
        (
            changed("box", label="iou"),
            "config: box.label: unknown option, ciou accepts convention, eps, weight, "
            "over, space, unit, weigh_by, normalizer, level_weights, name, reads",
        ),
        (
            changed("box", over="all"),
            "config: box.over: must be 'positives', since background has no box, got 'all'",
        ),
        (
            changed("classification", weigh_by="iou"),
            "config: classification.weigh_by: needs over 'positives', since it is the quality of a "
            "positive, got weigh_by 'iou' with over 'all'",
        ),
        (
            GOOD | {"classification": {"type": "softmax_focal", "label": "iou"}},
            "config: classification.label: softmax_focal has hard labels only, since its classes "
            "share one probability, got iou",
        ),
        (
            changed("classification", label={"type": "iou", "kind": "cuoi"}),
            f"config: classification.label.kind: expected {KINDS}, got 'cuoi'; "
            "did you mean 'ciou'?",
        ),
        (
            changed("classification", label="score"),
            "config: classification: a score comes from the matcher, and max_iou has none; "
            f"matchers with scores: {SCORING}",
        ),
        (
            changed("box", normalizer={"type": "row_weights"}),
            "config: box: normalizer row_weights divides by the factors of the rows, and the term "
            "has none; give it weigh_by",
        ),
        (
            changed("box", weigh_by="confidence") | {"classification": {"type": "softmax_focal"}},
            "config: box: a quality takes the class logits for yes-or-no answers, and "
            "softmax_focal has classes that share one probability",
        ),
        (
            GOOD | {"box": {"type": "distribution_focal"}},
            "config: box: distribution_focal is a loss on bins, coder delta has boxes, deltas; "
            f"coders with bins: {BINNED}",
        ),
        (
            GOOD | {"objectness": {"type": "softmax_focal"}},
            "config: objectness: objectness is one logit an anchor and needs a yes-or-no loss, "
            "got softmax_focal",
        ),
        (
            changed("box", type="GIoU"),
            f"config: box.type: unknown box loss 'GIoU', accepted: {BOX_LOSSES}; "
            "did you mean 'giou'?",
        ),
        (
            changed("box", wieght=2.0),
            "config: box.wieght: unknown option, ciou accepts convention, eps, weight, "
            "over, space, unit, weigh_by, normalizer, level_weights, name, reads; did you mean "
            "'weight'?",
        ),
        (
            changed("box", loss_weight=2.0),
            "config: box.loss_weight: unknown option, ciou accepts convention, eps, weight, "
            "over, space, unit, weigh_by, normalizer, level_weights, name, reads; did you mean "
            "'weight'?",
        ),
        (
            GOOD | {"box": ["giou"]},
            "config: box[0]: expected a mapping such as {type: giou}, got 'giou'",
        ),
        (
            GOOD | {"box": {"type": ["giou"]}},
            f"config: box.type: unknown box loss ['giou'], accepted: {BOX_LOSSES}; "
            "did you mean 'giou'?",
        ),
        (
            changed("coder", weights=[10, 10, 5]),
            "config: coder.weights: expected at least 4 values, got [10, 10, 5]",
        ),
        (
            changed("coder", weights=[10, 10, 5, True]),
            "config: coder.weights: expected a valid number at [3], got [10, 10, 5, True]",
        ),
        (
            changed("classification", alpha=[0.25, 3]),
            "config: classification.alpha: must be in [0, 1], got 3",
        ),
        (
            changed("classification", class_weight=[1, -1]),
            "config: classification.class_weight: must be finite and at least 0, got -1",
        ),
        (
            changed("classification", class_weight=[]),
            "config: classification.class_weight: must have shape (C,), got (0,)",
        ),
        (
            changed("classification", class_weight=torch.tensor([True, False])),
            "config: classification.class_weight: must be numbers, got torch.bool",
        ),
        (
            changed("classification", loss_weight=2.0),
            "config: classification.loss_weight: unknown option, sigmoid_focal accepts "
            f"{FOCAL_OPTIONS}, {TERM_OPTIONS}; did you mean 'weight'?",
        ),
        (
            GOOD | {"box": {"typ": "ciou"}},
            f"config: box.type: missing, accepted: {BOX_LOSSES}; did you mean 'type' where it says "
            "'typ'?",
        ),
        (
            GOOD | {"box": "CIoU"},
            "config: box: expected a mapping such as {type: ciou}, got 'CIoU'",
        ),
        (
            changed("normalizer", plus=True),
            "config: normalizer.plus: expected 0, 1 or 'images', got True",
        ),
    ],
    ids=lambda value: value.split(": ", 1)[1][:40] if isinstance(value, str) else None,
)
def test_a_mistake_names_key_value_and_cure(config, message):
    with pytest.raises(detloss.ConfigError) as error:
        detloss.build(config)
    assert str(error.value) == message


def test_all_mistakes_are_listed():
    config = changed("box", type="cuoi") | {"matcher": {"type": "max_iou", "positive": 2.0}}
    with pytest.raises(detloss.ConfigError) as error:
        detloss.build(config)
    assert [line.split(": ")[1] for line in str(error.value).splitlines()] == [
        "matcher.positive",
        "matcher",
        "box.type",
    ][::2]


def test_all_parts_that_do_not_go_together_are_listed():
    config = changed("classification", label="score") | {
        "box": [{"type": "distribution_focal"}, {"type": "l1"}],
        "normalizer": {"type": "row_weights"},
    }
    with pytest.raises(detloss.ConfigError) as error:
        detloss.build(config)
    lines = str(error.value).splitlines()
    assert all(line.startswith("config: ") for line in lines)
    assert [line.split(": ")[1] for line in lines] == [
        "classification",
        "classification",
        "box/distribution_focal",
        "box/distribution_focal",
        "box/l1",
    ]
    assert lines[1].endswith("the term has none; give it another normalizer")
    assert lines[4].endswith("the term has none; give it weigh_by")


def test_a_mapping_is_no_path():
    expected = r"path must be a path .*, got dict; detloss\.build takes a mapping"
    with pytest.raises(TypeError, match=expected):
        detloss.load_config({"matcher": {"type": "max_iou"}})


def test_a_folder_with_the_name_of_a_shipped_config_hides_it_not(tmp_path, monkeypatch):
    """Such as the folder of a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "retinanet").mkdir()
    assert list(detloss.load_config("retinanet").terms) == ["classification", "box"]


def test_build_part_names_the_nearest_section():
    with pytest.raises(detloss.ConfigError, match="got 'match'; did you mean 'matcher'"):
        detloss.build_part("match", {"type": "max_iou"})


def test_build_part_of_the_contract():
    matcher = detloss.build_part("matcher", {"type": "max_iou", "positive": 0.5, "negative": 0.4})
    assert (matcher.positive, matcher.negative) == (0.5, 0.4)
