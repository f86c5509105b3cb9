"""Who gets an anchor that several ground truths have chosen."""

import torch
from matching import random_scene

from detloss.matchers.claims import contest, first_to_choose, give_to_best_of_all
from detloss.tensors import without_host_sync


def test_a_contested_anchor_goes_to_the_highest_priority_then_to_the_first():
    batch = random_scene(1, 3, anchors=4)
    anchor = torch.tensor([[0, 1], [1, 2], [2, 0]])
    priority = torch.tensor([[0.5, 0.2], [0.3, 0.7], [0.7, 0.9]])
    chosen = torch.tensor([[True, True], [True, True], [True, False]])
    assert contest(batch, batch.every_row, anchor, chosen, priority).tolist() == [0, 1, 1, 3]


def test_the_first_to_choose_is_who_wins_where_all_are_equal():
    batch = random_scene(2, 3, anchors=50)
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randint(50, (6, 20), generator=generator) + 50 * batch.truths.image[:, None]
    chosen = torch.rand(6, 20, generator=generator) < 0.5
    found = first_to_choose(batch, batch.every_row, anchor, chosen)
    assert found.unique().tolist() == [0, 1, 2, 3, 4, 5, 6]
    equal = torch.zeros(6, 20)
    assert torch.equal(found, contest(batch, batch.every_row, anchor, chosen, equal))


def test_only_a_contested_anchor_goes_to_the_best_of_all():
    """Of two images, where only rows 0, 2 and 3 may claim anchors."""
    batch = random_scene(2, 3, anchors=2)
    batch.truths.claims[[1, 4, 5]] = False
    overlap = torch.tensor([[0.1, 0.2], [0.9, 0.9], [0.3, 0.0], [0.5, 0.6], [0, 0], [0, 0]])
    anchor = torch.tensor([[0, 1], [0, 1], [1, 0], [2, 3], [2, 3], [2, 3]])
    chosen = torch.tensor(
        [[True, True], [False] * 2, [True, True], [True, False], *[[False] * 2] * 2]
    )
    owner = contest(batch, batch.every_row, anchor, chosen, torch.ones(6, 2))
    assert owner.tolist() == [0, 0, 3, 6]
    measure = lambda row, anchor: overlap[row, anchor % 2]  # noqa: E731
    found = give_to_best_of_all(batch, owner, anchor, chosen, measure)
    assert found.tolist() == [2, 0, 3, 6]
    with without_host_sync():
        assert give_to_best_of_all(batch, owner, anchor, chosen, measure).tolist() == [2, 0, 3, 6]
