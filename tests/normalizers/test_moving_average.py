"""The loss of a batch over a moving average of the positive anchors."""

import copy

import pytest
import torch
from term_rows import on_ranks, term_rows

from detloss.normalizers import MovingAverageNormalizer


def step(normalizer, *positives):
    rows = term_rows(positives, anchors=max(positives))
    divisor = normalizer(rows)
    assert divisor.shape == ()
    return divisor.item()


def test_worked_by_hand():
    """From 100: (100 + 20) / 2, then (60 + 1) / 2 since no positives count as 1, (30.5 + 9) / 2."""
    normalizer = MovingAverageNormalizer(momentum=0.5)
    assert step(normalizer, 15, 5) == 60
    assert step(normalizer, 0, 0) == 30.5
    assert step(normalizer, 9, 0) == 19.75


@pytest.mark.parametrize(("momentum", "expected"), [(0.0, 7.0), (1.0, 40.0)])
def test_the_ends_of_momentum(momentum, expected):
    assert step(MovingAverageNormalizer(momentum=momentum, initial=40.0), 7) == expected


def test_ranks_average_what_they_have_together():
    """(100 + 24) / 2 of both, divided by two ranks; each keeps the same average."""
    ranks = [term_rows([15, 5], anchors=15), term_rows([4])]
    normalizer = MovingAverageNormalizer(momentum=0.5, sync=True)
    assert [divisor.item() for divisor in on_ranks(normalizer, ranks)] == [31, 31]


def test_evaluation_leaves_it_as_it_is():
    normalizer = MovingAverageNormalizer().eval()
    assert step(normalizer, 3) == step(normalizer, 3000) == 100


def test_is_saved_and_restored():
    """R18: a running number that a resumed run had lost."""
    normalizer = MovingAverageNormalizer()
    step(normalizer, 500)
    resumed = MovingAverageNormalizer()
    resumed.load_state_dict(normalizer.state_dict())
    copied = copy.deepcopy(normalizer)
    assert step(normalizer, 9) == step(resumed, 9) == step(copied, 9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_is_not_rounded_to_the_type_of_a_model(dtype):
    """70,000 positives are infinite in float16, and bfloat16 stops short of the average."""
    normalizer = MovingAverageNormalizer(momentum=0.5, initial=1e5).to(dtype)
    assert normalizer.average.dtype == torch.float32
    assert step(normalizer, 70_000, 1) == 85_000.5


def test_begins_anew_after_the_meta_device():
    """Also where no checkpoint is loaded, as FSDP does it."""
    normalizer = MovingAverageNormalizer(momentum=0.5, initial=7.0)
    step(normalizer, 500)
    normalizer.to("meta").to_empty(device="cpu")
    assert step(normalizer, 1) == 4
    normalizer.reset_parameters()
    assert step(normalizer, 3) == 5


def test_is_not_used_on_the_meta_device_beside_others():
    message = "moving_average has no values for average, which is on the meta device"
    with pytest.raises(RuntimeError, match=message):
        step(MovingAverageNormalizer().to("meta"), 3)


def test_may_be_made_without_memory_first():
    normalizer = MovingAverageNormalizer().to("meta").to_empty(device="cpu")
    normalizer.load_state_dict(MovingAverageNormalizer(initial=7.0).state_dict())
    assert step(normalizer.eval(), 1) == 7


def test_stays_where_an_older_checkpoint_has_no_average():
    normalizer = MovingAverageNormalizer(momentum=0.5, initial=7.0)
    normalizer.load_state_dict({}, strict=True)
    assert step(normalizer, 1) == 4


@pytest.mark.parametrize("positives", [20, 20.0, torch.tensor(20)], ids=repr)
def test_is_moved_by_the_positives_of_a_step(positives):
    """As one call with all of them moves it; 0 count as 1, and in evaluation mode it stays."""
    normalizer = MovingAverageNormalizer(momentum=0.5)
    first = normalizer.move(positives)
    assert normalizer.move(0).item() == 30.5
    assert normalizer.eval().move(1000).item() == 30.5
    assert first.item() == 60


def test_a_divisor_given_away_does_not_change_with_the_next_step():
    normalizer = MovingAverageNormalizer(momentum=0.5)
    divisor = normalizer(term_rows([20], anchors=20))
    step(normalizer, 1)
    assert divisor.item() == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.5}, "momentum: expected a value less than or equal to 1, got 1.5"),
        ({"initial": 0.0}, "initial: expected a value greater than 0, got 0.0"),
    ],
)
def test_rejects_options(options, message):
    with pytest.raises(ValueError, match=message):
        MovingAverageNormalizer(**options)
