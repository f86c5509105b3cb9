"""What a run costs an accelerator: kernel launches, passes over memory and host syncs.

On a GPU a loss is bound by these, not by arithmetic: a launch costs 5 to 10 microseconds whatever
it computes, a pass the size of a tensor over the bandwidth, a host sync waits for all before it.
Tensors on the meta device have shapes and no values, so that counting needs neither GPU nor time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detloss.bench.cases import COUNTED
from detloss.bench.measure import Case

NO_KERNEL = ("aten::empty", "aten::new_empty", "aten::_unsafe_view", "aten::lift")
"""Beginnings of the operators that only reserve or rename memory; views say so themselves."""
SYNCS = (
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::masked_select",
    "aten::nonzero",
    "aten::_unique2",
    "aten::unique_dim",
)
"""Operators whose result, or its size, the host waits for."""


@dataclass(frozen=True)
class Counts:
    """What a run costs an accelerator.

    Attributes:
        launches: Operators that start a kernel. One that PyTorch makes of several counts once.
        passes: Bytes of all arguments and results of those, over the unit's. An upper bound: a
            gather counts as if it read its whole source, and ``out=`` as if it were read, too.
        host_syncs: How often the host waits for a value.
    """

    launches: int
    passes: float
    host_syncs: int


@dataclass(frozen=True)
class CountedResult:
    """What each runner of a case costs.

    Attributes:
        name: The case.
        title: What is computed, on how much.
        counts: Runner -> its counts. One that asks for values is counted on a CPU.
    """

    name: str
    title: str
    counts: dict[str, Counts]


def count(run: Callable[[], object], unit_bytes: int) -> Counts:
    """Runs that once and counts; a pass is `unit_bytes`, such as those of the logits.

    Raises:
        RuntimeError: If it asks for a value that a tensor on the meta device does not have.

    Example:
        >>> x = torch.empty(1000, device="meta")
        >>> count(lambda: x.exp().view(10, 100).add_(1), x.nbytes)
        Counts(launches=2, passes=4.0, host_syncs=0)
    """
    with _Counter() as counter:
        run()
    return Counts(counter.launches, counter.bytes / unit_bytes, counter.host_syncs)


def count_cases(names: Sequence[str]) -> list[CountedResult]:
    """Counts detloss and its peers."""
    results = []
    for name in names:
        case = COUNTED[name](torch.device("meta"), 1.0)
        counts = {runner: _count(name, case, runner) for runner in case.runners}
        results.append(CountedResult(name, case.title, counts))
    return results


def _count(name: str, case: Case, runner: str) -> Counts:
    """On the meta device, and where a value is asked for on a CPU, with its host syncs."""
    try:
        return count(case.runners[runner], case.input_bytes)
    except (NotImplementedError, RuntimeError):
        if runner == "detloss":
            raise
    case = COUNTED[name](torch.device("cpu"), 1.0)
    return count(case.runners[runner], case.input_bytes)


def counts_table(results: Sequence[CountedResult], heading: str) -> Table:
    """A row a runner."""
    title = f"Launches and passes over memory, forward and backward ({heading})"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("launches", "passes", "host syncs"):
        table.add_column(column, justify="right")
    for result in results:
        for runner, counts in result.counts.items():
            name = result.name if runner == "detloss" else f"- {runner}"
            passes, syncs = f"{counts.passes:.1f}", f"{counts.host_syncs or ''}"
            table.add_row(name, str(counts.launches), passes, syncs)
    return table


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = self.bytes = self.host_syncs = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if _starts_a_kernel(func):
            self.launches += 1
            self.bytes += sum(tensor.nbytes for tensor in _tensors((args, kwargs, result)))
            self.host_syncs += func.name().split(".")[0] in SYNCS or _masked(func, args)
        return result


def _starts_a_kernel(func: Any) -> bool:
    """Whether that operator is neither a view nor a mere reservation of memory."""
    aliases = [argument.alias_info for argument in func._schema.arguments]
    is_view = any(alias is not None and not alias.is_write for alias in aliases)
    return not is_view and not func.name().startswith(NO_KERNEL)


def _masked(func: Any, args: Sequence[Any]) -> bool:
    """Whether that operator takes rows by a mask, whose number the host waits for."""
    if not func.name().startswith(("aten::index.", "aten::index_put")):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in arguments and results, however deep."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
