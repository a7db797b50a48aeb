"""`python -m tests.matrix`: what flows mean does not depend on how they are cut into Ray calls.

Runs the tests of what users see again in every cell of a matrix: units of one task run and units as
large as can be, with fusion and without it, inline and on Ray. What the units are by default, the
suite itself runs.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from rich.console import Console
from rich.table import Table

BACKENDS = ("inline", "ray")
SIZES = (1, 1000)
FUSION = ("on", "off")

SUITES = ("tests/face", "tests/units", "tests/test_client.py", "tests/test_examples.py")
RUNS_NOTHING = "tests/face/test_typing.py"
"""Is about types, and slow."""

WITHOUT_RAY = "not TestOnRay and not (test_examples and ray)"
"""Of the same suites, what does not start Ray."""

COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to run flows.

    Attributes:
        backend: `inline` or `ray`.
        size: Task runs that every unit carries, where there are as many.
        fusion: `on` or `off`.
    """

    backend: str
    size: int
    fusion: str

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that force it."""
        return {"RAYSCHED_UNIT_SIZE": str(self.size), "RAYSCHED_FUSION": self.fusion}

    def arguments(self, suites: Iterable[str]) -> list[str]:
        """Return what pytest is called with."""
        chosen = ["-k", WITHOUT_RAY] if self.backend == "inline" else []
        ignored = f"--ignore={RUNS_NOTHING}"
        return ["-q", *suites, ignored, f"--backend={self.backend}", *chosen]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cell.

    Attributes:
        counts: Number of tests by pytest's word.
        seconds: How long it took.
        code: pytest's exit code.
        output: What it printed.
    """

    counts: dict[str, int]
    seconds: float
    code: int
    output: str


QUICK = [Cell("inline", size, "off") for size in SIZES]
"""Both sizes inline, unfused: the suite itself is fused, in units that adapt, inline and on Ray."""


def main() -> int:
    """Run the cells that were asked for; return 1 if one of them failed, else 0."""
    options = _options()
    chosen = product(options.backend, options.size, options.fusion)
    cells = QUICK if options.quick else [Cell(*each) for each in chosen]
    suites = SUITES[:-1] if options.quick else SUITES
    console = Console()
    outcomes: dict[Cell, Outcome] = {}
    for cell in cells:
        console.print(_command(cell, suites), markup=False, highlight=False, soft_wrap=True)
        outcomes[cell] = outcome = _run(cell, suites)
        if outcome.code:
            console.print(outcome.output, markup=False, highlight=False, soft_wrap=True)
    console.print(_table(outcomes))
    return int(any(outcome.code for outcome in outcomes.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.matrix",
        description="Run the tests of what users see in every cell, or in those asked for.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="what CI runs: all cells inline, one on Ray, without the examples",
    )
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--size", nargs="+", type=int, metavar="N", default=SIZES)
    parser.add_argument("--fusion", nargs="+", choices=FUSION, default=FUSION)
    return parser.parse_args()


def _run(cell: Cell, suites: Sequence[str]) -> Outcome:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *cell.arguments(suites)],
        env=os.environ | cell.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    last = done.stdout.strip().rpartition("\n")[2]
    counts = {word: int(number) for number, word in COUNT.findall(last)}
    return Outcome(counts, time.monotonic() - began, done.returncode, done.stdout)


def _command(cell: Cell, suites: Sequence[str]) -> str:
    """Return how to run a cell by hand."""
    variables = " ".join(f"{name}={value}" for name, value in cell.variables.items())
    return f"{variables} pytest {shlex.join(cell.arguments(suites))}"


def _table(outcomes: dict[Cell, Outcome]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("backend")
    table.add_column("unit size", justify="right")
    table.add_column("fusion")
    for name in ("passed", "failed", "skipped", "time"):
        table.add_column(name, justify="right")
    for cell, outcome in outcomes.items():
        counts = outcome.counts
        failed = counts.get("failed", 0) + counts.get("error", 0)
        # Where nothing was collected, or pytest itself broke, no test has failed.
        broken = f"code {outcome.code}" if outcome.code and not failed else str(failed)
        table.add_row(
            cell.backend,
            str(cell.size),
            cell.fusion,
            str(counts.get("passed", 0)),
            broken,
            str(counts.get("skipped", 0)),
            f"{outcome.seconds:.0f} s",
            style="red" if outcome.code else "",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
