"""What a box loss says of itself. What holds for every registered loss is in test_contract.py."""

import contextlib
from typing import get_args

import pytest
import torch

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
    """It counts as empty, so without that gradient nothing would move its corners."""
    loss = detloss.build_part("box", {"type": name})
    pred = torch.tensor([[60.0, 60, 40, 40]], requires_grad=True)
    target = torch.tensor([[30.0, 30, 70, 70]])
    with plain_formulas() if plain else contextlib.nullcontext():
        value = loss(pred, target)
        value.backward()
    assert value >= 1
    assert (pred.grad[0, :2] > 1e-3).all()  # a step down moves the first corner back
    assert (pred.grad[0, 2:] < -1e-3).all()
    assert pred.grad.abs().max() < 5 / 40  # of the order of one over the target's side


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
