"""The engine: how a formula is run, so that a technique is its maths and nothing else.

Dtypes, weights, reduction and speed are here. `dispatch.py` opens with a map of a call's way.
"""

from detloss.kernels.binary import binary_loss
from detloss.kernels.blocks import BLOCK
from detloss.kernels.dispatch import plain_formulas, run
from detloss.kernels.elementary import softplus, softplus_backward, softplus_with_derivative
from detloss.kernels.formula import Formula
from detloss.kernels.module import Loss
from detloss.kernels.reduction import Reduction
from detloss.kernels.rows import Space, bins_loss, box_loss, check_box_rows
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
    "check_box_rows",
    "dense_target",
    "is_index_target",
    "plain_formulas",
    "run",
    "softmax_loss",
    "softplus",
    "softplus_backward",
    "softplus_with_derivative",
]
