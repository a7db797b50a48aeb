"""The report: a picture, a page of Markdown and the tables behind them."""

import io
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from delays import Airport

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
INK, ACCENT, PALE = "#334155", "#dc6b2f", "#94a3b8"
GLOSSARY = (
    "A flight is late if it arrives 15 minutes late or more. *Made up*: minutes gained on the "
    "departure delay. *Spare*: minutes of the schedule not spent in the air. *Worst hour*: of "
    "scheduled departure, with the longest mean delay. *Most punctual*: the airline that is late "
    "least often. *Age*: of the median flight's plane, where the register knows it."
)


def draw(views: Mapping[str, pd.DataFrame]) -> bytes:
    """Four charts of lateness as one PNG: the calendar, the hour, the airline and the weather."""
    # A Figure of its own, without pyplot: no window, no global state.
    figure = Figure(figsize=(14, 9), layout="constrained")
    figure.suptitle("Flights from New York, 2013: which arrived 15 minutes late or more?")
    calendar, hours, airlines, weather = figure.subplots(2, 2).flat
    _draw_calendar(calendar, views["date"])
    _draw_hours(hours, views["hour"])
    _draw_bars(airlines, views["airline"], "airline", "By airline")
    _draw_bars(weather, views["weather"], "conditions", "By the weather at departure")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


def compose(
    views: Mapping[str, pd.DataFrame],
    airports: list[Airport],
    picture: bytes | BaseException,
) -> dict[str, bytes]:
    """The files of the report by name. Without a picture it says why there is none."""
    files = {f"{view}.csv": table.to_csv(index=False).encode() for view, table in views.items()}
    files["airports.csv"] = pd.DataFrame(airports).to_csv(index=False).encode()
    if isinstance(picture, bytes):
        files["delays.png"] = picture
        figure = "![Lateness by date, hour, airline and weather](delays.png)"
    else:
        figure = f"(No picture: {picture})"
    airlines = views["airline"].sort_values("late", ascending=False)
    weather = views["weather"].sort_values("late", ascending=False)
    files["report.md"] = "\n\n".join(
        [
            "# Delays of flights from New York, 2013",
            _summary(views),
            figure,
            "## Airports",
            _airport_table(airports),
            GLOSSARY,
            "## Airlines",
            _delay_table(airlines, "airline"),
            "## Weather at departure",
            _delay_table(weather, "conditions"),
        ],
    ).encode()
    return files


def _summary(views: Mapping[str, pd.DataFrame]) -> str:
    days = views["date"]
    flights = days["flights"].sum()
    cancelled = (days["flights"] * days["cancelled"]).sum() / flights
    late = (days["arrived"] * days["late"]).sum() / days["arrived"].sum()
    worst, closed = (
        days.sort_values(column, na_position="first").iloc[-1] for column in ("late", "cancelled")
    )
    return (
        f"{flights:,} flights on {len(days)} days: {cancelled:.1%} were cancelled, and of the "
        f"arrivals {late:.1%} were late. The worst days: {worst['date']:%-d %B}, "
        f"when {worst['late']:.0%} were late, and {closed['date']:%-d %B}, when "
        f"{closed['cancelled']:.0%} did not leave at all."
    )


def _airport_table(airports: list[Airport]) -> str:
    return _markdown(
        "Airport|Flights|Cancelled|Late|Delay at departure|Made up|Spare|Most punctual|"
        "Worst hour|Age",
        (
            f"{a.direction} {a.name} ({a.code})|{a.flights:,}|{a.cancelled:.1%}|{a.late:.1%}|"
            f"{a.departure_delay:.1f} min|{a.made_up:.1f} min|{a.spare:.0f} min|"
            f"{_short(a.best_airline)}|{a.worst_hour}:00|{a.plane_age:.0f} years"
            for a in airports
        ),
    )


def _delay_table(table: pd.DataFrame, column: str) -> str:
    return _markdown(
        f"{column.capitalize()}|Flights|Cancelled|Late|Delay at departure|Delay at arrival",
        (
            f"{_short(row[column])}|{row['flights']:,}|{row['cancelled']:.1%}|{row['late']:.1%}|"
            f"{row['departure_delay']:.1f} min|{row['arrival_delay']:.1f} min"
            for _, row in table.iterrows()
        ),
    )


def _markdown(header: str, rows: Iterable[str]) -> str:
    rule = "|".join(["---"] + ["--:"] * header.count("|"))
    return "\n".join(f"|{row}|" for row in (header, rule, *rows))


def _short(name: str) -> str:
    return name.removesuffix(" Inc.").removesuffix(" Co.").removesuffix(" Corporation")


def _draw_calendar(axes: Axes, days: pd.DataFrame) -> None:
    grid = np.full((12, 31), np.nan)
    grid[days["date"].dt.month - 1, days["date"].dt.day - 1] = days["late"]
    image = axes.imshow(grid, cmap="YlOrRd", vmin=0, vmax=0.8, aspect="auto")
    axes.set_yticks(range(12), MONTHS)
    axes.set_xticks(range(0, 31, 5), [str(day) for day in range(1, 32, 5)])
    axes.set_title("By day of the year")
    axes.figure.colorbar(image, ax=axes, format="{x:.0%}")


def _draw_hours(axes: Axes, hours: pd.DataFrame) -> None:
    hours = hours[hours["flights"] >= 30]
    for (origin, group), color in zip(hours.groupby("origin"), (INK, ACCENT, PALE), strict=False):
        axes.plot(group["hour"], group["late"], label=origin, color=color, linewidth=2)
    axes.set_title("By hour of scheduled departure: delays add up through the day")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(6, 24, 3), [f"{hour}:00" for hour in range(6, 24, 3)])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_bars(axes: Axes, table: pd.DataFrame, column: str, title: str) -> None:
    table = table.sort_values("late")
    bars = axes.barh([_short(name) for name in table[column]], table["late"], color=ACCENT)
    axes.bar_label(bars, [f" {n:,} flights" for n in table["flights"]], color=INK, fontsize=8)
    axes.set_title(title)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)
