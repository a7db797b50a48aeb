"""All cases by name, in the order in which they are measured."""

from benchmarks.case import Case
from benchmarks.suite import calls, computing, durable, maps, starts, telemetry

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *maps.CASES,
        *calls.CASES,
        *durable.CASES,
        *telemetry.CASES,
        *computing.CASES,
        *starts.CASES,
    )
}
