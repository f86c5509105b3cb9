"""How many anchors a ground truth takes, and who wins one: by costs that are given."""

import torch
from matching import N, said

from detloss.matchers.dynamic_k import DynamicKMatcher
from detloss.matchers.pairs import Pairs

POINTS = torch.tensor([[8.0 * i, 0, 8 * i + 8, 8] for i in range(5)])


class Given(DynamicKMatcher):
    """Costs by a table (M, A); a ground truth wants the anchors whose cost is finite."""

    scores = True

    def __init__(self, costs, topk=3):
        super().__init__()
        self.costs = torch.tensor(costs)
        self.topk = topk

    def wanted(self, scene):
        row, anchor = (self.costs < torch.inf).nonzero().unbind(1)
        return [Pairs(len(self.costs), row, anchor, None)]

    def cost_of_no_class(self, scene):
        return torch.zeros(len(POINTS))

    def cost(self, scene, row, anchor, overlap, of_no_class):
        return self.costs[row, anchor]


def matches(costs, truths, topk=3):
    """With predictions that are the points themselves."""
    return Given(costs, topk)(POINTS, torch.tensor(truths), pred_boxes=POINTS)


FAR = torch.inf


def test_k_is_the_sum_of_the_best_overlaps_rounded_down_and_at_least_1():
    """20 x 8 holds two points whole and half of a third: IoU 0.4, 0.4 and 1 / 6, together 0.97."""
    found = matches([[3.0, 2.0, 1.0, FAR, FAR]], [[0.0, 0, 20, 8]])
    assert said(found) == [N, N, 0, N, N]


def test_the_score_is_the_overlap():
    """The second overlaps points 1 and 2 by a half: k = 1."""
    truths = [[0.0, 0, 8, 8], [8.0, 0, 24, 8]]
    found = matches([[0.1, 0.2, FAR, FAR, FAR], [FAR, 0.3, 0.2, FAR, FAR]], truths)
    assert said(found) == [0, N, 1, N, N]
    torch.testing.assert_close(found.score, torch.tensor([1.0, 0, 0.5, 0, 0]))


def test_a_contested_anchor_goes_to_the_cheapest_of_all_also_to_one_that_did_not_take_it():
    """Rows 0 and 1 take anchor 0; row 2 has it cheaper still but takes anchor 1."""
    truths = [[0.0, 0, 8, 8]] * 3
    costs = [[0.3, 0.9, FAR, FAR, FAR], [0.4, 0.9, FAR, FAR, FAR], [0.2, 0.1, FAR, FAR, FAR]]
    assert said(matches(costs, truths)) == [2, 2, N, N, N]


def test_of_equal_costs_the_first_are_taken():
    truths = [[0.0, 0, 8, 8], [0.0, 0, 8, 8]]
    costs = [[0.5, 0.5, 0.5, FAR, FAR], [0.5, 0.5, 0.5, FAR, FAR]]
    assert said(matches(costs, truths)) == [0, N, N, N, N]


def test_a_cost_that_is_no_number_is_never_paid():
    found = matches([[float("nan"), 0.9, FAR, FAR, FAR]], [[0.0, 0, 8, 8]])
    assert said(found) == [N, 0, N, N, N]


def test_one_that_wants_no_anchor_takes_those_of_others_if_it_overlaps_any():
    costs = [[0.3, 0.2, FAR, FAR, FAR], [FAR] * 5]
    matcher = Given(costs)
    matcher.cost = lambda scene, row, anchor, *_: matcher.costs[row, anchor].clamp(max=9)
    for last, expected in (
        ([24.0, 0, 32, 8], [1, 0, N, N, N]),
        ([99.0, 0, 107, 8], [N, 0, N, N, N]),
    ):
        truths = torch.tensor([[0.0, 0, 8, 8], last])
        assert said(matcher(POINTS, truths, pred_boxes=POINTS)) == expected
