"""What determined the duration of a run, and the lines that show it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raysched.client.critical_path import CriticalPath, critical_path
from raysched.client.spans import Span, Tree
from raysched.client.waterfall import FOLD_FROM, MOST_TOLD, Line, Look, waterfall
from raysched.model.traces import NO_SPAN

SECOND = 10**9
TRACE = bytes(15) + b"\1"
FLOW = b"flow".rjust(8)

LOST = -1
"""Worker of attempts that were lost before they had told where they ran."""


def span_id(name: str) -> bytes:
    return name.encode().rjust(8)[-8:]


def flow(end: float, name: str = "nightly") -> Span:
    return Span(FLOW, NO_SPAN, f"flow {name}", 0, round(end * SECOND))


def task(  # noqa: PLR0913 - what a task run may be
    name: str,
    *attempts: tuple[float, float],
    needs: Sequence[str] = (),
    queued: float = 0,
    worker: int = 0,
    failing: Sequence[int] = (),
    parent: bytes = FLOW,
) -> list[Span]:
    """A task run `name`, whose task is the name without digits, with its attempts (seconds)."""
    title = name.rstrip("0123456789")
    times = [(round(start * SECOND), round(end * SECOND)) for start, end in attempts]
    own: dict[str, Any] = {"raysched.task.key": name, "raysched.task.queue_ms": queued * 1000}
    spans = [
        Span(
            span_id(name),
            parent,
            f"task {title}",
            times[0][0],
            times[-1][1],
            len(attempts) in failing,
            own,
            tuple(map(span_id, needs)),
        )
    ]
    for number, (start, end) in enumerate(times, 1):
        there: dict[str, Any] = {"raysched.attempt.number": number, "host.name": "a"}
        there["process.pid"] = worker or hash(name)
        if worker == LOST:
            del there["host.name"], there["process.pid"]
        if number in failing:
            there["error.type"] = "builtins.ValueError"
        run = span_id(f"{name}.{number}")
        spans.append(Span(run, span_id(name), f"run {title}", start, end, number in failing, there))
    return spans


def found(end: float, *tasks: list[Span]) -> tuple[Tree, CriticalPath]:
    spans = [flow(end), *(span for each in tasks for span in each)]
    tree = Tree(TRACE, spans)
    return tree, critical_path(tree, tree.spans[FLOW])


def told(path: CriticalPath) -> list[tuple[str, str, float, float]]:
    return [
        (step.part.name, step.span.title, step.start / SECOND, step.end / SECOND)
        for step in path.steps
    ]


class TestCriticalPath:
    def test_follows_what_was_needed_last(self) -> None:
        _, path = found(
            6,
            task("load1", (0, 1)),
            task("load2", (0, 3)),
            task("train", (3.5, 5), needs=["load1", "load2"]),
            task("other", (0, 4)),
        )
        assert told(path) == [
            ("TASK", "load", 0, 3),
            ("QUEUE", "train", 3, 3.5),
            ("TASK", "train", 3.5, 5),
            ("FLOW", "nightly", 5, 6),
        ]
        assert span_id("load2") in path.spans
        assert span_id("load1") not in path.spans

    def test_task_that_needs_nothing_was_called_when_another_one_had_ended(self) -> None:
        _, path = found(3, task("a", (0.5, 1)), task("b", (2, 3), queued=0.25))
        assert told(path) == [
            ("FLOW", "nightly", 0, 0.5),
            ("TASK", "a", 0.5, 1),
            ("FLOW", "nightly", 1, 1.75),
            ("QUEUE", "b", 1.75, 2),
            ("TASK", "b", 2, 3),
        ]

    def test_what_had_the_worker_held_up_what_was_ready(self) -> None:
        _, path = found(
            3,
            task("slow", (0, 2), worker=1),
            task("quick1", (0, 1), worker=2),
            task("quick2", (2, 3), worker=1, queued=2),
        )
        assert [(share.name, share.seconds) for share in path.shares] == [
            ("slow", 2.0),
            ("quick", 1.0),
        ]

    def test_what_was_lost_may_have_waited_for_any_worker(self) -> None:
        _, path = found(
            5,
            task("one", (0, 2), worker=1),
            task("two", (2, 4), worker=1, queued=2),
            task("three", (4, 5), worker=LOST, queued=4, failing=[1]),
        )
        assert [(share.name, share.seconds) for share in path.shares] == [
            ("one", 2.0),
            ("two", 2.0),
            ("three", 1.0),
        ]

    def test_time_between_attempts_is_told_apart(self) -> None:
        _, path = found(4, task("load", (0, 1), (3, 4), failing=[1]))
        assert [(share.name, share.fraction) for share in path.shares] == [
            ("load", 0.5),
            ("load waiting for the next attempt", 0.5),
        ]

    def test_goes_through_subflows(self) -> None:
        inner = Span(b"inner---", FLOW, "flow inner", SECOND, 3 * SECOND)
        _, path = found(4, [inner], task("load", (1.5, 2.5), parent=inner.id))
        assert told(path) == [
            ("FLOW", "nightly", 0, 1),
            ("FLOW", "inner", 1, 1.5),
            ("TASK", "load", 1.5, 2.5),
            ("FLOW", "inner", 2.5, 3),
            ("FLOW", "nightly", 3, 4),
        ]

    def test_chunks_of_a_map_follow_each_other_although_they_overlap(self) -> None:
        chunks = [
            Span(span_id(f"c{n}"), FLOW, "chunk load", n * SECOND, (n + 2) * SECOND)
            for n in range(4)
        ]
        _, path = found(5, chunks)
        assert [(share.name, share.seconds) for share in path.shares] == [("load", 5.0)]

    def test_flow_without_tasks_is_itself(self) -> None:
        _, path = found(2)
        assert told(path) == [("FLOW", "nightly", 0, 2)]

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 50),
                st.lists(st.integers(1, 9), min_size=1, max_size=3),
                st.lists(st.integers(0, 30), max_size=3),
                st.integers(1, 3),
                st.integers(0, 60),
            ),
            max_size=30,
        )
    )
    def test_steps_fill_the_time_of_the_flow(self, runs: list[Any]) -> None:
        tasks = []
        for number, (start, lengths, needs, worker, queued) in enumerate(runs):
            times = [
                (start + sum(lengths[:i]), start + sum(lengths[: i + 1]))
                for i in range(len(lengths))
            ]
            upstream = [f"t{each}" for each in needs if each < number]
            tasks.append(task(f"t{number}", *times, needs=upstream, queued=queued, worker=worker))
        _, path = found(100, *tasks)
        assert (path.steps[0].start, path.steps[-1].end) == (0, 100 * SECOND)
        assert all(before.end == after.start for before, after in pairwise(path.steps))
        assert all(step.start < step.end for step in path.steps)
        assert sum(share.fraction for share in path.shares) > 1 - 1e-9


def lines(tree: Tree, path: CriticalPath) -> dict[str, Line]:
    return {line.label: line for line in waterfall(tree, path.spans)}


class TestWaterfall:
    def test_single_attempt_is_its_task_run_and_waiting_is_in_its_bar(self) -> None:
        shown = lines(*found(3, task("load", (1, 2), queued=0.5)))
        assert list(shown) == ["nightly", "load"]
        assert [(piece.look, piece.start, piece.end) for piece in shown["load"].pieces] == [
            (Look.WAITED, SECOND // 2, SECOND),
            (Look.RAN, SECOND, 2 * SECOND),
        ]

    def test_attempts_have_lines_where_there_are_several(self) -> None:
        shown = lines(*found(4, task("load", (0, 1), (3, 4), failing=[1])))
        assert list(shown) == ["nightly", "load", "attempt 1", "attempt 2"]
        assert [piece.look for piece in shown["load"].pieces] == [
            Look.FAILED,
            Look.WAITED,
            Look.RAN,
        ]
        assert (shown["attempt 1"].failed, shown["attempt 1"].remark) == (1, "ValueError")
        assert (shown["attempt 2"].failed, shown["load"].retried) == (0, 1)

    def test_many_of_one_task_share_a_line(self) -> None:
        members = [task(f"load{n}", (0, 1 + n)) for n in range(FOLD_FROM)]
        shown = lines(*found(FOLD_FROM, *members))
        assert list(shown) == ["nightly", "load", f"load{FOLD_FROM - 1}"]
        shared = shown["load"]
        assert (shared.count, shared.failed) == (FOLD_FROM, 0)
        assert (shared.p50, shared.p95) == (FOLD_FROM // 2, FOLD_FROM)
        assert shared.is_critical

    def test_some_of_those_that_failed_have_lines_of_their_own(self) -> None:
        members = [task(f"load{n}", (0, 1), failing=[1]) for n in range(30)]
        shown = list(waterfall(*_parts(found(2, *members))))
        assert shown[1].failed == 30
        assert len(shown) <= 2 + 2 * MOST_TOLD

    def test_chunks_count_all_of_their_members(self) -> None:
        attributes = {
            "raysched.chunk.count": 500,
            "raysched.chunk.failed": 2,
            "raysched.chunk.p50_seconds": 0.1,
            "raysched.chunk.p95_seconds": 0.4,
        }
        chunks = [
            Span(span_id(f"c{n}"), FLOW, "chunk load", 0, SECOND, attributes=attributes)
            for n in range(2)
        ]
        shared = lines(*found(1, chunks))["load"]
        assert (shared.count, shared.failed, shared.p50, shared.p95) == (1000, 4, 0.1, 0.4)

    def test_spans_of_user_code_are_below_the_attempt(self) -> None:
        spans = task("load", (0, 2))
        spans.append(Span(b"mine----", spans[1].id, "GET /x", 0, SECOND, scope="my.library"))
        shown = list(waterfall(*_parts(found(2, spans))))
        assert [(line.depth, line.label) for line in shown] == [
            (0, "nightly"),
            (1, "load"),
            (2, "GET /x"),
        ]


def _parts(of: tuple[Tree, CriticalPath]) -> tuple[Tree, frozenset[bytes]]:
    return of[0], of[1].spans
