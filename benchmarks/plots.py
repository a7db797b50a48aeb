"""Plots of the results: `python -m benchmarks.plots RESULTS.json DIRECTORY`.

They have no background, and colours that can be read on white and on black alike.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from benchmarks.metrics import TIMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#7b818a"
OURS, PEER, AIM = "#5c6bc0", "#9aa0a8", "#e0407f"
SYSTEMS = {
    "raysched": OURS,
    "bare Ray": "#d98200",
    "joblib on Ray": "#2e9d78",
    "dask.distributed": "#e0407f",
}
BAR = 0.38
CPU = "driver CPU, µs a task"
LINE = 0.28
"""Height of a bar with what is around it (inches)."""

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        # The same results make the same file.
        "svg.hashsalt": "raysched",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": INK,
        "grid.alpha": 0.3,
    }
)

Shown = list[tuple[dict[str, Any], dict[str, Any]]]
"""Cases, each with one of its rows."""


def rated(cases: Sequence[dict[str, Any]]) -> Shown:
    """Return the cases that have a rate and a peer, with that row."""
    return [
        (case, row)
        for case in cases
        for row in case["rows"]
        if row["metric"] == "tasks/s" and row["ratio"] is not None and row["aim_of"] == "ratio"
    ]


def priced(cases: Sequence[dict[str, Any]]) -> Shown:
    """Return the cases that tell the driver's CPU time, with that row."""
    return [(case, row) for case in cases for row in case["rows"] if row["metric"] == CPU]


def ratios(axes: "Axes", shown: Shown) -> None:
    """Draw the ratio to the peer of each case, with its range and its aim."""
    for position, (_, row) in enumerate(shown):
        low, high = min(row["ratios"]), max(row["ratios"])
        # From 1 on: left of it ours is slower.
        axes.barh(position, row["ratio"] - 1, 2 * BAR, left=1, color=OURS)
        axes.plot([low, high], [position, position], color=INK, linewidth=1.5)
        ahead = row["ratio"] >= 1
        axes.annotate(
            f"{row['ratio']:.3g}",
            (high if ahead else low, position),
            (5 if ahead else -5, 0),
            textcoords="offset points",
            ha="left" if ahead else "right",
            va="center",
        )
        if row["aim"] is not None:
            axes.plot([row["aim"]] * 2, [position - BAR, position + BAR], color=AIM, linewidth=2)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_yticks(
        range(len(shown)), [f"{case['work']}\nbeside {case['peer']}" for case, _ in shown]
    )
    axes.invert_yaxis()
    axes.set_xlabel("tasks/s as a ratio to the peer in the same run: median, range, aim")


def driver_cpu(axes: "Axes", shown: Shown) -> None:
    """Draw the driver's CPU time a task, ours beside the peer's."""
    for side, colour, shift in (("ours", OURS, -BAR / 2), ("peer", PEER, BAR / 2)):
        axes.barh(
            [position + shift for position in range(len(shown))],
            [row[side] or 0 for _, row in shown],
            BAR,
            color=colour,
            label="raysched" if side == "ours" else "peer",
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [case["work"] for case, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("CPU time of the driver, µs a task")
    axes.legend(frameon=False)


def throughput(axes: "Axes", curves: Sequence[dict[str, Any]], cores: int) -> None:
    """Draw tasks a second against the duration of a task, with what the cores could do."""
    durations = [point["seconds"] for point in curves[0]["points"]]
    axes.plot(
        durations,
        [cores / seconds for seconds in durations],
        color=INK,
        linestyle="--",
        label=f"{cores} cores without a scheduler",
    )
    for curve in curves:
        smallest = curve["metg"]
        told = f"METG {_duration(smallest)}" if smallest else "METG not reached"
        axes.plot(
            durations,
            [point["rate"] for point in curve["points"]],
            color=SYSTEMS[curve["system"]],
            marker="o",
            markersize=3,
            label=f"{curve['system']}, {told}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid()
    axes.set_xlabel("CPU time of a task, s")
    axes.set_ylabel("tasks/s")
    axes.legend(frameon=False)


def efficiency(axes: "Axes", curves: Sequence[dict[str, Any]]) -> None:
    """Draw efficiency against granularity, in which METG(50 %) is read."""
    for curve in curves:
        axes.plot(
            [point["granularity"] for point in curve["points"]],
            [100 * point["efficiency"] for point in curve["points"]],
            color=SYSTEMS[curve["system"]],
            marker="o",
            markersize=3,
            label=curve["system"],
        )
    axes.axhline(50, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0, 105)
    axes.grid()
    axes.set_xlabel(f"granularity: wall time {TIMES} cores / tasks, s")
    axes.set_ylabel("efficiency, %")
    axes.legend(frameon=False)


def draw(results: Path, directory: Path) -> None:
    """Write a plot into `directory` for each kind of results that there is."""
    from matplotlib.figure import Figure

    read = json.loads(results.read_text(encoding="utf-8"))
    directory.mkdir(parents=True, exist_ok=True)

    def save(name: str, figure: Figure) -> None:
        metadata = {"Date": None}
        figure.savefig(directory / f"{name}.svg", metadata=metadata, transparent=True)

    for name, plot, shown, lines in (
        ("ratios", ratios, rated(read["cases"]), 2),
        ("driver-cpu", driver_cpu, priced(read["cases"]), 1),
    ):
        if shown:
            figure = Figure(figsize=(9, 1 + lines * LINE * len(shown)), layout="constrained")
            plot(figure.subplots(), shown)
            save(name, figure)
    if curves := read["granularity"]:
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        throughput(left, curves, read["machine"]["cores"])
        efficiency(right, curves)
        save("granularity", figure)


def _duration(seconds: float) -> str:
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.1f} ms"


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
