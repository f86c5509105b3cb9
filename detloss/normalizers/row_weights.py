"""A term over the sum of its row weights."""

from typing import ClassVar

from torch import Tensor

from detloss.normalizers.base import CountNormalizer, TermRows
from detloss.registry import NORMALIZERS


@NORMALIZERS.register("row_weights")
class RowWeightsNormalizer(CountNormalizer):
    """Divides by the sum of the factors of the rows, which makes the term a weighted mean.

    The factors are `weigh_by`, the weights of the ground truths and the class weights; `weight` and
    `level_weights` are factors of the term and do not count.

    Args: See `CountNormalizer`.

    Example:
        >>> import detloss
        >>> detloss.build_part("normalizer", {"type": "row_weights", "sync": True}).sync
        True

    Reference:
        Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection" (ATSS), CVPR
        2020, arXiv:1912.02424, whose box loss is a mean weighted by centerness.
    """

    of_term: ClassVar[bool] = True
    needs_factors: ClassVar[bool] = True

    def count(self, rows: TermRows) -> Tensor:
        """See `CountNormalizer.count`."""
        return rows.row_weights
