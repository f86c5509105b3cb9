"""Buffers that keep their values, whatever a module is moved to and from."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detloss.buffers import KeptBuffers

TABLE = [0.1, 0.2, 0.7]
NUMBER = 70_001.0
"""No float16 at all, and a bfloat16 only when rounded."""


class Kept(KeptBuffers):
    type_name = "kept"

    def __init__(self, *, table=TABLE):
        super().__init__()
        self.keep_buffer("table", table, persistent=False)
        self.keep_buffer("number", NUMBER, persistent=True)


def values(part):
    return part.table.tolist(), part.number.item()


@pytest.fixture
def changed():
    """A part whose buffers are no more what they began with."""
    part = Kept()
    part.table.mul_(2)
    part.number.add_(1)
    return part


@pytest.mark.parametrize(
    "move",
    [
        lambda part: part.bfloat16(),
        lambda part: part.half(),
        lambda part: part.double(),
        lambda part: part.to("cpu", torch.float16),
        lambda part: part.type(torch.bfloat16),
        lambda part: part.to_empty(device="cpu"),
        lambda part: part.share_memory(),
        lambda part: nn.Sequential(nn.Linear(2, 2), part).bfloat16()[1],
    ],
    ids=["bfloat16", "half", "double", "to", "type", "to_empty", "share_memory", "in a model"],
)
def test_values_and_types_stay(changed, move):
    expected = values(changed)
    moved = move(changed)
    assert values(moved) == expected
    assert moved.table.dtype == moved.number.dtype == torch.float32
    assert moved.table is moved.get_buffer("table")


def test_the_rest_of_a_model_is_moved():
    model = nn.Sequential(nn.Linear(2, 2), Kept()).bfloat16()
    assert model[0].weight.dtype == torch.bfloat16


def test_a_copy_by_apply_is_one():
    part = Kept()
    table = part.table
    part._apply(torch.clone)
    table.zero_()
    assert_close(part.table, torch.tensor(TABLE))


def test_meta_device_and_back(changed):
    on_meta = changed.to("meta").bfloat16()
    assert on_meta.table.is_meta
    assert on_meta.number.is_meta
    back = on_meta.to_empty(device="cpu")
    assert values(back) == values(Kept())
    assert back.table.dtype == torch.float32


@pytest.mark.parametrize("context", [torch.device("meta"), torch.device("cpu")], ids=str)
def test_is_built_under_any_default_device(context):
    with context:
        part = Kept()
    assert part.table.device == part.number.device == context
    assert values(part.to_empty(device="cpu")) == values(Kept())


def test_reset_parameters_is_what_it_began_with(changed):
    changed.reset_parameters()
    assert values(changed) == values(Kept())
    changed.to("meta").reset_parameters()  # nothing to set, and no error


def test_memory_that_nobody_filled_is_refused():
    part = Kept().to("meta")
    part.check_filled(torch.ones(1, device="meta"))
    message = r"kept has no values for table, which is on the meta device: call to_empty\(device="
    with pytest.raises(RuntimeError, match=message):
        part.check_filled(torch.ones(1))
    part.to_empty(device="cpu").check_filled(torch.ones(1))


def test_a_checkpoint_has_what_is_persistent(changed):
    file = io.BytesIO()
    torch.save(changed.state_dict(), file)
    file.seek(0)
    loaded = Kept()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert list(changed.state_dict()) == ["number"]
    assert values(loaded) == (Kept().table.tolist(), NUMBER + 1)


def test_a_checkpoint_without_them_loads_strictly(changed):
    state = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    expected = values(changed)
    model = nn.Sequential(nn.Linear(2, 2), changed)
    model.load_state_dict(state, strict=True)
    assert values(changed) == expected
    assert list(state) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_in_half_the_precision_leaves_the_type(assign):
    part = Kept()
    part.load_state_dict({"number": torch.tensor(3.0, dtype=torch.float16)}, assign=assign)
    assert part.number.dtype == torch.float32
    assert part.number == 3


@pytest.mark.parametrize("state", [{}, {"number": torch.tensor(3.0)}], ids=["older", "newer"])
def test_assigning_a_checkpoint_fills_what_was_on_the_meta_device(state):
    with torch.device("meta"):
        part = Kept()
    part.load_state_dict(state, strict=True, assign=True)
    assert values(part) == (Kept().table.tolist(), state.get("number", NUMBER))


def test_a_checkpoint_of_another_shape_names_the_buffer():
    with pytest.raises(RuntimeError, match=r"size mismatch for number: .*\[1, 2\]"):
        Kept().load_state_dict({"number": torch.ones(1, 2)})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_copy_is_independent(changed, copied):
    other = copied(changed)
    assert values(other) == values(changed)
    other.reset_parameters()
    assert values(other) == values(Kept()) != values(changed)


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor(TABLE),
        torch.tensor(TABLE, dtype=torch.float64),
        torch.tensor(TABLE, requires_grad=True),
        nn.Parameter(torch.tensor(TABLE)),
    ],
    ids=["float32", "float64", "requires_grad", "Parameter"],
)
def test_a_given_tensor_is_copied(given):
    """Also without its graph, with which a module could be neither copied nor saved."""
    part = Kept(table=given)
    with torch.no_grad():
        given.zero_()
    assert_close(part.table, torch.tensor(TABLE))
    assert not part.table.requires_grad
    assert values(copy.deepcopy(part)) == values(Kept())


def test_a_given_list_is_copied():
    given = list(TABLE)
    part = Kept(table=given)
    given[0] = 0.5
    part.reset_parameters()
    assert_close(part.table, torch.tensor(TABLE))


def test_a_tensor_without_values_is_refused():
    with pytest.raises(ValueError, match="table must have values, got a tensor on the meta device"):
        Kept(table=torch.ones(3, device="meta"))


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_the_type_is_never_coarser_than_float32(default, expected):
    """A model may be built with bfloat16 as the default type of torch."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        part = Kept()
    finally:
        torch.set_default_dtype(before)
    assert part.table.dtype == part.bfloat16().table.dtype == expected
    assert_close(part.table, torch.tensor(TABLE, dtype=expected))
