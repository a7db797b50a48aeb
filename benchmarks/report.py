"""Results as a table and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from benchmarks.case import Measured, Row, Side
from benchmarks.granularity import Curve
from benchmarks.machine import Machine
from benchmarks.metrics import TIMES, Of

FORMAT = 3
"""Version of the JSON."""


@dataclass(frozen=True, slots=True)
class Results:
    """All cases of one run of the benchmarks.

    Attributes:
        machine: Where.
        command: How, for people.
        at: When (ISO 8601, UTC).
        cases: What.
        skipped: Why other cases were not measured, or failed, by name.
        curves: Throughput against the duration of tasks, of each system.
    """

    machine: Machine
    command: str
    at: str
    cases: Sequence[Measured]
    skipped: Mapping[str, str] = field(default_factory=dict)
    curves: Sequence[Curve] = ()

    def json(self) -> str:
        """Return everything, each turn too, as JSON."""
        return json.dumps(
            {
                "format": FORMAT,
                "at": self.at,
                "command": self.command,
                "machine": asdict(self.machine),
                "cases": [_plain(measured) for measured in self.cases],
                "skipped": dict(self.skipped),
                "granularity": [curve.plain() for curve in self.curves],
            },
            indent=1,
            ensure_ascii=False,
        )

    def table(self) -> Table:
        """Return the table."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("", min_width=30, ratio=1)
        for name in ("raysched", "peer", "ratio", "min..max", "aim", ""):
            table.add_column(name, justify="right", no_wrap=True)
        for measured in self.cases:
            peer = measured.case.peer
            table.add_row(
                Text(_heading(measured), "bold"),
                "",
                Text(_peer_heading(measured, peer) if peer else "-", "bold"),
            )
            for row in measured.rows():
                table.add_row(*_cells(row))
            table.add_section()
        return table


def _cells(row: Row) -> tuple[str | Text, ...]:
    metric = row.aim.metric
    return (
        f"  {metric.name}",
        f"{row.ours:,.{metric.decimals}f}",
        "" if row.peer is None else f"{row.peer:,.{metric.decimals}f}",
        _compared(row),
        f"{min(row.ratios):.2f}..{max(row.ratios):.2f}" if row.ratios else "",
        str(row.aim),
        _MARKS[row.met],
    )


def _compared(row: Row) -> str:
    if row.aim.of is Of.DIFFERENCE and row.difference is not None:
        return f"{row.difference:+.2f}"
    return "" if row.ratio is None else f"{row.ratio:.2f} {TIMES}"


def _heading(measured: Measured) -> str:
    case, size = measured.case, measured.size
    # The aim is for the size of the case.
    smaller = f" (of {case.size:,})" if size < case.size else ""
    return case.described(size) + smaller


def _peer_heading(measured: Measured, peer: Side) -> str:
    tasks = peer.tasks(measured.size)
    return peer.name if tasks == measured.size else f"{peer.name}, {tasks:,}"


_MARKS = {True: Text("met", "green"), False: Text("not met", "red"), None: Text()}


def _plain(measured: Measured) -> dict[str, Any]:
    case = measured.case
    return {
        "name": case.name,
        "work": case.described(measured.size),
        "size": measured.size,
        "size_of_the_aim": case.size,
        "peer": case.peer.name if case.peer else None,
        "peer_size": case.peer.tasks(measured.size) if case.peer else None,
        "rows": [_plain_row(row) for row in measured.rows()],
        "turns": {
            "ours": [asdict(turn) for turn in measured.ours],
            "peer": [asdict(turn) for turn in measured.peer],
        },
    }


def _plain_row(row: Row) -> dict[str, Any]:
    return {
        "metric": row.aim.metric.name,
        "ours": row.ours,
        "peer": row.peer,
        "ratio": row.ratio,
        "ratios": row.ratios,
        "difference": row.difference,
        "aim": row.aim.bound,
        "aim_of": row.aim.of.value,
        "higher_is_better": row.aim.metric.higher_is_better,
        "met": row.met,
    }
