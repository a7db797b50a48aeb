"""All cases by name, in the order in which they are measured."""

from benchmarks.suite import calls, computing, maps, starts

CASES = {case.name: case for case in (*maps.CASES, *calls.CASES, *computing.CASES, *starts.CASES)}
