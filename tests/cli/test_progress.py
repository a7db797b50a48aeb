from collections import Counter
from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from raysched.cli.progress import Progress, Rates, TaskProgress
from raysched.model.rows import (
    Batch,
    FlowRunChange,
    FlowRunRow,
    GroupRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import StateType

RUN = FlowRunRow("a" * 32, "nightly", "nightly", StateType.RUNNING)


def columns(group: int, indices: Sequence[int], states: Sequence[int]) -> TaskRunColumns:
    size = len(indices)
    none = [None] * size
    zeros = [0] * size
    return TaskRunColumns(group, indices, states, zeros, zeros, zeros, none, zeros)


def counts(task: TaskProgress) -> dict[StateType, int]:
    return {state: task.counts[state] for state in StateType if task.counts[state]}


changes = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(
            st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda ends: range(*sorted(ends))),
            st.lists(st.integers(0, 8)),
        ),
        st.randoms(use_true_random=False),
    )
)


@given(changes)
def test_counts_are_those_of_a_list_of_states(
    changed: list[tuple[int, Sequence[int], Random]],
) -> None:
    progress = Progress()
    progress(RUN, Batch(1, groups=[GroupRow(0, "a", 0, 9), GroupRow(1, "b", 0, 9)]))
    oracle = {0: [StateType.SCHEDULED] * 9, 1: [StateType.SCHEDULED] * 9}
    for group, indices, random in changed:
        states = [random.choice(list(StateType)) for _ in indices]
        progress(RUN, Batch(1, task_runs=[columns(group, indices, bytes(states))]))
        for index, state in zip(indices, states, strict=True):
            oracle[group][index] = state
    for group, task in enumerate(progress.snapshot().tasks):
        assert counts(task) == Counter(oracle[group])


def test_groups_of_one_task_are_added_up_and_those_of_subflows_kept_apart() -> None:
    progress = Progress()
    child = FlowRunRow("b" * 32, "child", "child", StateType.RUNNING, parent=RUN.id)
    progress(RUN, Batch(1, groups=[GroupRow(0, "a", 0, 2), GroupRow(1, "a", 2, 3)]))
    progress(child, Batch(2, groups=[GroupRow(0, "a", 0, 7)]))
    progress(child, Batch(2, flow_run=FlowRunChange(StateType.COMPLETED)))
    snapshot = progress.snapshot()
    assert snapshot.run == RUN
    assert [(task.name, task.total) for task in snapshot.tasks] == [("a", 5), ("child/a", 7)]


def test_logs_are_handed_over_once_with_their_source_and_too_many_are_counted() -> None:
    progress = Progress(most_logs=2)
    logs = [LogRow(group, 1, 1, 5, 20, "x", "text") for group in (-1, 0, 0)]
    progress(RUN, Batch(1, groups=[GroupRow(0, "a", 3, 2)], logs=logs))
    snapshot = progress.snapshot()
    assert [line.key for line in snapshot.logs] == ["nightly", "a[4]"]
    assert snapshot.dropped_logs == 1
    assert progress.snapshot().logs == []


def test_words_for_people_follow_the_states() -> None:
    progress = Progress()
    states = [*StateType]
    progress(RUN, Batch(1, groups=[GroupRow(0, "a", 0, len(states))]))
    progress(RUN, Batch(1, task_runs=[columns(0, range(len(states)), bytes(states))]))
    (task,) = progress.snapshot().tasks
    assert (task.total, task.done) == (14, 8)
    assert (task.running, task.retrying, task.failed) == (1, 1, 3)
    assert (task.followed, task.cancelled) == (1, 1)


def test_rate_and_remaining_time_are_those_of_the_last_seconds() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    task = TaskProgress("a")
    task.counts[StateType.SCHEDULED] = 1000
    assert (rates.rate(task), rates.left(task)) == (0.0, None)
    # Slow first, then ten a second: only the latter counts.
    for second in range(60):
        now += 1
        step = 1 if second < 40 else 10
        task.counts[StateType.SCHEDULED] -= step
        task.counts[StateType.COMPLETED] += step
        rates.sample([task])
    assert rates.rate(task) == 10
    assert rates.left(task) == (1000 - 40 - 200) / 10
