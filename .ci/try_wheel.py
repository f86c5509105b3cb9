"""The installed package, away from its checkout: a shipped config, and one loss of it."""

import sys

import torch

import detloss

assert detloss.__file__.startswith(sys.prefix), f"not the wheel: {detloss.__file__}"
criterion = detloss.load_config("retinanet")
anchors = torch.tensor([[0.0, 0, 32, 32], [100, 100, 132, 132]])
predictions = {
    "class_logits": torch.zeros(1, 2, 3, requires_grad=True),
    "box_regression": torch.zeros(1, 2, 4, requires_grad=True),
}
targets = [{"boxes": torch.tensor([[2.0, 1, 30, 33]]), "labels": torch.tensor([2])}]
output = criterion(predictions, targets, anchors=anchors)
output.total.backward()
assert all(value > 0 for value in output.terms.values()), output.terms
assert all(prediction.grad.isfinite().all() for prediction in predictions.values())
print(f"detloss {detloss.__version__} from its wheel: {output.log()}")
