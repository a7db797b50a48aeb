"""Spans that user code makes stand below the attempt, or the flow run, that it runs in."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags

from raysched import flow, task
from telemetry.seen import Seen

TASK = ["flow program", "task work", "run work"]


def made(name: str) -> None:
    with trace.get_tracer("users", "1.2").start_as_current_span(name):
        pass


@task
def work(number: int) -> int:
    with trace.get_tracer("users").start_as_current_span(f"outer {number}"):
        made(f"inner {number}")
    return number


@flow
def program(numbers: Sequence[int]) -> list[int]:
    return work.map(numbers).result()


pytestmark = pytest.mark.usefixtures("program")


TOLD: dict[str, Any] = {
    "text": "ä",
    "number": 2**40,
    "yes": True,
    "some": ("a", "b"),
    "half": 0.5,
}
"""Attributes of a user's span, of every type."""


class TestTasks:
    def test_spans_are_below_their_own_attempts(self, seen: Seen) -> None:
        program(range(4))
        for number in range(4):
            inner = seen.one(f"inner {number}")
            assert seen.path(inner) == [*TASK, f"outer {number}", f"inner {number}"]
            around = seen.parent(seen.parent(seen.parent(inner)))
            assert around.attributes["raysched.task.map_index"] == number
        assert len({span.context.trace_id for span in seen.all()}) == 1

    def test_each_span_comes_once(self, seen: Seen) -> None:
        program(range(20))
        ids = [span.context.span_id for span in seen.all()]
        assert len(set(ids)) == len(ids)
        assert len(ids) == 1 + 20 * 4

    def test_asynchronous_ones(self, seen: Seen) -> None:
        @task
        async def work(number: int) -> None:
            with trace.get_tracer("users").start_as_current_span(f"outer {number}"):
                await asyncio.sleep(0.01)
                made(f"inner {number}")

        @flow(name="program")
        def several() -> None:
            work.map(range(4)).wait()

        several()
        for number in range(4):
            inner = seen.one(f"inner {number}")
            assert seen.path(inner) == [*TASK, f"outer {number}", f"inner {number}"]
            around = seen.parent(seen.parent(seen.parent(inner)))
            assert around.attributes["raysched.task.map_index"] == number

    def test_overlapping_threads(self, seen: Seen) -> None:
        @task(max_concurrency=4)
        def work(number: int) -> None:
            made(f"user {number}")

        @flow(name="program")
        def several() -> None:
            work.map(range(8)).wait()

        several()
        for number in range(8):
            user = seen.one(f"user {number}")
            assert seen.path(user) == [*TASK, f"user {number}"]
            assert seen.parent(user).parent is not None
            around = seen.parent(seen.parent(user))
            assert around.attributes["raysched.task.map_index"] == number

    def test_a_retry_has_its_own(self, seen: Seen, tmp_path: Path) -> None:
        @task(retries=1)
        def work() -> None:
            made("user")
            if not (tmp_path / "tried").exists():
                (tmp_path / "tried").touch()
                raise ValueError

        @flow(name="program")
        def tries() -> None:
            work()

        tries()
        attempts = [seen.parent(span) for span in seen.named("user")]
        assert [each.attributes["raysched.attempt.number"] for each in attempts] == [1, 2]

    def test_what_they_tell_is_kept(self, seen: Seen) -> None:
        @task
        def work() -> None:
            users = trace.get_tracer(
                "users", "1.2", schema_url="https://schema.example/1", attributes={"scope": "mine"}
            )
            there = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
            with (
                suppress(ValueError),
                users.start_as_current_span(
                    "user",
                    kind=SpanKind.CLIENT,
                    attributes=TOLD,
                    links=[Link(there, {"why": "so"})],
                ) as span,
            ):
                span.add_event("half way", {"percent": 50}, timestamp=123)
                raise ValueError("oh no")

        @flow(name="program")
        def tells() -> None:
            work()

        tells()
        span = seen.one("user")
        assert span.kind is SpanKind.CLIENT
        assert dict(span.attributes) == TOLD
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "ValueError: oh no"
        half, exception = span.events
        told = half.name, half.timestamp, dict(half.attributes)
        assert told == ("half way", 123, {"percent": 50})
        assert exception.name == "exception"
        assert exception.attributes["exception.message"] == "oh no"
        (link,) = span.links
        assert (link.context.trace_id, link.context.span_id) == (7, 8)
        assert dict(link.attributes) == {"why": "so"}
        scope = span.instrumentation_scope
        assert (scope.name, scope.version, scope.schema_url) == (
            "users",
            "1.2",
            "https://schema.example/1",
        )
        assert dict(scope.attributes) == {"scope": "mine"}


class TestFlows:
    def test_spans_in_a_flow_function_are_below_its_span(self, seen: Seen) -> None:
        @flow
        def below() -> None:
            made("below")

        @flow
        def above() -> None:
            made("above")
            below()

        above()
        assert seen.path(seen.one("above")) == ["flow above", "above"]
        assert seen.path(seen.one("below")) == ["flow above", "flow below", "below"]

    def test_asynchronous_ones(self, seen: Seen) -> None:
        @flow
        async def below(number: int) -> None:
            await asyncio.sleep(0)
            made(f"below {number}")

        @flow
        async def above() -> None:
            await asyncio.gather(*(below(number) for number in range(3)))
            made("above")

        asyncio.run(above())
        assert seen.path(seen.one("above")) == ["flow above", "above"]
        for number in range(3):
            assert seen.path(seen.one(f"below {number}"))[:2] == ["flow above", "flow below"]

    def test_a_flow_is_below_the_span_around_its_call(self, seen: Seen) -> None:
        with trace.get_tracer("users").start_as_current_span("main"):
            program([1])
        assert seen.path(seen.one("inner 1"))[:2] == ["main", "flow program"]

    def test_tasks_in_tasks(self, seen: Seen) -> None:
        @task
        def inside() -> None:
            made("user")

        @task
        def outside() -> None:
            inside()

        @flow
        def nests() -> None:
            outside()

        nests()
        assert seen.path(seen.one("user")) == [
            "flow nests",
            "task outside",
            "run outside",
            "user",
        ]


class TestThreads:
    """Threads that user code starts have no context of their own."""

    def test_spans_are_below_the_attempt_that_runs(self, seen: Seen) -> None:
        if os.environ["RAYSCHED_BACKEND"] == "inline":
            pytest.skip("a thread of the driver belongs to no attempt")

        @task
        def work(number: int) -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(made, [f"user {number}-{part}" for part in range(2)]))

        @flow(name="program")
        def several() -> None:
            work.map(range(3)).wait()

        several()
        for number in range(3):
            user = seen.one(f"user {number}-1")
            assert seen.path(user) == [*TASK, f"user {number}-1"]
            assert seen.parent(seen.parent(user)).attributes["raysched.task.map_index"] == number

    def test_where_items_overlap_they_are_below_the_flow(self, seen: Seen) -> None:
        if os.environ["RAYSCHED_BACKEND"] == "inline":
            pytest.skip("a thread of the driver belongs to no attempt")

        @task(max_concurrency=2)
        def work(number: int) -> None:
            thread = threading.Thread(target=made, args=(f"user {number}",))
            thread.start()
            thread.join()

        @flow(name="program")
        def several() -> None:
            work.map(range(8)).wait()

        several()
        paths = {tuple(seen.path(seen.one(f"user {number}"))) for number in range(8)}
        # A unit of one item does not overlap.
        assert paths <= {
            *((("flow program", f"user {number}")) for number in range(8)),
            *((*TASK, f"user {number}") for number in range(8)),
        }


class TestWhatGoesWrong:
    def test_a_worker_that_dies_in_a_span(self, seen: Seen, tmp_path: Path) -> None:
        if os.environ["RAYSCHED_BACKEND"] == "inline":
            pytest.skip("there is no worker that could die")

        @task(retries=1)
        def work() -> None:
            with trace.get_tracer("users").start_as_current_span("user"):
                if not (tmp_path / "killed").exists():
                    (tmp_path / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        @flow(name="program")
        def survives() -> None:
            work()

        survives()
        user = seen.one("user")
        assert seen.path(user) == [*TASK, "user"]
        assert seen.parent(user).attributes["raysched.attempt.number"] == 2
        crashed, completed = seen.named("run work")
        assert crashed.status.status_code is StatusCode.ERROR
        assert completed.status.status_code is StatusCode.UNSET

    def test_too_many_at_once_are_counted(self, seen: Seen) -> None:
        if os.environ["RAYSCHED_BACKEND"] == "inline":
            pytest.skip("the driver's own spans have no such limit")

        @task
        def work() -> None:
            for _ in range(20_000):
                trace.get_tracer("users").start_span("user").end()

        @flow(name="program")
        def many() -> None:
            work()

        many()
        dropped = seen.one("flow program").attributes["raysched.spans.dropped"]
        assert len(seen.named("user")) + dropped == 20_000
        assert dropped > 0

    def test_a_process_that_is_forked_in_a_task(self, seen: Seen) -> None:
        @task
        def work() -> None:
            made("before")
            child = multiprocessing.get_context("fork").Process(target=made, args=("child",))
            child.start()
            child.join(30)
            assert child.exitcode == 0
            made("after")

        @flow(name="program")
        def forks() -> None:
            work()

        forks()
        assert len(seen.named("before")) == 1
        assert len(seen.named("after")) == 1


class TestOwnProviders:
    """A provider that the user's code has set in a worker."""

    def test_gets_the_spans_and_their_parent(self, seen: Seen, tmp_path: Path) -> None:
        in_worker = os.environ["RAYSCHED_BACKEND"] == "ray"

        def parent_id(span: ReadableSpan) -> str:
            return f"{span.parent.span_id:016x}\n" if span.parent else "none"

        def set_up() -> None:
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

            provider = TracerProvider(shutdown_on_exit=False)
            out = (tmp_path / "spans").open("w", buffering=1)
            exporter = ConsoleSpanExporter(out=out, formatter=parent_id)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)

        # A worker of its own: others shall not get the provider.
        @task(runtime_env={"env_vars": {"OWN_PROVIDER": "1"}})
        def work() -> None:
            if in_worker:
                set_up()
            made("user")

        @flow(name="program")
        def sets_up() -> None:
            work()

        sets_up()
        if not in_worker:
            assert seen.path(seen.one("user")) == [*TASK, "user"]
            return
        assert seen.named("user") == []
        run = seen.one("run work")
        assert (tmp_path / "spans").read_text() == f"{run.context.span_id:016x}\n"


class TestUnsampled:
    def test_nothing_is_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

        @task
        def work() -> tuple[bool, ...]:
            def thread() -> None:
                with trace.get_tracer("users").start_as_current_span("user") as span:
                    recording.append(span.is_recording())

            recording: list[bool] = []
            thread()
            other = threading.Thread(target=thread)
            other.start()
            other.join()
            return tuple(recording)

        @flow(name="program")
        def off() -> tuple[bool, ...]:
            return work()

        assert off() == (False, False)
