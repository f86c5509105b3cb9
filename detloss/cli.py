"""``detloss ...``: what is there, whether a config is right, and how fast it is here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
import yaml
from rich.console import Console
from rich.table import Table

import detloss
from detloss.docstrings import papers_of
from detloss.registry import SECTIONS, TERMS, Part, options_of
from detloss.terms import Term

Threads = Annotated[int, typer.Option(help="CPU threads; 0 for PyTorch's choice")]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
console = Console()


@app.command("list")
def list_parts() -> None:
    """Every part that a config can name, its paper, and the options that a config takes."""
    for section, registry in SECTIONS.items():
        parts = {name: registry[name] for name in registry.names()}
        papers = {name: papers_of(part) for name, part in parts.items()}
        first = {name: found[0].short() if found else "" for name, found in papers.items()}
        _print_parts(section, parts, ("type", "paper"), first)
    terms = {name: cast(type[Term], TERMS[name]) for name in TERMS.names()}
    roles = {name: term.losses.role for name, term in terms.items()}
    _print_parts("terms", terms, ("key", "takes a"), roles)


def _print_parts(
    title: str,
    parts: Mapping[str, type[Part]],
    columns: tuple[str, str],
    about: Mapping[str, str],
) -> None:
    """A row a part; options that all of them take, with one default, have a row of their own."""
    table = Table(title=f"{title}:", title_justify="left", box=None)
    for column in columns:
        table.add_column(column, no_wrap=True)
    table.add_column("options")
    options = {name: _options(part) for name, part in parts.items()}
    first, *others = options.values()
    common = [option for option in first if all(option in other for other in others)]
    if common:
        table.add_row("(all)", "", ", ".join(common))
    for name, found in options.items():
        own = ", ".join(option for option in found if option not in common)
        table.add_row(name, about[name], own)
    console.print(table)


def _options(part: type[Part]) -> list[str]:
    """The options that a config gives a part, with their defaults.

    The loss of a term stands in the term's own mapping, and a normalizer is there for a reduction.
    """
    return [
        str(parameter).split(":")[0] + _default(parameter)
        for name, parameter in options_of(part).items()
        if name not in ("loss", "reduction")
    ]


def _default(parameter: Any) -> str:
    return "" if parameter.default is parameter.empty else f"={parameter.default!r}"


@app.command()
def check(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config")],
) -> None:
    """Build a config and print it resolved; exit with its mistakes if it has any."""
    try:
        criterion = detloss.load_config(config)
    except (detloss.ConfigError, FileNotFoundError) as error:
        console.print(str(error), style="red", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(1) from None
    typer.echo(yaml.safe_dump(criterion.config(), sort_keys=False), nl=False)


@app.command()
def bench(
    only: Annotated[
        str, typer.Option(help="Cases of these names, or that contain them; comma-separated")
    ] = "",
    threads: Threads = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda; meta counts launches and passes instead of timing")
    ] = "cpu",
    processes: Annotated[int, typer.Option(help="Processes that time each pair")] = 1,
    memory: Annotated[bool, typer.Option(help="Take peaks too, each in a fresh process")] = True,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compile the losses, and count their kernels")
    ] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table of medians")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no tables")] = False,
) -> None:
    """Time detloss against the peers that are installed, and compare the results."""
    from detloss.bench import compiled as compiler
    from detloss.bench import launches, report
    from detloss.bench.cases import COUNTED, TIMED

    if threads:
        torch.set_num_threads(threads)
    names, on = only.split(","), torch.device(device)
    here = report.machine(on)
    found: Sequence[Any]
    if on.type == "meta":
        found = counted = launches.count_cases(report.chosen(names, COUNTED))
        printed: Any = launches.counts_table(counted, here)
    elif compiled:
        found = kernels = compiler.compile_cases(report.chosen(names, TIMED), on)
        printed = compiler.compiled_table(kernels, here)
    else:
        found = timed = report.run_cases(
            report.chosen(names, TIMED), on, processes=processes, memory=memory, show=not as_json
        )
        printed = report.medians(timed) if as_markdown else report.tables(timed)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in found], indent=2))
    elif as_markdown:
        typer.echo(report.markdown(printed))
    else:
        console.print(printed)


@app.command()
def scaling(
    picture: Annotated[Path, typer.Argument(help="A file to write, .png or .svg")],
    threads: Threads = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Draw how time grows with anchors, classes, objects and images, and say where it jumps."""
    from detloss.bench.report import machine
    from detloss.bench.scaling import draw, jumps, time_sweeps

    if threads:
        torch.set_num_threads(threads)
    on = torch.device(device)
    times = time_sweeps(on)
    draw(times, picture, machine(on))
    for jump in jumps(times):
        typer.echo(jump)


def main() -> None:
    """Entry point of the ``detloss`` command."""
    app()
