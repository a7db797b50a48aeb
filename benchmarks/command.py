"""The command line of the benchmarks."""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.case import Case, Measured
from benchmarks.cases import CASES
from benchmarks.databases import private_server
from benchmarks.granularity import measure_curves
from benchmarks.harness import WORKER_NICENESS, Order, local_ray, measure
from benchmarks.machine import this_machine
from benchmarks.report import Results

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
_progress = Console(stderr=True)
# Where there is no terminal, the table is not folded to 80 columns.
_output = Console(width=None if sys.stdout.isatty() else 120)


@app.command()
def bench(  # noqa: PLR0913 - the options
    *,
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Only this one. May be given again. {', '.join(CASES)}"),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="The sizes that the aims are for, also where that takes long."),
    ] = False,
    granularity: Annotated[
        bool,
        typer.Option(
            "--granularity",
            help="Also throughput against the duration of tasks, 1 µs to 1 s; alone without cases.",
        ),
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Pairs of turns; by default what each case says, mostly 3."),
    ] = None,
    scale: Annotated[float, typer.Option(min=0, help="What the sizes are multiplied by.")] = 1.0,
    address: Annotated[
        str, typer.Option(help="A running Ray, instead of one that starts for this run.")
    ] = "",
    postgresql: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="A database for the cases that want PostgreSQL; by default one of a server that "
            "starts for this run, with the settings that it comes with.",
        ),
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write JSON here, too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure raysched beside its peers, turn by turn, on the same local Ray.

    Each case has a driver process for either side; each turn of ours is followed or preceded by
    one of the peer. A ratio is that of such a pair, told as median and range; above 1 ours is
    higher. Every task run is committed to SQLite (synchronous=FULL) before anybody sees it.

    Where a number stands beside the peer's name, it ran so many of the tasks: it needs the same
    time for each, and its rate is compared. (of N) says that the aim is for N tasks: --full.
    """
    chosen = [_case(name) for name in case or ([] if granularity else CASES)]
    began = datetime.now(UTC)
    wanted = any(one.postgresql for one in chosen) and not postgresql
    with (
        tempfile.TemporaryDirectory(prefix="raysched-bench-") as scratch,
        private_server() if wanted else nullcontext(postgresql) as database,
    ):
        order = Order(Path(scratch), scale, repeats, address, full=full, postgresql=database)
        skipped = {one.name: lack for one in chosen if (lack := order.lacks(one))}
        if case and skipped:
            name, lack = next(iter(skipped.items()))
            raise typer.BadParameter(f"{name}: {lack}", param_hint="--case")
        machine = this_machine(order.scratch)
        present = [one for one in chosen if one.name not in skipped]
        with _on_ray(order, needed=granularity or any(one.on_ray for one in present)) as ready:
            measured, failed = _measure_all(present, ready)
            curves = measure_curves(ready, _say) if granularity else ()
    # It may hold a password.
    told = [word.replace(postgresql, "URL") if postgresql else word for word in sys.argv[1:]]
    command = shlex.join(["python", "-m", "benchmarks", *told])
    results = Results(
        machine, command, began.isoformat(timespec="seconds"), measured, skipped | failed, curves
    )
    if output is not None:
        output.write_text(results.json() + "\n", encoding="utf-8")
    if json:
        sys.stdout.write(results.json() + "\n")
    else:
        _print(results)
    if failed:
        raise typer.Exit(1)


def _print(results: Results) -> None:
    if results.cases:
        _output.print(results.table())
    for curve in results.curves:
        _output.print(str(curve), highlight=False)
    for name, lack in results.skipped.items():
        _output.print(f"{name} was not measured: {lack}", highlight=False, markup=False)
    _output.print(f"{results.machine}\n{results.command}  ({WORKER_NICENESS}=0)", highlight=False)


def _measure_all(cases: Sequence[Case], order: Order) -> tuple[list[Measured], dict[str, str]]:
    """Return what was measured, and why other cases failed: they do not cost the rest of a run."""
    measured, failed = [], {}
    for one in cases:
        size = one.scaled(order.scale, full=order.full)
        _say(f"{one.name}: {one.described(size)} …")
        try:
            measured.append(measure(one, order))
        except Exception as error:  # noqa: BLE001 - whatever a side's driver raises
            failed[one.name] = f"{type(error).__name__}: {error}"
            _progress.print_exception()
    return measured, failed


@contextmanager
def _on_ray(order: Order, *, needed: bool) -> Iterator[Order]:
    """Give an order the address of a Ray, if it needs one and has none."""
    if order.address or not needed:
        yield order
        return
    with local_ray() as address:
        yield replace(order, address=address)


def _say(what: str) -> None:
    _progress.print(what, highlight=False)


def _case(name: str) -> Case:
    if name not in CASES:
        message = f"there is no case {name!r}; there are {', '.join(CASES)}"
        raise typer.BadParameter(message, param_hint="--case")
    return CASES[name]
