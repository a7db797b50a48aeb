"""The command line of the benchmarks."""

import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.case import Case
from benchmarks.cases import CASES
from benchmarks.harness import WORKER_NICENESS, Order, measure
from benchmarks.machine import this_machine
from benchmarks.report import Results

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
_progress = Console(stderr=True)
# Where there is no terminal, the table is not folded to 80 columns.
_output = Console(width=None if sys.stdout.isatty() else 100)


@app.command()
def bench(  # noqa: PLR0913 - the options
    *,
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Only this one. May be given again. {', '.join(CASES)}"),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="Pairs of turns; by default what each case says, 3 or 5."),
    ] = None,
    scale: Annotated[float, typer.Option(min=0, help="What the sizes are multiplied by.")] = 1.0,
    address: Annotated[
        str, typer.Option(help="A running Ray, instead of one that starts for each case.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write JSON here, too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Measure raysched beside bare Ray, turn by turn, on the same local Ray.

    Each case has a driver process for either side; each turn of ours is followed or preceded by
    one of the peer. A ratio is that of such a pair, told as median and range; above 1 ours is
    higher. Every task run is committed to SQLite (synchronous=FULL) before anybody sees it.
    """
    chosen = [_case(name) for name in case or CASES]
    began = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="raysched-bench-") as scratch:
        order = Order(Path(scratch), scale, repeats, address)
        machine = this_machine(order.scratch)
        measured = []
        for one in chosen:
            _progress.print(f"{one.name}: {one.described(one.scaled(scale))} …", highlight=False)
            measured.append(measure(one, order))
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    results = Results(machine, command, began.isoformat(timespec="seconds"), measured)
    if output is not None:
        output.write_text(results.json() + "\n", encoding="utf-8")
    if json:
        sys.stdout.write(results.json() + "\n")
        return
    _output.print(results.table())
    _output.print(f"{machine}\n{command}  ({WORKER_NICENESS}=0)", highlight=False)


def _case(name: str) -> Case:
    if name not in CASES:
        message = f"there is no case {name!r}; there are {', '.join(CASES)}"
        raise typer.BadParameter(message, param_hint="--case")
    return CASES[name]
