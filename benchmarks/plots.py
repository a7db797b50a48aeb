"""Plots of the results: `python -m benchmarks.plots RESULTS.json DIRECTORY`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, PEER, AIM = "#3f51b5", "#b0b4bb", "#d81b60"
BAR = 0.38
CPU = "driver CPU, µs a task"

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",
        # The same results make the same file.
        "svg.hashsalt": "raysched",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
    }
)


def ratios(axes: "Axes", cases: list[dict[str, Any]]) -> None:
    """Draw the ratio to bare Ray of each case that has one, with its range and its aim."""
    shown = [
        (case["work"], row)
        for case in cases
        for row in case["rows"][:1]
        if row["ratio"] is not None and row["higher_is_better"]
    ]
    for position, (_, row) in enumerate(shown):
        low, high = min(row["ratios"]), max(row["ratios"])
        axes.barh(position, row["ratio"], 2 * BAR, color=OURS)
        axes.plot([low, high], [position, position], color="black", linewidth=1)
        if row["aim"] is not None:
            axes.plot([row["aim"]] * 2, [position - BAR, position + BAR], color=AIM, linewidth=2)
    axes.axvline(1, color=PEER, linewidth=1)
    axes.set_yticks(range(len(shown)), [work for work, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("tasks/s as a ratio to bare Ray in the same run: median, range, aim")


def driver_cpu(axes: "Axes", cases: list[dict[str, Any]]) -> None:
    """Draw the driver's CPU time a task, ours beside the peer's."""
    shown = [(case["work"], row) for case in cases for row in case["rows"] if row["metric"] == CPU]
    for side, colour, shift in (("ours", OURS, -BAR / 2), ("peer", PEER, BAR / 2)):
        axes.barh(
            [position + shift for position in range(len(shown))],
            [row[side] or 0 for _, row in shown],
            BAR,
            color=colour,
            label="raysched" if side == "ours" else "bare Ray",
        )
    axes.set_yticks(range(len(shown)), [work for work, _ in shown])
    axes.invert_yaxis()
    axes.set_xlabel("CPU time of the driver, µs a task")
    axes.legend(frameon=False)


def draw(results: Path, directory: Path) -> None:
    """Write a plot for each of the two into `directory`."""
    from matplotlib.figure import Figure

    cases = json.loads(results.read_text(encoding="utf-8"))["cases"]
    directory.mkdir(parents=True, exist_ok=True)
    for name, plot in (("ratios", ratios), ("driver-cpu", driver_cpu)):
        figure = Figure(figsize=(8, 3), layout="constrained")
        plot(figure.subplots(), cases)
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
