"""What a box loss says of itself. What holds for every registered loss is in test_contract.py."""

import contextlib
from typing import get_args

import pytest
import torch
from torch.testing import assert_close

import detloss
from detloss.kernels import Space, plain_formulas
from detloss.registry import CODERS, REGRESSION
from detloss.regression import BoxLoss


@pytest.mark.parametrize("name", REGRESSION.names())
def test_every_loss_states_its_space(name):
    assert issubclass(REGRESSION[name], BoxLoss)
    assert REGRESSION[name].space in get_args(Space)


@pytest.mark.parametrize("name", REGRESSION.names())
def test_every_space_has_a_coder(name):
    assert any(REGRESSION[name].space in CODERS[coder].spaces for coder in CODERS.names())


ON_BOXES = [name for name in REGRESSION.names() if REGRESSION[name].space == "boxes"]


@pytest.mark.parametrize("plain", [False, True], ids=["closed form", "plain formula"])
@pytest.mark.parametrize("name", ON_BOXES)
def test_an_inverted_box_inside_its_target_has_a_gradient_that_turns_it(name, plain):
    """It counts as empty, so without that gradient nothing would move its corners.

    What turns it is the gradient of ``d / (d + s) / 2``: 20 deep and of a target 40 wide, it is
    ``40 / 60^2 / 2 = 1 / 180``. The last corner has that alone. The first one is the flat box that
    counts, 10 off the centre: it may be drawn back there, too.
    """
    loss = detloss.build_part("box", {"type": name})
    pred = torch.tensor([[60.0, 60, 40, 40]], requires_grad=True)
    target = torch.tensor([[30.0, 30, 70, 70]])
    with plain_formulas() if plain else contextlib.nullcontext():
        value = loss(pred, target)
        value.backward()
    assert value >= 1
    first, last = pred.grad[0].view(2, 2)
    assert_close(last, torch.full((2,), -1 / 180), rtol=0, atol=1e-5)
    of_flat_box = first - 1 / 180
    assert (of_flat_box > -1e-6).all()
    assert (of_flat_box < 2 / 40).all()


@pytest.mark.parametrize("name", ON_BOXES)
def test_a_head_of_raw_corners_unlearns_inverted_boxes(name):
    """Corners anywhere, most of them the wrong way round; a loss flat where boxes are apart too."""
    loss = detloss.build_part("box", {"type": name, "reduction": "sum"})
    generator = torch.Generator().manual_seed(0)
    corners = (100 * torch.rand(200, 4, generator=generator)).requires_grad_()
    target = torch.tensor([[30.0, 20, 70, 80]]).expand(200, 4)
    assert (corners[:, :2] > corners[:, 2:]).any(1).sum() > 140
    optimizer = torch.optim.Adam([corners], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        loss(corners, target).backward()
        optimizer.step()
    assert (corners[:, :2] < corners[:, 2:]).all()
