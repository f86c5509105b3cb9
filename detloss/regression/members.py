"""The members of the family of IoU losses: what each adds to ``1 - IoU``.

A loss of `detloss.regression.family` is one of a member. A transform, such as an alpha-IoU, does
something to any of them, and a config names which.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from torch import Tensor

from detloss.boxes.lengths import Lengths
from detloss.boxes.overlaps import OVERLAPS
from detloss.kernels import Reduction
from detloss.kernels.box_pairs import Penalty
from detloss.registry import REGRESSION, OneOf, nearest, option_mistakes
from detloss.regression.base import BoxLoss, Space

IMAGE_SIZE = "image_size"
"""The option of a member that measures by the image."""


@dataclass(frozen=True)
class Member:
    """A loss of the family, told apart: its penalties.

    Attributes:
        penalties: ``penalties(pairs, **options)``, each (...,) and at least 0: plain,
            differentiable. It defines the loss.
        fused: ``fused(pairs, **options)``, the same with gradients by hand; None for autograd.
        option_names: What options both take.
        options: Those that are not left at their defaults. A tensor (..., 2) is a width and a
            height of each row, or the same of all, and reaches the penalties as lengths (2, ...).
    """

    penalties: Callable[..., Sequence[Tensor]]
    fused: Callable[..., Sequence[Penalty]] | None = None
    option_names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def having(self, **options: Any) -> "Member":
        """The same member with those options, too."""
        options = {**self.options, **options}
        return Member(self.penalties, self.fused, self.option_names, options)

    @property
    def reads_image_size(self) -> bool:
        """Whether it measures by the image, and has not been told the image's size."""
        return IMAGE_SIZE in self.option_names and self.options.get(IMAGE_SIZE) is None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The options that are tensors."""
        return {name: given for name, given in self.options.items() if isinstance(given, Tensor)}

    def options_with(self, lengths: Sequence[Tensor]) -> dict[str, Any]:
        """The options, with these in place of `tensors`."""
        return {**self.options, **dict(zip(self.tensors, lengths, strict=True))}

    def overlap(self, pairs: Lengths) -> Tensor:
        """``IoU - sum of penalties``, (...,)."""
        overlap = pairs.iou
        for penalty in self.penalties(pairs, **self.options):
            overlap = overlap - penalty
        return overlap


MEMBERS: dict[str, Member] = {}
"""The members of the family by the name of their loss, with the defaults of their options."""


def member(
    name: str,
    penalties: Callable[..., Sequence[Tensor]],
    fused: Callable[..., Sequence[Penalty]] | None = None,
) -> Member:
    """Makes the member that a loss of that name is of, for transforms to find.

    Every option has a default, so its overlap is a kind of `detloss.boxes.paired_overlap`, too.
    """
    _, *options = inspect.signature(penalties).parameters
    made = Member(penalties, fused, tuple(options))
    MEMBERS[name] = made
    OVERLAPS[name] = made.overlap
    return made


def member_of(given: "GivenMember") -> Member:
    """The member of a name, or of a mapping with that `type` and its options.

    Raises:
        TypeError: If it is neither, or an option is unknown or of another type.
        ValueError: If there is no such member, or an option has a wrong value.

    Example:
        >>> member_of({"type": "siou", "theta": 2.0}).options
        {'theta': 2.0}
    """
    if isinstance(given, Member):
        return given
    options: dict[str, Any] = {}
    if isinstance(given, Mapping):
        options = {option: value for option, value in given.items() if option != "type"}
    name = given.get("type") if isinstance(given, Mapping) else given
    if not isinstance(name, str):
        raise TypeError(f"member must be a name or a mapping with a type, got {given!r}")
    if name not in MEMBERS:
        known = ", ".join(sorted(MEMBERS))
        raise ValueError(f"member must be one of {known}, got {name!r}{nearest(name, MEMBERS)}")
    if not options:
        return MEMBERS[name]
    for option, mistake in option_mistakes(REGRESSION[name], options).items():
        raise type(mistake)(f"member.{option}: {mistake}")
    for option in options:
        if option not in MEMBERS[name].option_names:
            raise TypeError(f"member.{option}: not an option of the penalties of {name}")
    return MEMBERS[name].having(**options)


GivenMember = str | Mapping[str, Any] | Member
"""What a transform takes for a member, see `member_of`."""
MemberOption = Annotated[str, OneOf(MEMBERS)] | Mapping[str, Any]
"""The same in a config."""


class MemberLoss(BoxLoss):
    """A transform as a module: a loss of the family with a member that a config names.

    Args:
        member: See `member_of`.
        reduction: "mean", "sum", "image" or "none".
    """

    space: ClassVar[Space] = "boxes"

    def __init__(self, member: MemberOption, reduction: Reduction) -> None:
        super().__init__(reduction)
        self._member = member_of(member)  # a compiler cannot look into the check of options
        self.member = member

    @property
    def reads_image_size(self) -> bool:
        """See `BoxLoss.reads_image_size`: where its member does."""
        return self._member.reads_image_size

    def in_images(self, image_size: Tensor) -> dict[str, Any]:
        """See `BoxLoss.in_images`."""
        if IMAGE_SIZE not in self._member.option_names:
            return super().in_images(image_size)
        return {"member": self._member.having(image_size=image_size)}

    def options(self) -> dict[str, Any]:
        """See `Loss.options`."""
        return {**super().options(), "member": self._member}
