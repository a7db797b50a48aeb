"""What the joined flights say about delays: plain pandas, no task in sight."""

from dataclasses import dataclass

import pandas as pd

# The ways to look at the year, each with the columns that it groups by.
VIEWS = {
    "airline": ["airline"],
    "weather": ["conditions"],
    "hour": ["hour", "origin"],
    "date": ["date"],
}

# Fewer flights say little about an airline or an hour at an airport.
ENOUGH_FLIGHTS = 30


@dataclass(frozen=True)
class Airport:
    """The flights of one airport: those from it in New York, those to it elsewhere."""

    code: str
    name: str
    direction: str
    flights: int
    cancelled: float
    late: float
    departure_delay: float
    made_up: float
    spare: float
    best_airline: str
    worst_hour: int
    plane_age: float


def delays_by(view: str, flights: pd.DataFrame) -> pd.DataFrame:
    """For each group of a view: flights, share cancelled, share late and mean delays in minutes.

    `late` is the share of the flights that arrived.
    """
    return _delays(flights, VIEWS[view])


def pick_airports(flights: pd.DataFrame, destinations: int) -> list[str]:
    """New York's airports and so many of the destinations that most flights go to."""
    busiest = flights["dest"].value_counts().head(destinations)
    return [*sorted(flights["origin"].unique()), *busiest.index]


def summarize_airport(airport: str, flights: pd.DataFrame) -> Airport:
    """One airport's year.

    `made_up` is how many minutes flights gain on their departure delay before they arrive, and
    `spare` the part of the scheduled time that is not spent in the air.
    """
    leaving = flights["origin"] == airport
    origin = bool(leaving.any())
    flights = flights[leaving if origin else flights["dest"] == airport]
    airlines = _delays(flights, ["airline"]).sort_values("late")
    hours = _delays(flights, ["hour"]).sort_values("departure_delay", na_position="first")
    return Airport(
        code=airport,
        name=str(flights["origin_name" if origin else "dest_name"].iloc[0]),
        direction="from" if origin else "to",
        flights=len(flights),
        cancelled=float(flights["cancelled"].mean()),
        late=float(flights["late"].mean()),
        departure_delay=float(flights["dep_delay"].mean()),
        made_up=float((flights["dep_delay"] - flights["arr_delay"]).mean()),
        spare=float((flights["scheduled_minutes"] - flights["air_time"]).mean()),
        best_airline=str(_frequent(airlines)["airline"].iloc[0]),
        worst_hour=int(_frequent(hours)["hour"].iloc[-1]),
        plane_age=float((flights["date"].dt.year - flights["built"]).median()),
    )


def _delays(flights: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return flights.groupby(by, as_index=False).agg(
        flights=("cancelled", "size"),
        arrived=("late", "count"),
        cancelled=("cancelled", "mean"),
        late=("late", "mean"),
        departure_delay=("dep_delay", "mean"),
        arrival_delay=("arr_delay", "mean"),
    )


def _frequent(groups: pd.DataFrame) -> pd.DataFrame:
    frequent = groups[groups["flights"] >= ENOUGH_FLIGHTS]
    return groups if frequent.empty else frequent
