"""Results as a table and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from benchmarks.case import TIMES, Measured, Row
from benchmarks.machine import Machine

FORMAT = 1
"""Version of the JSON."""


@dataclass(frozen=True, slots=True)
class Results:
    """All cases of one run of the benchmarks.

    Attributes:
        machine: Where.
        command: How, for people.
        at: When (ISO 8601, UTC).
        cases: What.
    """

    machine: Machine
    command: str
    at: str
    cases: Sequence[Measured]

    def json(self) -> str:
        """Return everything, each turn too, as JSON."""
        return json.dumps(
            {
                "format": FORMAT,
                "at": self.at,
                "command": self.command,
                "machine": asdict(self.machine),
                "cases": [_plain(measured) for measured in self.cases],
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
            case = measured.case
            heading = Text(case.described(measured.size), "bold")
            peer = case.peer.name if case.peer else "-"
            table.add_row(heading, "", Text(peer, "bold"))
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
        "" if row.ratio is None else f"{row.ratio:.2f} {TIMES}",
        f"{min(row.ratios):.2f}..{max(row.ratios):.2f}" if row.ratios else "",
        str(row.aim),
        _MARKS[row.met],
    )


_MARKS = {True: Text("✓", "green"), False: Text("✗", "red"), None: Text()}


def _plain(measured: Measured) -> dict[str, Any]:
    case = measured.case
    return {
        "name": case.name,
        "work": case.described(measured.size),
        "size": measured.size,
        "peer": case.peer.name if case.peer else None,
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
        "aim": row.aim.bound,
        "aim_of": "ratio" if row.aim.of_ratio else "ours",
        "higher_is_better": row.aim.metric.higher_is_better,
        "met": row.met,
    }
