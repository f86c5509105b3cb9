"""What every normalizer is, and how ranks agree on what they count."""

import inspect
from dataclasses import fields, replace

import pytest
import torch
from term_rows import (
    DIVIDING,
    OPTIONS,
    NumberedRows,
    divided,
    images_of,
    on_ranks,
    random_rows,
    term_rows,
)
from torch import distributed
from torch.testing import assert_close

import detloss
from detloss.normalizers import (
    ConstantNormalizer,
    CountNormalizer,
    MovingAverageNormalizer,
    PositivesNormalizer,
    RowWeightsNormalizer,
    TargetScoresNormalizer,
    TermRows,
    divisors,
)
from detloss.registry import NORMALIZERS, options_of
from detloss.terms import Rows

COUNTING = [
    name for name in DIVIDING if {"per", "floor", "plus"} <= options_of(NORMALIZERS[name]).keys()
]
CHOICES = [
    {},
    {"plus": 1},
    {"plus": "images"},
    {"floor": 2.5},
    {"floor": 0.0},
    {"floor": "none"},
    {"floor": "images"},
    {"floor": "images", "plus": 1},
    {"floor": "background"},
    {"times_images": True},
]
PER = ["batch", "image", "images", "level"]


def combined(name):
    """The options of a normalizer in every combination that it takes, but how ranks are shared."""
    if name not in COUNTING:
        return [OPTIONS.get(name, {})]
    levels = NORMALIZERS[name].has_levels
    return [
        {"per": per, **choice}
        for per in PER
        for choice in CHOICES
        if (per, choice.get("floor")) != ("images", "images")
        and (per == "batch" or choice.get("floor") != "background")
        and (per != "level" or levels)
    ]


COMBINED = [(name, options) for name in DIVIDING for options in combined(name)]


def build(name, **options):
    return detloss.build_part("normalizer", {"type": name, **OPTIONS.get(name, {}), **options})


# --- The order: count, sum over the ranks, divide by ranks, plus, floor, over images --------------

ALONE = term_rows([3, 0])
RANKS = [ALONE, term_rows([0, 0])]
"""Three positives on the first of two ranks; each has two images."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, 3, id="positives"),
        pytest.param({"plus": 1}, 4, id="and 1"),
        pytest.param({"plus": "images"}, 5, id="and two images"),
        pytest.param({"floor": 4}, 4, id="at least 4"),
        pytest.param({"floor": 3.5}, 3.5, id="at least 3.5, of an integer count"),
        pytest.param({"floor": 2}, 3, id="more than the floor"),
        pytest.param({"floor": "images"}, 3, id="more than the two images"),
        pytest.param({"floor": "background"}, 3, id="positives, so no background"),
        pytest.param({"plus": 1, "floor": 4}, 4, id="the floor of what was added to"),
        pytest.param({"times_images": True}, 1.5, id="the loss times two images"),
        pytest.param({"per": "image"}, [6, 2], id="3 and at least 1, over two images"),
        pytest.param({"per": "image", "floor": "none"}, [6, 0], id="3 and 0, over two images"),
        pytest.param({"per": "image", "plus": 1}, [8, 2], id="4 and 1, over two images"),
        pytest.param({"per": "image", "plus": "images"}, [10, 4], id="3 + 2 and 0 + 2, over two"),
        pytest.param({"per": "image", "floor": 2}, [6, 4], id="the floor of each, then over two"),
        pytest.param({"per": "image", "floor": "images"}, [6, 4], id="at least 2 each, over two"),
        pytest.param({"per": "image", "times_images": True}, [3, 1], id="the sum over images"),
        pytest.param({"per": "images"}, 4, id="3 and at least 1"),
        pytest.param({"per": "images", "floor": 2}, 5, id="3 and at least 2"),
        pytest.param({"per": "images", "floor": "none"}, 3, id="3 and 0"),
        pytest.param({"per": "images", "plus": 1}, 5, id="3 and at least 1, and 1"),
        pytest.param({"per": "images", "plus": "images"}, 6, id="3 and at least 1, and two images"),
    ],
)
def test_one_process_worked_by_hand(options, expected):
    assert PositivesNormalizer(**options)(ALONE).tolist() == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [1.5, 1.5], id="3 / 2"),
        pytest.param({"plus": 1}, [2, 2], id="(3 + 1) / 2"),
        pytest.param({"plus": "images"}, [3.5, 3.5], id="(3 + 4) / 2"),
        pytest.param({"floor": 5}, [2.5, 2.5], id="max(3, 5) / 2"),
        pytest.param({"floor": "images"}, [2, 2], id="max(3, 4) / 2"),
        pytest.param({"floor": "background"}, [1.5, 1.5], id="3 / 2, though one rank has none"),
        pytest.param({"plus": 1, "floor": 4}, [2, 2], id="max(3 + 1, 4) / 2"),
        pytest.param({"times_images": True}, [0.375, 0.375], id="3 / 2, the loss times four"),
        pytest.param({"per": "images"}, [3, 3], id="(3 + 1 + 1 + 1) / 2"),
        pytest.param({"per": "images", "floor": "none"}, [1.5, 1.5], id="(3 + 0 + 0 + 0) / 2"),
        pytest.param({"per": "image"}, [[6, 2], [2, 2]], id="max(n, 1) * 4 / 2"),
        pytest.param({"per": "image", "plus": 1}, [[8, 2], [2, 2]], id="(n + 1) * 4 / 2"),
        pytest.param({"per": "image", "plus": "images"}, [[14, 8], [8, 8]], id="(n + 4) * 4 / 2"),
        pytest.param({"per": "image", "floor": "images"}, [[8, 8], [8, 8]], id="max(n, 4) * 4 / 2"),
        pytest.param({"floor_after_ranks": True}, [1.5, 1.5], id="max(3 / 2, 1)"),
        pytest.param({"floor_after_ranks": True, "floor": 5}, [5, 5], id="max(3 / 2, 5)"),
        pytest.param({"floor_after_ranks": True, "plus": 1}, [2.5, 2.5], id="3 / 2 + 1"),
        pytest.param({"floor_after_ranks": True, "plus": "images"}, [3.5, 3.5], id="3 / 2 + 2"),
        pytest.param({"floor_after_ranks": True, "floor": "images"}, [2, 2], id="max(3 / 2, 2)"),
        pytest.param(
            {"floor_after_ranks": True, "per": "image", "floor": "images"},
            [[6, 4], [4, 4]],
            id="max(n, 2) * 4 / 2",
        ),
    ],
)
def test_two_ranks_worked_by_hand(options, expected):
    found = on_ranks(PositivesNormalizer(sync=True, **options), RANKS)
    assert [divisor.tolist() for divisor in found] == expected


def test_without_positives_the_background_is_the_floor():
    """Of ten anchors an image, of which one is ignored."""
    counted = torch.ones(2, 10, dtype=torch.bool)
    counted[0, 3] = False
    rows = term_rows([0, 0], counted=counted)
    normalizer = PositivesNormalizer(floor="background", sync=True)
    assert normalizer(rows) == 19
    assert on_ranks(normalizer, [rows, rows]) == [19, 19]
    for per in ("image", "images", "level"):
        with pytest.raises(ValueError, match=f"floor 'background' needs per 'batch', got '{per}'"):
            PositivesNormalizer(floor="background", per=per)


def test_fewer_positives_than_ranks_divide_by_less_unless_the_floor_comes_last():
    """One positive on four ranks: over 1 / 4, as one process has it, or over 1 like other code."""
    ranks = [term_rows([1]), *[term_rows([0])] * 3]
    for after, expected in ((False, 0.25), (True, 1.0)):
        normalizer = PositivesNormalizer(sync=True, floor_after_ranks=after)
        assert {divisor.item() for divisor in on_ranks(normalizer, ranks)} == {expected}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [3, 1, 1], id="3, 1, and at least 1"),
        pytest.param({"floor": "none"}, [3, 1, 0], id="3, 1 and 0"),
        pytest.param({"plus": 1}, [4, 2, 1], id="1 on each"),
        pytest.param({"floor": 2}, [3, 2, 2], id="at least 2 on each"),
        pytest.param({"floor": "images"}, [3, 2, 2], id="at least the two images on each"),
        pytest.param({"times_images": True}, [1.5, 0.5, 0.5], id="the loss times two images"),
    ],
)
def test_levels_worked_by_hand(options, expected):
    """Of three levels the first has two anchors an image, the second one, the last three."""
    positive = [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    rows = term_rows(positive, level_sizes=[2, 1, 3])
    assert PositivesNormalizer(per="level", **options)(rows).tolist() == expected
    nothing = term_rows([[0] * 6], level_sizes=[2, 1, 3])
    found = on_ranks(PositivesNormalizer(per="level", sync=True, floor="none"), [rows, nothing])
    assert [divisor.tolist() for divisor in found] == [[1.5, 0.5, 0]] * 2


# --- Every normalizer -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIVIDING)
def test_ranks_learn_what_one_process_learns(name):
    """The mean of the ranks' losses is the loss of one process, whoever has which images."""
    for options in combined(name):
        normalizer, alone = build(name, sync=True, **options), build(name, **options)
        for seed in range(8):
            rows = random_rows(6, seed=seed)
            sums = torch.rand(rows.positive.shape, dtype=torch.float64)
            parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
            ranks = [images_of(rows, part) for part in parts]
            losses = [
                divided(sums[part], divisor, normalizer, of_rank)
                for part, divisor, of_rank in zip(
                    parts, on_ranks(normalizer, ranks), ranks, strict=True
                )
            ]
            expected = divided(sums, alone(rows), alone, rows)
            assert_close(sum(losses) / 3, expected, rtol=1e-6, atol=0, msg=f"{options}, {seed}")
            if isinstance(alone, MovingAverageNormalizer):
                normalizer.load_state_dict(alone.state_dict())


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("floor", ["none", 0.0, 1.0])
def test_without_a_floor_nothing_divides_by_nothing(name, floor):
    nothing = term_rows(
        [0, 0], counted=torch.zeros(2, 10), rows=torch.zeros(2, 10), level_sizes=[5, 5]
    )
    for per in PER[: 4 if NORMALIZERS[name].has_levels else 3]:
        divisor = build(name, per=per, floor=floor)(nothing)
        images = 2 if per in ("image", "images") else 1
        assert (divisor == (images if floor == 1 else 0)).all()


@pytest.mark.parametrize("name", DIVIDING)
def test_divisors_are_float32_or_as_fine_as_the_count(name):
    rows = random_rows(3)
    assert build(name)(rows).dtype == torch.float32
    fine = replace(rows, target_scores=rows.target_scores.double(), row_weights=rows.positive / 3.0)
    fine.row_weights = fine.row_weights.double()
    wide = {"target_scores", "row_weights"}
    assert build(name)(fine).dtype == (torch.float64 if name in wide else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("per", PER)
def test_half_precision_does_not_overflow_nor_round(dtype, per):
    """70,001 is infinite in float16; bfloat16 would count to 256 and stay there."""
    ones = torch.ones(1, 70_001, dtype=dtype)
    rows = term_rows(ones, target_scores=ones, row_weights=ones, level_sizes=[70_001])
    for normalizer in (TargetScoresNormalizer(per=per), RowWeightsNormalizer(per=per)):
        assert normalizer(rows).item() == 70_001


@pytest.mark.parametrize(("name", "options"), COMBINED, ids=str)
def test_config_round_trips(name, options):
    normalizer = build(name, **options, sync=True)
    assert repr(detloss.build_part("normalizer", normalizer.config())) == repr(normalizer)
    assert normalizer.config()["sync"] is True


@pytest.mark.parametrize("name", COUNTING)
def test_every_count_takes_the_same_options(name):
    cls = NORMALIZERS[name]
    assert issubclass(cls, CountNormalizer)
    assert options_of(cls) == options_of(PositivesNormalizer)


def test_levels_are_asked_for():
    with pytest.raises(ValueError, match="level_sizes must be given where a part asks for levels"):
        PositivesNormalizer(per="level")(term_rows([1]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"per": "batches"}, ValueError, "per: expected 'batch', 'image', 'images' or 'level'"),
        ({"floor": -1.0}, ValueError, "floor: expected a value greater than or equal to 0"),
        ({"floor": "non"}, ValueError, "floor: expected .*'images' or 'background', got 'non'"),
        ({"plus": 2}, ValueError, "plus: expected 0, 1 or 'images', got 2"),
        ({"sync": 1}, TypeError, "sync: expected a valid boolean, got 1"),
        ({"times_images": "yes"}, TypeError, "times_images: expected a valid boolean, got 'yes'"),
        (
            {"per": "images", "floor": "images"},
            ValueError,
            "floor must be a number or 'none' with per 'images', got 'images'",
        ),
    ],
)
@pytest.mark.parametrize("name", COUNTING)
def test_rejects_options(name, options, error, message):
    with pytest.raises(error, match=message):
        NORMALIZERS[name](**options)


def test_the_rows_of_these_tests_are_those_of_a_term():
    names = {name for name, _ in inspect.getmembers(TermRows) if not name.startswith("_")}
    assert names <= set(dir(Rows))
    assert names <= {field.name for field in fields(NumberedRows)} | set(dir(NumberedRows))


# --- What ranks exchange --------------------------------------------------------------------------


@pytest.fixture
def exchanged(monkeypatch):
    """What this process sends in each all_reduce; its twin of two ranks counts the same."""
    sent = []

    def all_reduce(tensor):
        sent.append(tensor.clone())
        tensor *= 2

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    return sent


def test_one_all_reduce_for_all(exchanged):
    rows = random_rows(3)
    normalizers = [build(name, sync=True) for name in DIVIDING]
    normalizers += [
        build(name, sync=True, per="level", floor="none") for name in ("positives", "row_weights")
    ]
    found = divisors([(normalizer, rows) for normalizer in normalizers])
    assert len(exchanged) == 1
    for normalizer, divisor in zip(normalizers, found, strict=True):
        if isinstance(normalizer, MovingAverageNormalizer):
            assert_close(divisor, normalizer.average / 2)
        elif isinstance(normalizer, ConstantNormalizer):
            assert divisor == 10
        else:
            alone = detloss.build_part("normalizer", normalizer.config() | {"sync": False})
            assert_close(divisor, alone(rows))


def test_only_those_with_sync_are_asked_and_alone_is_alone(exchanged):
    rows = term_rows([3, 0])
    alone, shared = PositivesNormalizer(floor=7), PositivesNormalizer(sync=True, floor=10)
    found = divisors([(alone, rows), (shared, rows), (alone, rows)])
    assert [divisor.item() for divisor in found] == [7, 5, 7]
    (sent,) = exchanged
    assert sent.tolist() == [3, 2]


@pytest.mark.parametrize("name", DIVIDING)
def test_without_sync_and_in_evaluation_no_rank_is_asked(name, exchanged):
    rows = random_rows(3)
    found = [build(name, sync=True).eval()(rows), build(name).eval()(rows)]
    assert torch.equal(*found)
    build(name)(rows)
    assert not exchanged


def test_a_number_that_nobody_counts_is_not_sent(exchanged):
    assert ConstantNormalizer(value=4.0, sync=True)(term_rows([1])) == 2
    assert not exchanged


def test_what_is_sent_does_not_depend_on_what_a_rank_counts(exchanged):
    """The weights of its ground truths may make the scores of one rank float64, of another not."""
    rows = term_rows([2, 1])
    fine = replace(rows, target_scores=rows.target_scores.double())
    for one in (rows, fine):
        TargetScoresNormalizer(sync=True)(one)
    first, second = exchanged
    assert first.dtype == second.dtype
    assert torch.equal(first, second)
