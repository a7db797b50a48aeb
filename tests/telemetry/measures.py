"""Rows to be measured, and what was measured of them."""

from collections.abc import Sequence

from raysched.model.rows import TaskRunColumns
from raysched.telemetry.metrics.aggregation import Aggregation, Distribution
from raysched.telemetry.metrics.instruments import Attributes, Instrument

SECOND = 10**9
NOON = 1_700_000_000 * SECOND


def columns(  # noqa: PLR0913 - the columns of one row
    indices: Sequence[int],
    states: Sequence[int],
    started: Sequence[int],
    ended: Sequence[int],
    *,
    group: int = 0,
    attempts: Sequence[int] = (),
) -> TaskRunColumns:
    size = len(indices)
    counted = attempts or [1] * size
    return TaskRunColumns(
        group, indices, bytes(states), counted, started, ended, [None] * size, [0] * size
    )


def sums(of: Aggregation, instrument: Instrument) -> dict[str, int]:
    """Sums by the values of all attributes but the flow's name."""
    series = of.snapshot().sums.get(instrument, {})
    return {_short(attributes): amount for attributes, amount in series.items()}


def durations(of: Aggregation, instrument: Instrument) -> dict[str, Distribution]:
    series = of.snapshot().distributions.get(instrument, {})
    return {_short(attributes): kept for attributes, kept in series.items()}


def counts(of: Aggregation, instrument: Instrument) -> dict[str, int]:
    return {name: kept.count for name, kept in durations(of, instrument).items()}


def _short(attributes: Attributes) -> str:
    return " ".join(value for name, value in attributes if name != "raysched.flow.name")
