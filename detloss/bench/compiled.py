"""What PyTorch's compiler makes of detloss's losses: kernels, time, and the wait for the first."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from detloss.bench.cases.runners import forward_backward
from detloss.bench.measure import Case, compare, in_fresh_process, seconds_of

NOT_GENERATED = r"torch\.ops\.aten\.\w+\.\w+\(|extern_kernels\.\w+\("
"""A call of an operator that the compiler left to PyTorch, in the code that it wrote."""


@dataclass(frozen=True)
class Compilation:
    """What became of a loss in one process.

    Attributes:
        first_seconds: What the first call takes, compilation included.
        kernels: Kernels generated, forward and backward. On a CPU the compiler puts them into one
            function for each, as loops that stand one after the other.
        operators: Calls of operators that it did not generate.
        milliseconds: Median of a run, compiled.
        eager: That of a run in eager mode, in turns with it.
    """

    first_seconds: float
    kernels: int
    operators: int
    milliseconds: float
    eager: float


@dataclass(frozen=True)
class CompiledResult:
    """A case compiled in two fresh processes, one after the other.

    Attributes:
        name: The case.
        title: What was computed, on how much.
        cold: With the compiler's cache empty.
        warm: With what the first process left in it.
    """

    name: str
    title: str
    cold: Compilation
    warm: Compilation


def compile_case(case: Case, device: torch.device) -> Compilation:
    """Compiles the loss of a case, in a process in which nothing was compiled before.

    Raises:
        ValueError: If the case has no loss.
    """
    from torch._inductor import metrics  # what it imports takes seconds
    from torch._inductor.utils import run_and_get_code

    if case.loss is None:
        raise ValueError(f"expected a case with a loss, got {case.title}")
    run = forward_backward(torch.compile(case.loss, fullgraph=True), *case.predictions)
    metrics.reset()
    code: list[str] = []

    def first() -> Sequence[Tensor]:
        result, code[:] = run_and_get_code(run)
        return list(result)

    first_seconds = seconds_of(first, device)
    both = Case(case.title, {"eager": case.runners["detloss"], "compiled": run}, case.input_bytes)
    found = compare(both, "compiled", device)
    return Compilation(
        first_seconds,
        metrics.generated_kernel_count,
        sum(len(re.findall(NOT_GENERATED, text)) for text in code),
        found.milliseconds,
        found.milliseconds / found.ratio,
    )


def compile_cases(names: Sequence[str], device: torch.device) -> list[CompiledResult]:
    """Compiles those cases that have a loss, each twice."""
    results = []
    for name in names:
        setting = name, device, torch.get_num_threads()
        found = in_fresh_process("describe", *setting)
        if not found["has_loss"]:
            continue
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (
                Compilation(**in_fresh_process("compiled", *setting, compiler_cache=cache))
                for _ in range(2)
            )
        results.append(CompiledResult(name, found["title"], cold, warm))
    return results


def compiled_table(results: Sequence[CompiledResult], heading: str) -> Table:
    """A row a case."""
    table = Table(title=f"Compiled, forward and backward ({heading})", title_justify="left")
    table.add_column("")
    columns = "kernels", "operators", "ms", "eager ms", "first call, s", "from the cache, s"
    for column in columns:
        table.add_column(column, justify="right")
    for result in results:
        cold, warm = result.cold, result.warm
        table.add_row(
            f"{result.name}: {result.title}",
            str(cold.kernels),
            str(cold.operators),
            f"{warm.milliseconds:.3g}",
            f"{warm.eager:.3g}",
            f"{cold.first_seconds:.1f}",
            f"{warm.first_seconds:.1f}",
        )
    return table
