"""Several sets of predictions: whose matches, which weight, and what is counted together."""

import itertools
from unittest.mock import patch

import pytest
import torch
from scenes import grid_anchors, random_predictions, random_targets

import detloss
from detloss import division
from detloss.layers import Layer, LayeredLoss, Schedule

ANCHORS = grid_anchors()
TARGETS = random_targets([3, 0, 2])
COMMON = {
    "matcher": {"type": "max_iou", "positive": 0.4, "negative": 0.3},
    "classification": {"type": "sigmoid_focal"},
    "box": {"type": "giou", "weight": 2.0},
}


def built(**layers):
    return detloss.build({**COMMON, "layers": layers})


def predicted(seed=0):
    return random_predictions(3, len(ANCHORS), seed=seed)


def alone(predictions, *, targets=TARGETS, **changes):
    return detloss.build(COMMON | changes)(predictions, targets, anchors=ANCHORS)


def assert_equal_matches(ours, theirs):
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our.positive, their.positive)
        assert torch.equal(our.target_index, their.target_index)


def test_each_set_is_the_loss_of_its_criterion_times_its_weight():
    criterion = built(first={"weight": 0.25}, second={"box": {"weight": 0.5}})
    output = criterion({"first": predicted(0), "second": predicted(1)}, TARGETS, anchors=ANCHORS)
    first = alone(predicted(0))
    second = alone(predicted(1), box={"type": "giou", "weight": 0.5})
    expected = {f"first/{name}": loss * 0.25 for name, loss in first.terms.items()}
    expected |= {f"second/{name}": loss for name, loss in second.terms.items()}
    torch.testing.assert_close(output.terms, expected)
    torch.testing.assert_close(output.total, sum(expected.values()))
    assert output.unweighted["first/box"] == first.unweighted["box"]
    assert output.divisors["second/box"] == second.divisors["box"]
    assert_equal_matches(output.matches["first"], first.matches)


def test_the_gradient_is_that_of_the_weighted_sum():
    criterion, predictions = built(a={"weight": 0.25}, b={}), {"a": predicted(0), "b": predicted(1)}
    criterion(predictions, TARGETS, anchors=ANCHORS).total.backward()
    for name, seed, weight in (("a", 0, 0.25), ("b", 1, 1.0)):
        expected = predicted(seed)
        alone(expected).total.backward()
        for key, value in expected.items():
            torch.testing.assert_close(predictions[name][key].grad, weight * value.grad)


def test_another_type_replaces_a_part_and_a_list_a_list():
    config = {**COMMON, "coder": {"type": "delta", "weights": [10.0, 10.0, 5.0, 5.0]}}
    layers = {
        "same": {"coder": {"min_size": 1e-3}},
        "other": {"coder": {"type": "ltrb"}, "box": {"type": "iou"}},
        "listed": {"coder": {"weights": [1.0] * 4}, "box": [{"type": "l1"}, {"type": "giou"}]},
        "less": {"box": None},
    }
    found = detloss.build({**config, "layers": layers}).config()["layers"]
    assert found["same"]["coder"]["weights"] == [10.0, 10.0, 5.0, 5.0]
    assert found["same"]["coder"]["min_size"] == 1e-3
    assert found["other"]["coder"] == detloss.build_part("coder", {"type": "ltrb"}).config()
    assert found["other"]["box"]["weight"] == 1.0
    assert found["listed"]["coder"]["weights"] == [1.0] * 4
    assert [term["type"] for term in found["listed"]["box"]] == ["l1", "giou"]
    assert "box" not in found["less"]


def test_a_list_of_predictions_is_the_sum_of_its_entries():
    criterion = built(layers={"weight": 0.5})
    output = criterion({"layers": [predicted(0), predicted(1)]}, TARGETS, anchors=ANCHORS)
    parts = [alone(predicted(seed)) for seed in (0, 1)]
    torch.testing.assert_close(output.total, sum(part.total for part in parts) * 0.5)
    assert output.divisors["layers/1/box"] == parts[1].divisors["box"]
    assert_equal_matches(output.matches["layers"][1], parts[1].matches)


def test_a_set_takes_the_matches_of_another_wherever_it_stands():
    criterion = built(taker={"matches": "giver"}, giver={"matcher": {"positive": 0.7}})
    output = criterion({"taker": predicted(0), "giver": predicted(1)}, TARGETS, anchors=ANCHORS)
    given = detloss.build(COMMON | {"matcher": COMMON["matcher"] | {"positive": 0.7}})
    expected = given(predicted(0), TARGETS, anchors=ANCHORS)
    torch.testing.assert_close(output.terms["taker/box"], expected.terms["box"])
    assert_equal_matches(output.matches["taker"], expected.matches)


def test_entries_of_a_list_take_the_matches_of_one_set_or_of_the_same_place():
    criterion = built(last={}, aux={"matches": "last"}, more={"matches": "aux"})
    several = [predicted(1), predicted(2)]
    output = criterion({"last": predicted(0), "aux": several, "more": several}, TARGETS,
                       anchors=ANCHORS)  # fmt: skip
    for entry in (*output.matches["aux"], *output.matches["more"]):
        assert_equal_matches(entry, output.matches["last"])


def test_given_matches_stand_in_for_any_sets_own():
    strict = detloss.build(COMMON | {"matcher": COMMON["matcher"] | {"positive": 0.7}})
    matches = strict.match(TARGETS, anchors=ANCHORS)
    criterion = built(found={}, told={"matches": "given"})
    predictions = {"found": predicted(0), "told": predicted(0)}
    output = criterion(predictions, TARGETS, anchors=ANCHORS, matches={"told": matches})
    expected = strict(predicted(0), TARGETS, anchors=ANCHORS)
    torch.testing.assert_close(output.terms["told/box"], expected.terms["box"])
    assert output.terms["found/box"] != output.terms["told/box"]
    with pytest.raises(ValueError, match=r"^matches must be given for 'told', got none$"):
        criterion(predictions, TARGETS, anchors=ANCHORS)


def test_every_object_of_a_class_agnostic_set_has_label_0():
    output = built(proposals={"class_agnostic": True})(
        {"proposals": predicted(0)}, TARGETS, anchors=ANCHORS
    )
    zeros = [target | {"labels": torch.zeros_like(target["labels"])} for target in TARGETS]
    expected = alone(predicted(0), targets=zeros)
    torch.testing.assert_close(output.total, expected.total)
    assert expected.total != alone(predicted(0)).total


def test_a_missing_set_is_0_under_the_same_names():
    criterion = built(a={}, b={})
    output = criterion({"b": predicted(0)}, TARGETS, anchors=ANCHORS)
    assert list(output.terms) == list(criterion.terms) == [
        "a/classification", "a/box", "b/classification", "b/box",
    ]  # fmt: skip
    assert output.terms["a/box"] == output.unweighted["a/box"] == 0
    assert list(output.matches) == ["b"]
    assert output.total == alone(predicted(0)).total
    nothing = criterion({}, TARGETS, anchors=ANCHORS, reduction="image")
    assert torch.equal(nothing.total, torch.zeros(3))


def test_a_scheduled_weight_follows_progress():
    criterion = built(a={"weight": {"start": 0.8, "end": 0.1}}, b={"weight": 0.5})
    loss = alone(predicted(0)).total
    for progress, weight in ((0.0, 0.8), (0.5, 0.45), (1.0, 0.1)):
        predictions = {"a": predicted(0), "b": predicted(0)}
        output = criterion(predictions, TARGETS, anchors=ANCHORS, progress=progress)
        torch.testing.assert_close(output.total, loss * (weight + 0.5))


def test_a_weight_of_0_is_0_whatever_the_set_holds():
    predictions = {"a": predicted(0), "b": predicted(1)}
    bad = {key: torch.full_like(value, float("nan")).requires_grad_()
           for key, value in predictions["a"].items()}  # fmt: skip
    criterion = built(a={"weight": {"start": 1.0, "end": 0.0}}, b={})
    output = criterion({**predictions, "a": bad}, TARGETS, anchors=ANCHORS, progress=1.0)
    output.total.backward()
    assert output.terms["a/box"] == output.terms["a/classification"] == 0
    assert not bad["class_logits"].grad.any()
    assert output.total == alone(predicted(1)).total


def test_losses_of_images_add_up():
    criterion, predictions = built(a={"weight": 0.3}, b={}), {"a": predicted(0), "b": predicted(1)}
    of_batch = criterion(predictions, TARGETS, anchors=ANCHORS)
    of_images = criterion(predictions, TARGETS, anchors=ANCHORS, reduction="image")
    assert of_images.total.shape == (3,)
    for name, loss in of_batch.terms.items():
        torch.testing.assert_close(of_images.terms[name].sum(), loss)


def test_a_set_may_have_anchors_of_its_own():
    few = ANCHORS[:10]
    criterion = built(all={}, few={})
    predictions = {"all": predicted(0), "few": random_predictions(3, 10)}
    output = criterion(predictions, TARGETS, anchors={"all": ANCHORS, "few": few})
    expected = detloss.build(COMMON)(predictions["few"], TARGETS, anchors=few)
    torch.testing.assert_close(output.terms["few/classification"], expected.terms["classification"])


def test_the_counts_of_all_sets_are_made_together():
    criterion = built(a={}, b={}, c={"matches": "b"})
    predictions = {"a": predicted(0), "b": predicted(1), "c": predicted(2)}
    with patch.object(division, "divisors", wraps=division.divisors) as counted:
        criterion(predictions, TARGETS, anchors=ANCHORS)
    assert counted.call_count == 1


def test_its_divisors_can_be_given_to_another_call():
    criterion = built(a={}, b={})
    predictions = {"a": predicted(0), "b": [predicted(1), predicted(2)]}
    output = criterion(predictions, TARGETS, anchors=ANCHORS)
    again = criterion(predictions, TARGETS, anchors=ANCHORS, normalizer=output.divisors)
    assert again.total == output.total
    halved = criterion(predictions, TARGETS, anchors=ANCHORS, normalizer={"b/1/box": 1e9})
    assert halved.divisors["b/1/box"] == 1e9
    assert halved.divisors["b/0/box"] == output.divisors["b/0/box"]


def test_a_moving_average_moves_once_a_call_however_many_layers_it_has():
    criterion = built(
        layers={"normalizer": {"type": "moving_average", "momentum": 0.5, "initial": 100.0}}
    )
    output = criterion({"layers": [predicted(0), predicted(1)]}, TARGETS, anchors=ANCHORS)
    positives = sum(int(match.positive.sum()) for match in output.matches["layers"][0])
    expected = 50 + 0.5 * positives
    assert {divisor.item() for divisor in output.divisors.values()} == {expected}
    assert criterion.layers["layers"].criterion.normalizer.average == expected


def test_the_config_of_layers_builds_an_equal_criterion():
    criterion = built(
        a={"weight": {"start": 1.0, "end": 0.5}, "class_agnostic": True}, b={"matches": "a"}
    )
    again = detloss.build(criterion.config())
    assert again.config() == criterion.config()
    assert isinstance(again.layers["a"].weight, Schedule)


def test_it_compiles_whole():
    criterion = built(a={"weight": 0.25}, b={"matches": "a"})
    predictions = {"a": predicted(0), "b": predicted(1)}
    expected = criterion(predictions, TARGETS, anchors=ANCHORS).total
    compiled = torch.compile(
        lambda given: criterion(given, TARGETS, anchors=ANCHORS).total,
        fullgraph=True,
        backend="eager",
    )
    torch.testing.assert_close(compiled(predictions), expected)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "layers: expected a mapping from sets of predictions, got {}"),
        ({"a": 3}, "layers.a: expected a mapping, got 3"),
        ({"a": {"wieght": 2}}, "layers.a.wieght: unknown key, accepted: .*weight, matches, "
         "class_agnostic; did you mean 'weight'"),
        ({"a": {"weight": -1}}, "layers.a.weight must be a finite number >= 0, got -1"),
        ({"a": {"weight": True}}, "layers.a.weight must be a finite number >= 0, got True"),
        ({"a": {"weight": {"start": 1}}}, "layers.a.weight: expected a number or {start: , end: }"),
        ({"a": {"matches": "b"}}, "layers: matches of 'a' must be one of own, given, got 'b'"),
        ({"a": {"matches": "b"}, "b": {"matches": "a"}}, "sets must not take each other's matches"),
        ({"a": {"class_agnostic": "x"}}, "layers.a.class_agnostic: expected a valid boolean"),
        ({"a": {}, "b": {"matches": "a", "matcher": {"positive": 0.5}}},
         "layers.b.matcher: the set takes the matches of another"),
        ({"a": {"matcher": {"topk": 3}}}, "layers.a.matcher.topk: unknown option"),
        ({"a": {"box": {"type": "gou"}}}, "layers.a.box.type: unknown box loss 'gou'"),
        ({"a/b": {}}, "a set must have a name without '.' and '/'"),
        ({"own": {}}, "a set must have a name without"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_key_in_its_set(layers, message):
    with pytest.raises(detloss.ConfigError, match=f"config: .*{message}".replace("{", r"\{")):
        built(**layers)


def test_a_mistake_above_the_layers_is_told_once():
    with pytest.raises(detloss.ConfigError) as error:
        detloss.build({**COMMON, "box": {"type": "gou"}, "layers": {"a": {}, "b": {}}})
    assert str(error.value).count("unknown box loss 'gou'") == 1
    assert "config: box.type:" in str(error.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"predictions": {}}, ValueError, "^progress must be given, in .0, 1., since the weight"),
        ({"progress": 2.0}, ValueError, r"^progress must be in \[0, 1\], got 2.0$"),
        ({"predictions": predicted()}, ValueError,
         "^predictions must name sets of predictions, first, second, got 'class_logits'$"),
        ({"predictions": [predicted()]}, TypeError, "^predictions must be a mapping from sets"),
        ({"predictions": {"frist": predicted()}}, ValueError, "did you mean 'first'"),
        ({"predictions": {"second": predicted()}}, ValueError,
         "^predictions must have 'first', whose matches 'second' takes$"),
        ({"matches": []}, TypeError, "^matches must be a mapping from sets of predictions"),
        ({"anchors": {"frist": ANCHORS}}, ValueError, "^anchors must name sets"),
        ({"predictions": {"first": [{"class_logits": torch.zeros(3, 64, 3)}]}}, ValueError,
         "^first/0: predictions must have 'class_logits' and 'box_regression'"),
        ({"predictions": {"first": [predicted()] * 2}, "matches": {"first": [[]]}}, ValueError,
         "^first/0: matches must be 3, one an image, got 0"),
    ],
)  # fmt: skip
def test_a_bad_call_names_the_set(call, error, message):
    criterion = built(first={"weight": {"start": 1.0, "end": 0.0}}, second={"matches": "first"})
    given = {"predictions": {"first": predicted()}, "anchors": ANCHORS}
    given |= call
    if "progress must be given" not in message:
        given.setdefault("progress", 0.5)
    with pytest.raises(error, match=message):
        criterion(given.pop("predictions"), TARGETS, **given)


def test_layers_need_a_set():
    with pytest.raises(ValueError, match="^layers must have a set of predictions, got none$"):
        LayeredLoss({})
    with pytest.raises(ValueError, match=r"^weight must be a finite number >= 0, got inf$"):
        Layer(detloss.build(COMMON), weight=float("inf"))


def test_matches_are_taken_in_any_order_of_the_sets():
    for order in itertools.permutations(["a", "b", "c"]):
        sets = {"a": {}, "b": {"matches": "a"}, "c": {"matches": "b"}}
        criterion = built(**{name: sets[name] for name in order})
        assert list(criterion.layers) == list(order)
        output = criterion({name: predicted(0) for name in order}, TARGETS, anchors=ANCHORS)
        assert_equal_matches(output.matches["c"], output.matches["a"])
