"""Buffers that keep their values, whatever a module is moved to and from."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from detloss.registry import Part, plain_value


class KeptBuffers(Part):
    """A part with buffers that know the values they began with.

    They follow the module from device to device, and are otherwise spared what would change them:

    - ``.bfloat16()``, ``.half()`` and ``.to(dtype)`` leave their type, which is float32, or float64
      where that is torch's default when the part is built;
    - ``to_empty`` keeps the values, and restores the first ones after the meta device, as does
      ``load_state_dict(..., assign=True)``;
    - a checkpoint without them loads strictly and leaves them as they are.

    `reset_parameters`, which FSDP calls after ``to_empty``, sets the first values again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, float | list[float]] = {}

    def keep_buffer(
        self, name: str, values: float | Sequence[float] | Tensor, *, persistent: bool
    ) -> None:
        """Registers the buffer `name` with a copy of `values`.

        Args:
            name: Its attribute.
            values: What it begins with: a number, or (C,) numbers.
            persistent: Whether it is in the ``state_dict``.

        Raises:
            ValueError: If the values are on the meta device, and so are none.
        """
        device = None
        if isinstance(values, Tensor):
            if values.is_meta:
                raise ValueError(
                    f"{name} must have values, got a tensor on the meta device: pass a list"
                )
            device = values.device
            values = values.tolist()
        first = values if isinstance(values, (int, float)) else list(values)
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self._first[name] = first
        self.register_buffer(
            name, torch.tensor(first, dtype=dtype, device=device), persistent=persistent
        )

    def reset_parameters(self) -> None:
        """Sets every kept buffer to the values that it began with."""
        for name in self._first:
            buffer = self.get_buffer(name)
            buffer.copy_(self._anew(name, buffer.dtype, buffer.device))

    def check_filled(self, beside: Tensor) -> None:
        """Raises RuntimeError where a kept buffer is on the meta device and `beside` is not."""
        for name in self._first:
            if getattr(self, name).is_meta and not beside.is_meta:
                raise RuntimeError(
                    f"{self.type_name} has no values for {name}, which is on the meta device: call "
                    "to_empty(device=...) on the module, which restores them"
                )

    def config(self) -> dict[str, Any]:
        """See `Part.config`; also on the meta device."""
        options = {name: getattr(self, name) for name in self.option_names}
        for name in options.keys() & self._first.keys():
            if options[name].is_meta:
                options[name] = self._anew(name, options[name].dtype, "cpu")
        return {
            "type": self.type_name,
            **{name: plain_value(value) for name, value in options.items()},
        }

    def _anew(self, name: str, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """The first values of a buffer."""
        return torch.tensor(self._first[name], dtype=dtype, device=device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What ``.to``, ``to_empty`` and the like do."""
        before = {name: self.get_buffer(name) for name in self._first}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new = self.get_buffer(name)
            if new.dtype != old.dtype:
                new = torch.empty_like(old, device=new.device)
            if new is not old and not new.is_meta:
                new.copy_(self._anew(name, old.dtype, new.device) if old.is_meta else old)
            self._buffers[name] = new
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *others: Any,
        **more: Any,
    ) -> None:
        """What ``load_state_dict`` does with this module's own buffers."""
        before = {name: self.get_buffer(name) for name in self._first}
        for name, old in before.items():
            if name not in self._non_persistent_buffers_set:
                state_dict.setdefault(prefix + name, old)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others, **more)
        for name, old in before.items():
            new = self.get_buffer(name).to(old.dtype)
            if new.is_meta and local_metadata.get("assign_to_params_buffers", False):
                new = self._anew(name, old.dtype, "cpu")  # nothing else fills it from now on
            self._buffers[name] = new
