"""Metrics are the sums of what was committed, each task run once, wherever they go."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysched import flow, task
from raysched.model.rows import (
    AttemptRow,
    Batch,
    Execution,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
)
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.settings import settings
from raysched.telemetry.metrics.aggregation import Aggregation
from raysched.telemetry.metrics.consumer import Metrics
from raysched.telemetry.metrics.instruments import (
    ACTIVE,
    ATTEMPT_DURATION,
    BOUNDARIES,
    FLOW_DURATION,
    OVERFLOW,
    QUEUE_DURATION,
    RETRIES,
    TASK_DURATION,
    TASKS,
)
from raysched.testing import FakeClock
from raysched.wiring import Configuration, configure
from telemetry.measures import NOON, SECOND, columns, counts, durations, sums

RUN = FlowRunRow("a" * 32, "nightly", "nightly", StateType.RUNNING, started=NOON)


class Member(NamedTuple):
    """A task run of the property test."""

    state: StateType
    waited: int
    took: int


def measured(*batches: Batch, row: FlowRunRow = RUN) -> Aggregation:
    aggregation = Aggregation()
    metrics = Metrics([aggregation])
    for batch in batches:
        metrics.take(row, batch)
    return aggregation


members = st.lists(
    st.builds(
        Member,
        st.sampled_from([state for state in StateType if state.is_terminal]),
        st.integers(0, 10 * SECOND),
        st.integers(0, 100 * SECOND),
    ),
    min_size=1,
    max_size=20,
)


@given(members, st.lists(st.integers(0, 19)), st.booleans())
def test_aggregates_are_sums_of_the_rows(
    runs: list[Member], order: list[int], as_range: bool
) -> None:
    """Whatever rows come together, and however often they are told again."""
    size = len(runs)
    ran = [run.state not in {StateType.CACHED, StateType.SKIPPED} for run in runs]
    started = [NOON + run.waited if each else 0 for run, each in zip(runs, ran, strict=True)]
    ended = [begun + run.took if begun else 0 for run, begun in zip(runs, started, strict=True)]
    whole = [run.state for run in runs], started, ended
    batches = [Batch(1, groups=[GroupRow(0, "load", 0, size, created=NOON)])]
    # Some are told one by one, then all of them, some of these for the second time.
    parts: list[Sequence[int]] = [[index] for index in order if index < size]
    parts.append(range(size) if as_range else list(range(size)))
    batches += [
        Batch(1, task_runs=[columns(part, *([each[i] for i in part] for each in whole))])
        for part in parts
    ]
    of = measured(*batches)

    told: Counter[str] = Counter()
    for name, count in sums(of, TASKS).items():
        told[name.split()[1]] += count
    assert told == Counter(run.state.name for run in runs)
    by_state: dict[str, list[int]] = {}
    for run, each in zip(runs, ran, strict=True):
        if each:
            by_state.setdefault(f"load {run.state.name}", []).append(run.took)
    found = durations(of, TASK_DURATION)
    assert found.keys() == by_state.keys()
    for name, expected in by_state.items():
        buckets = Counter(bisect_left(BOUNDARIES, took / SECOND) for took in expected)
        assert found[name].buckets == [buckets[n] for n in range(len(BOUNDARIES) + 1)]
        assert found[name].total == sum(expected)
        assert (found[name].shortest, found[name].longest) == (min(expected), max(expected))
    waited = [run.waited for run, each in zip(runs, ran, strict=True) if each]
    queued = durations(of, QUEUE_DURATION)
    assert sum(kept.total for kept in queued.values()) == sum(waited)
    assert sum(kept.count for kept in queued.values()) == len(waited)


def test_retries_belong_to_one_task_run() -> None:
    """Its time is from the first attempt's start; each attempt has its own."""
    error = ErrorInfo("builtins.OSError", "gone")
    times = [(NOON + 1 * SECOND, NOON + 3 * SECOND), (NOON + 10 * SECOND, NOON + 11 * SECOND)]
    of = measured(
        Batch(1, groups=[GroupRow(0, "load", 0, 1, created=NOON)]),
        Batch(
            1,
            task_runs=[columns([0], [StateType.AWAITING_RETRY], *zip(times[0]))],
            attempts=[AttemptRow(0, 0, 1, StateType.FAILED, *times[0], error)],
        ),
        Batch(
            1,
            task_runs=[columns([0], [StateType.COMPLETED], *zip(times[1]), attempts=[2])],
            attempts=[AttemptRow(0, 0, 2, StateType.COMPLETED, *times[1])],
        ),
    )

    assert sums(of, TASKS) == {"load COMPLETED": 1}
    assert sums(of, RETRIES) == {"load": 1}
    attempts = durations(of, ATTEMPT_DURATION)
    assert {name: kept.total // SECOND for name, kept in attempts.items()} == {
        "load FAILED OSError": 2,
        "load COMPLETED": 1,
    }
    assert durations(of, TASK_DURATION)["load COMPLETED"].total == 10 * SECOND
    assert durations(of, QUEUE_DURATION)["load"].total == 1 * SECOND


def test_an_attempt_for_a_lost_value_is_no_retry() -> None:
    done = columns([0], [StateType.COMPLETED], [NOON], [NOON + SECOND])
    again = AttemptRow(0, 0, 2, StateType.COMPLETED, NOON + 5 * SECOND, NOON + 6 * SECOND)
    of = measured(
        Batch(1, groups=[GroupRow(0, "load", 0, 1)], task_runs=[done]),
        Batch(1, attempts=[again], task_runs=[done]),
    )

    assert sums(of, RETRIES) == {}
    assert sums(of, TASKS) == {"load COMPLETED": 1}
    assert counts(of, ATTEMPT_DURATION) == {"load COMPLETED": 2}


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        # Seconds from the end of what each of the two needed to its start; from the call without.
        ("[]", [20, 30]),
        ('[[0, "one_to_one", 0, 1]]', [19, 25]),
        ('[[0, "gather", 0, 2]]', [15, 25]),
        ('[[0, "gather", 0, 1]]', [19, 29]),
        ('[[0, "broadcast", 1, 2]]', [15, 25]),
        ('[[0, "broadcast", -1, -1]]', []),
    ],
)
def test_a_task_run_waits_from_when_it_could_have_begun(edge: str, expected: list[int]) -> None:
    parents = columns(
        range(2), [StateType.COMPLETED] * 2, [NOON] * 2, [NOON + SECOND, NOON + 5 * SECOND]
    )
    starts = [NOON + 20 * SECOND, NOON + 30 * SECOND]
    children = columns(range(2), [StateType.COMPLETED] * 2, starts, starts, group=1)
    of = measured(
        Batch(
            1,
            groups=[
                GroupRow(0, "load", 0, 2),
                GroupRow(1, "parse", 0, 2, edges=edge, created=NOON),
            ],
            # In one commit, whichever comes first.
            task_runs=[children, parents],
        )
    )

    waited = durations(of, QUEUE_DURATION)
    assert {name: kept.total // SECOND for name, kept in waited.items()} == (
        {"parse": sum(expected)} if expected else {}
    )


def test_running_task_runs_come_and_go() -> None:
    group = Batch(1, groups=[GroupRow(0, "load", 0, 3)])
    running = Batch(1, task_runs=[columns(range(3), [StateType.RUNNING] * 3, [NOON] * 3, [0] * 3)])
    one_ended = Batch(1, task_runs=[columns([1], [StateType.FAILED], [NOON], [NOON + 1])])
    end = Batch(1, flow_run=FlowRunChange(StateType.CRASHED, ended=NOON + SECOND))

    assert sums(measured(group, running), ACTIVE) == {"load": 3}
    assert sums(measured(group, running, one_ended), ACTIVE) == {"load": 2}
    assert sums(measured(group, running, one_ended, end), ACTIVE) == {"load": 0}


def test_what_an_earlier_execution_left_was_counted_there() -> None:
    resumed = NOON + 100 * SECOND
    row = FlowRunRow(
        "b" * 32,
        "nightly",
        "nightly",
        StateType.RUNNING,
        started=NOON,
        executions=(Execution(NOON), Execution(resumed)),
    )
    earlier = columns(range(2), [StateType.COMPLETED] * 2, [NOON] * 2, [NOON + 9] * 2)
    new = columns([2], [StateType.COMPLETED], [resumed + 5], [resumed + 9])
    of = measured(
        Batch(1, groups=[GroupRow(0, "load", 0, 3)], task_runs=[earlier, new]),
        Batch(1, flow_run=FlowRunChange(StateType.COMPLETED, ended=resumed + SECOND)),
        row=row,
    )

    assert sums(of, TASKS) == {"load COMPLETED": 1}
    assert durations(of, FLOW_DURATION)["COMPLETED"].total == SECOND


def test_a_run_that_goes_on_is_known_from_the_database() -> None:
    """Its groups are told by nobody else, and it goes on while they are read."""
    resumed = NOON + 100 * SECOND
    row = replace(RUN, executions=(Execution(NOON), Execution(resumed)))
    states = [StateType.COMPLETED, StateType.FAILED, StateType.COMPLETED]
    ended = [NOON + SECOND, NOON + SECOND, resumed + 2 * SECOND]
    kept = columns(range(3), states, [NOON, NOON, resumed], ended)
    inner = replace(row, id="b" * 32, parent=row.id)

    def replay(run_id: str) -> Iterator[tuple[FlowRunRow, Batch]]:
        assert run_id == row.id
        yield row, Batch(1, groups=[GroupRow(0, "load", 0, 3)], task_runs=[kept])
        yield inner, Batch(2, groups=[GroupRow(0, "inner", 0, 3)])

    aggregation = Aggregation()
    metrics = Metrics([aggregation], replay=replay)
    metrics.take(row, Batch(1, flow_run=FlowRunChange(StateType.RUNNING)))
    metrics.take(row, Batch(1, restarted=[(0, [1])]))
    now = columns([1, 2], [StateType.COMPLETED] * 2, [resumed] * 2, [resumed + 2 * SECOND] * 2)
    # Handled only now, and told again for that.
    again = columns([0], [StateType.COMPLETED], [NOON], [NOON + SECOND])
    metrics.take(row, Batch(1, task_runs=[now, again]))

    assert sums(aggregation, TASKS) == {"load COMPLETED": 2}
    assert durations(aggregation, TASK_DURATION)["load COMPLETED"].total == 4 * SECOND


def test_begun_again_counts_again() -> None:
    """A resume runs what failed in the row that it had."""
    failed = columns([0], [StateType.FAILED], [NOON], [NOON + 1])
    done = columns([0], [StateType.COMPLETED], [NOON + 2], [NOON + 3])
    group = GroupRow(0, "load", 0, 1)
    of = measured(
        Batch(1, groups=[group], task_runs=[failed]),
        Batch(1, restarted=[(0, [0])]),
        Batch(1, task_runs=[done]),
    )

    assert sums(of, TASKS) == {"load FAILED FAILED": 1, "load COMPLETED": 1}


@pytest.fixture
def inline_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def observed(inline_home: None) -> Iterator[Aggregation]:
    """What is measured of the flows that the test calls."""
    aggregation = Aggregation()
    metrics = Metrics([aggregation])

    def observer(run: FlowRunRow, batch: Batch) -> None:
        metrics.take(run, batch)

    before = configure(Configuration(backend="inline", observers=[observer], clock=FakeClock()))
    yield aggregation
    configure(before)


def run_nightly() -> None:
    """Run a flow with a retry, a failure, what follows from it, and a subflow."""
    failures = iter([OSError("first"), None, None])

    @task(retries=1, retry_delay_seconds=60)
    def load(number: int) -> int:
        error = next(failures)
        if error is not None:
            raise error
        return number

    @task
    def parse(number: int) -> int:
        if number == 1:
            raise ValueError(number)
        return number

    @task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @task
    def check() -> int:
        return 7

    @flow
    def inner() -> int:
        return check()

    @flow
    def nightly() -> str:
        inner()
        parsed = parse.map(load.map([1, 2]))
        return str(total.submit(parsed).state)

    nightly(return_state=True)


def test_flows_are_measured(observed: Aggregation) -> None:
    run_nightly()

    assert sums(observed, TASKS) == {
        "check COMPLETED": 1,
        "load COMPLETED": 2,
        "parse COMPLETED": 1,
        "parse FAILED ValueError": 1,
        "total UPSTREAM_FAILED": 1,
    }
    assert sums(observed, RETRIES) == {"load": 1}
    assert counts(observed, ATTEMPT_DURATION) == {
        "load FAILED OSError": 1,
        "check COMPLETED": 1,
        "load COMPLETED": 2,
        "parse COMPLETED": 1,
        "parse FAILED ValueError": 1,
    }
    assert counts(observed, TASK_DURATION) == {
        "check COMPLETED": 1,
        "load COMPLETED": 2,
        "parse COMPLETED": 1,
        "parse FAILED": 1,
    }
    assert counts(observed, QUEUE_DURATION) == {"check": 1, "load": 2, "parse": 2}
    assert counts(observed, FLOW_DURATION) == {"COMPLETED": 1, "FAILED ValueError": 1}
    flows = observed.snapshot().distributions[FLOW_DURATION]
    assert {dict(attributes)["raysched.flow.name"] for attributes in flows} == {"nightly", "inner"}


def test_series_are_never_of_a_single_run(observed: Aggregation) -> None:
    """Names of attributes whose values are few: no ids, no keys."""
    run_nightly()

    series = [
        attributes
        for kept in (observed.snapshot().sums, observed.snapshot().distributions)
        for each in kept.values()
        for attributes in each
    ]
    assert {name for attributes in series for name, _ in attributes} == {
        "raysched.flow.name",
        "raysched.flow.state",
        "raysched.task.name",
        "raysched.task.state",
        "error.type",
    }


def test_series_are_bounded() -> None:
    aggregation = Aggregation(most_series=3)
    for number in range(5):
        aggregation.add(TASKS, (("error.type", f"Error{number}"),), 1)
        aggregation.record(TASK_DURATION, (("raysched.task.name", f"t{number}"),), [SECOND])
    aggregation.add(TASKS, (("error.type", "Error0"),), 1)

    kept = aggregation.snapshot()
    assert list(kept.sums[TASKS].values()) == [2, 1, 3]
    assert kept.sums[TASKS][OVERFLOW] == 3
    assert kept.distributions[TASK_DURATION][OVERFLOW].count == 3
