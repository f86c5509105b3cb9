"""What is made of the number of examples of each class, for losses of long-tailed data."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detloss.kernels.targets import check_range, per_class_values


def effective_number_weights(counts: Sequence[float] | Tensor, *, beta: float = 0.9999) -> Tensor:
    """Weights of classes by the effective number of their examples, for a `class_weight`.

    ``w_c = (1 - beta) / (1 - beta^n_c)``, scaled so that the weights of all C classes add up to C,
    as in the authors' code: their mean is 1. From ``1 / (1 - beta)`` examples on, more of them
    hardly add to what is known of a class. At beta 0 all classes weigh the same, towards 1 they
    weigh as ``1 / n_c``.

    Args:
        counts: (C,) examples n_c of each class, > 0, such as the boxes of a dataset; one a column.
        beta: In [0, 1); the paper tries 0.9, 0.99, 0.999 and 0.9999.

    Returns:
        (C,) weights > 0 in the default dtype, beside the counts.

    Raises:
        TypeError: If the counts are booleans.
        ValueError: If there are none, they have another shape, one is not positive and finite, or
            beta is out of range.

    Note:
        The paper weighs a row by its class, all its columns alike: with a loss of independent
        answers that is ``weight=weights[target]``, where `class_weight` weighs the columns. With a
        softmax both are the same, but for the mean of class indices, which divides by the sum of
        the weights, in the authors' code by the number of rows.

    Example:
        At beta 1/2 one example counts 1, two count 3/2: weights 1 and 2/3, scaled by 6/5.

        >>> effective_number_weights([1, 2], beta=0.5)
        tensor([1.2000, 0.8000])

    Reference:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
        arXiv:1901.05555.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    check_range("counts", counts, math.inf, positive=True)
    counts = torch.as_tensor(counts)
    if counts.ndim != 1 or not counts.numel():
        raise ValueError(f"counts must have shape (C,), got {tuple(counts.shape)}")
    log_beta = math.log(beta) if beta else -math.inf
    # as a difference 1 - beta^n would lose its digits, at last to 0, where n (1 - beta) is small
    inverse = [-1 / math.expm1(count * log_beta) for count in counts.tolist()]
    weights = torch.tensor(inverse, dtype=torch.float64) * (len(inverse) / sum(inverse))
    return weights.to(torch.get_default_dtype()).to(counts.device)


def log_prior(counts: Sequence[float] | Tensor, logits: Tensor) -> Tensor:
    """``ln(n_c / sum n)`` of examples n, (K,) as the columns of the logits.

    Raises:
        ValueError: If there are more or fewer, or one is not positive and finite.
    """
    values = per_class_values("counts", counts, logits, positive=True)
    return (values / values.sum()).log()
