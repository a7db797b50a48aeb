"""Where do flights from New York lose their time? A year of real data, from CSV files to a report.

What it shows: a map over the months of the year, tables handed to every task run (`unmapped`), a
fan-out over airports that are known only when the run gets there, and a fan-in to a report that
survives without its picture (`allow_failure`). The tasks are plain functions of the modules beside
this file, and all data passes between them as arguments and results.

How to run, after `pip install -e ".[examples]"`:

    raysched run examples/flights/flow.py
    raysched run examples/flights/flow.py --param months='[1,2]' --param destinations=3
    python examples/flights/flow.py

What you will see: 336,776 flights become `flights-report/report.md`, with a picture and the tables
behind it, in the directory where you started it. New York's worst hours, airlines and days.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

import delays
import nyc
import report
from raysched import allow_failure, flow, get_run_logger, task, unmapped

Month = Annotated[int, Field(ge=1, le=12)]

# Files may lie on a disk in the network, which sometimes has hiccups.
read_table = task(retries=2, retry_delay_seconds=1, tags={"io"})(nyc.read_table)
split_by_month = task(nyc.split_by_month)
clean_flights = task(nyc.clean_flights)
clean_weather = task(nyc.clean_weather)
complete_airports = task(nyc.complete_airports)
join = task(nyc.join)
stack = task(nyc.stack)
pick_airports = task(delays.pick_airports)
summarize_airport = task(task_run_name="summarize-{airport}")(delays.summarize_airport)
delays_by = task(task_run_name="delays-by-{view}")(delays.delays_by)
draw = task(report.draw)
compose = task(report.compose)


@flow
def flights(
    months: Annotated[tuple[Month, ...], Field(min_length=1)] = tuple(range(1, 13)),
    destinations: PositiveInt = 8,
    output: Path = Path("flights-report"),
) -> Path:
    """Write a report on the delays of flights from New York in 2013.

    Args:
        months: months of the year, 1 to 12.
        destinations: how many destinations the report describes: those of most flights.
        output: directory to write to.

    Returns:
        The report, a Markdown file.
    """
    weather = clean_weather.submit(read_table.submit("weather"))
    planes = read_table.submit("planes")
    airlines = read_table.submit("airlines")
    airports = complete_airports.submit(read_table.submit("airports"))

    by_month = split_by_month.submit(read_table.submit("flights"), months)
    cleaned = clean_flights.map(by_month)
    joined = join.map(
        cleaned, unmapped(weather), unmapped(planes), unmapped(airlines), unmapped(airports)
    )
    year = stack.submit(joined)

    views = {view: delays_by.submit(view, year) for view in delays.VIEWS}
    picture = draw.submit(views)
    summaries = summarize_airport.map(pick_airports.submit(year, destinations), unmapped(year))
    files = compose.submit(views, summaries, allow_failure(picture)).result()

    # Written here and not in a task: a task may run on another machine.
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (output / name).write_bytes(content)
    path = output.resolve() / "report.md"
    get_run_logger().info("The report is in %s", path)
    return path


if __name__ == "__main__":
    print(flights())
