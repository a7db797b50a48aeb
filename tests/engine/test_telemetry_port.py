"""What an engine asks of its telemetry, and what workers hand back: by flows, inline and on Ray."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.own_telemetry import OwnTelemetry, span_here, spans
from raysched import flow, get_run, get_run_logger, in_context, task
from raysched.model.traces import NOWHERE, TraceParent, attempt_span_id, flow_span_id, trace_id
from raysched.settings import settings
from raysched.testing import FaultPoints
from raysched.wiring import Configuration, configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from raysched.model.rows import Batch, FlowRunRow


@pytest.fixture(params=["inline", "ray"])
def telemetry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OwnTelemetry]:
    """Run the flows of a test with a telemetry of its own."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    own = OwnTelemetry()
    before = configure(Configuration(request.param, telemetry=own))
    yield own
    configure(before)
    settings.cache_clear()


def attempt(task_name: str, index: int = 0, number: int = 1, *, execution: int = 1) -> str:
    """Return the span of an attempt of the last run."""
    return attempt_span_id(get_run("last").id, execution, task_name, index, number).hex()


@task
def work(value: int) -> int:
    spans.end(f"work {value}")
    return value


@task(retries=1)
def flaky() -> None:
    spans.end("flaky")


@task
async def waits(value: int) -> None:
    await asyncio.sleep(0)
    spans.end(f"waits {value}")


@task(max_concurrency=2)
def beside(value: int) -> None:
    spans.end(f"beside {value}")


@task
def calls_others(value: int) -> int:
    spans.end("calls")
    work(value)
    asyncio.run(gathered())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(in_context(spans.end), ["thread a", "thread b"]))
    return inner(value)


async def gathered() -> None:
    await waits(7)


@flow
def inner(value: int) -> int:
    spans.end("flow function in an attempt")
    return work(value + 1)


@flow
def one(value: int) -> int:
    return work(value)


class TestExecutions:
    def test_a_flow_run_begins_with_one(self, telemetry: OwnTelemetry) -> None:
        one(1)
        run = get_run("last")
        assert telemetry.begun == [(run.id, 1)]
        row, batch = telemetry.told[0]
        assert batch.flow_run is not None
        (execution,) = row.executions
        assert execution.started == row.started
        assert execution.traceparent == str(TraceParent(trace_id(run.id)))

    def test_subflows_are_not_asked_about(self, telemetry: OwnTelemetry) -> None:
        @flow
        def around() -> int:
            return one(1)

        around()
        assert len(telemetry.begun) == 1
        (below,) = [row for row in telemetry.rows.values() if row.parent]
        assert [each.traceparent for each in below.executions] == [""]
        assert below.executions[0].started >= telemetry.rows[below.parent].started

    def test_who_resumes_begins_the_next_one(self, telemetry: OwnTelemetry) -> None:
        broken = [True]

        @flow
        def sometimes() -> int:
            value = work(1)
            if broken:
                raise ValueError("broken")
            return work(value + 1)

        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                sometimes() if not telemetry.begun else sometimes.resume("last")
        broken.clear()
        sometimes.resume("last")
        run_id = get_run("last").id
        assert telemetry.begun == [(run_id, 1), (run_id, 2), (run_id, 3)]
        executions = telemetry.rows[run_id].executions
        assert [each.traceparent for each in executions] == [
            str(TraceParent(trace_id(run_id, number))) for number in (1, 2, 3)
        ]
        assert f"work 2 below {attempt('work', 1, execution=3)}" in telemetry.spans()

    def test_telemetry_is_closed_with_the_engine(self, telemetry: OwnTelemetry) -> None:
        one(1)
        assert telemetry.closed == 0
        configure(Configuration("inline"))
        assert telemetry.closed == 1
        last = telemetry.batches()[-1].flow_run
        assert last is not None
        assert last.state.is_terminal


class TestSpansOfUserCode:
    def test_are_below_their_attempts(self, telemetry: OwnTelemetry) -> None:
        @flow
        def many() -> None:
            work.map(range(3)).wait()
            waits.map(range(3)).wait()
            beside.map(range(3)).wait()

        many()
        assert telemetry.spans() == {
            f"{name} {n} below {attempt(name, n)}"
            for name in ("work", "waits", "beside")
            for n in range(3)
        }

    def test_are_below_the_attempt_that_made_them(
        self, telemetry: OwnTelemetry, tmp_path: Path
    ) -> None:
        @flow
        def twice() -> None:
            flaky()

        with FaultPoints(tmp_path).raises("worker: item ended", on="flaky"):
            twice()
        assert telemetry.spans() == {
            f"flaky below {attempt('flaky', 0, number)}" for number in (1, 2)
        }

    def test_of_what_a_task_calls_are_below_it(self, telemetry: OwnTelemetry) -> None:
        @flow
        def nesting() -> None:
            calls_others(1)

        nesting()
        run_id = get_run("last").id
        around = attempt("calls_others")
        (below,) = [row for row in telemetry.rows.values() if row.parent]
        of_subflow = attempt_span_id(below.id, 1, "work", 0, 1).hex()
        assert telemetry.spans() == {
            f"calls below {around}",
            f"work 1 below {around}",
            f"waits 7 below {around}",
            f"thread a below {around}",
            f"thread b below {around}",
            f"flow function in an attempt below {around}",
            f"work 2 below {of_subflow}",
        }
        assert (below.parent, below.parent_key) == (run_id, "calls_others[0]")
        assert [each.traceparent for each in below.executions] == [""]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_of_flow_functions_are_below_their_flow(
        self, telemetry: OwnTelemetry, *, is_async: bool
    ) -> None:
        seen: dict[str, str] = {}

        @flow
        def below() -> None:
            seen["below"] = span_here.get()

        @flow
        async def below_async() -> None:
            await asyncio.sleep(0)
            seen["below"] = span_here.get()

        @flow
        def around() -> None:
            below()
            seen["around"] = span_here.get()

        @flow
        async def around_async() -> None:
            await asyncio.gather(below_async(), asyncio.sleep(0))
            seen["around"] = span_here.get()

        asyncio.run(around_async()) if is_async else around()
        assert not span_here.get()
        top, sub = sorted(telemetry.rows.values(), key=lambda row: row.parent)
        assert seen == {
            "around": flow_span_id(top.id).hex(),
            "below": flow_span_id(sub.id).hex(),
        }


@task
def waits_until_told(file: str) -> bool:
    spans.end("first")
    deadline = time.monotonic() + 60
    while not Path(file).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return Path(file).exists()


def test_spans_come_while_an_attempt_goes_on(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "told"

    class Telling(OwnTelemetry):
        def __call__(self, run: FlowRunRow, batch: Batch) -> None:
            super().__call__(run, batch)
            if batch.spans:
                file.touch()

    @flow
    def long() -> bool:
        return waits_until_told(str(file))

    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    own = Telling()
    before = configure(Configuration("ray", telemetry=own))
    try:
        assert long()
    finally:
        configure(before)
        settings.cache_clear()


class TestWhatBreaks:
    def test_an_extension_that_breaks_fails_nothing(self, telemetry: OwnTelemetry) -> None:
        telemetry.extension = "engine.own_telemetry:torn"
        assert one(1) == 1
        (row,) = [row for row in get_run("last").logs() if "torn" in row.message]
        assert row.level == logging.WARNING
        assert row.key == "work[0]"
        assert "engine.own_telemetry:torn raised RuntimeError: torn at work[0]" in row.message

    def test_one_that_is_not_there_is_told_once(self, telemetry: OwnTelemetry) -> None:
        telemetry.extension = "engine.no_such_module:spans"

        @flow
        def several() -> list[int]:
            return [work(n) for n in range(5)]

        assert several() == list(range(5))
        told = [row for row in get_run("last").logs() if "no_such_module" in row.message]
        workers = {place.pid for batch in telemetry.batches() for place in batch.places}
        assert 1 <= len(told) <= len(workers)

    def test_telemetry_that_raises_harms_no_run(
        self, telemetry: OwnTelemetry, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(OwnTelemetry):
            def begin(self, start: Any, earlier: Any) -> Any:
                raise RuntimeError(f"no place for {start.run_id}, {earlier}")

            def place(self, row: Any) -> Any:
                raise RuntimeError(f"no place for {row.id}")

            def around(self, row: Any) -> Any:
                raise RuntimeError(f"nothing around {row.id}")

            def __call__(self, run: Any, batch: Any) -> None:
                raise RuntimeError(f"{run.id} {batch.run}")

            def close(self) -> None:
                raise RuntimeError("not closed")

        del telemetry
        configure(Configuration("inline", telemetry=Broken()))
        assert one(1) == 1
        configure(Configuration("inline"))
        told = [record.message for record in caplog.records]
        assert {"telemetry raised", "an observer raised"} <= set(told)


class TestLogRecords:
    def test_of_flow_functions_tell_their_span(self, telemetry: OwnTelemetry) -> None:
        heard: list[dict[str, Any]] = []

        def library() -> None:
            heard.append(traces_heard("a.library", logging.getLogger("a.library").warning))

        @flow
        def logs() -> None:
            heard.append(traces_heard("raysched.flow_run", get_run_logger().info))
            library()
            thread = threading.Thread(target=in_context(library))
            thread.start()
            thread.join()

        logs()
        library()
        run_id = get_run("last").id
        assert telemetry.begun == [(run_id, 1)]
        of_flow = {
            "otelTraceID": trace_id(run_id).hex(),
            "otelSpanID": flow_span_id(run_id).hex(),
            "otelTraceSampled": True,
        }
        assert heard == [of_flow, of_flow, of_flow, {}]

    def test_of_tasks_tell_their_attempt(self, telemetry: OwnTelemetry) -> None:
        @flow
        def logs() -> list[dict[str, Any]]:
            return says()

        heard = logs()
        of_attempt = {
            "otelTraceID": trace_id(get_run("last").id).hex(),
            "otelSpanID": attempt("says"),
            "otelTraceSampled": True,
        }
        assert heard == [of_attempt, of_attempt]
        assert telemetry.begun

    def test_are_as_ever_where_nothing_is_traced(
        self, telemetry: OwnTelemetry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telemetry, "begin", lambda *_: NOWHERE)
        monkeypatch.setattr(telemetry, "place", lambda *_: None)

        @flow
        def logs() -> list[dict[str, Any]]:
            return says()

        assert logs() == [{}, {}]


@task
def says() -> list[dict[str, Any]]:
    return [
        traces_heard("raysched.task_run", get_run_logger().info),
        traces_heard("a.library", logging.getLogger("a.library").warning),
    ]


def traces_heard(logger: str, says: Callable[[str], None]) -> dict[str, Any]:
    """Return what a handler of the user's own finds of a trace in a record that `says` makes."""
    found: dict[str, Any] = {}

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.update({k: v for k, v in vars(record).items() if k.startswith("otel")})

    handler = Handler()
    logging.getLogger(logger).addHandler(handler)
    try:
        says("something")
    finally:
        logging.getLogger(logger).removeHandler(handler)
    return found
