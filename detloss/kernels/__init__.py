"""How a formula is run: dtypes, weights, reduction and speed, so that techniques are maths only."""

from detloss.kernels.binary import binary_loss
from detloss.kernels.blocks import BLOCK
from detloss.kernels.dispatch import plain_formulas, run
from detloss.kernels.elementary import softplus, softplus_with_slope
from detloss.kernels.formula import Formula
from detloss.kernels.module import Loss
from detloss.kernels.reduction import Reduction
from detloss.kernels.rows import Space, bins_loss, box_loss
from detloss.kernels.softmax import softmax_loss
from detloss.kernels.targets import dense_target, is_index_target

__all__ = [
    "BLOCK",
    "Formula",
    "Loss",
    "Reduction",
    "Space",
    "binary_loss",
    "bins_loss",
    "box_loss",
    "dense_target",
    "is_index_target",
    "plain_formulas",
    "run",
    "softmax_loss",
    "softplus",
    "softplus_with_slope",
]
