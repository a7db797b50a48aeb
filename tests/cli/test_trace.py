"""`raysched trace`, the link at the end of runs, and who tells of lost ones."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands import Command
from cli.kept_runs import (
    SECOND,
    TRACE,
    keep_billing,
    keep_lost,
    keep_nightly,
    members,
    open_run,
    store,
)
from ports import free_port
from raysched.model.rows import Batch, Execution, FlowRunRow, GroupRow
from raysched.model.states import StateType
from raysched.model.traces import TraceParent
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import Answer, Receiver, receiving

RETRYING = """
from raysched import flow, task

@task(retries=1)
def load(n: int) -> int:
    if n == 1:
        raise ValueError(n)
    return n

@task
def total(numbers: list[int]) -> int:
    return sum(numbers)

@flow
def inner() -> int:
    return total([1])

@flow
def outer() -> int:
    states = load.map(range(3), return_state=True)
    return inner() + total([1])
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Protocol.HTTP) as running:
        yield running


@pytest.fixture
def traced(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """Where the runs of a test send their spans."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", receiver.destination().endpoint)
    return receiver


@pytest.fixture
def outer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "outer.py").write_text(RETRYING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "outer.py:outer"


def span_ids(document: Any) -> set[str]:
    return {
        span["spanId"]
        for resource in document["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


class TestDraws:
    def test_run_that_was_never_traced(self, looking: Command) -> None:
        kept = store()
        keep_billing(kept)
        kept.close()
        done = looking("trace", "last")
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert max(map(len, lines[:-1])) <= 80
        assert any(re.match(r"◆ +read_usage\[0\] .*0\.25 s", line) for line in lines)
        assert any(re.match(r" +send .40 .*40 failed", line) for line in lines)
        assert re.match(r"◆ critical path, 2\.5 s: .*the flow itself \d+ %", lines[-1])

    def test_retries_and_subflows(self, raysched: Command, outer: str) -> None:
        raysched("run", outer, "--backend", "inline")
        shown = raysched("trace", "last").out
        labels = [line[2:].split()[0] for line in shown.splitlines()[3:-2]]
        assert labels[0] == "outer"
        assert {"load[0]", "load[1]", "load[2]", "inner", "total[0]"} <= set(labels)
        assert labels.count("attempt") == 2

    def test_no_more_lines_than_asked_for(self, looking: Command) -> None:
        kept = store()
        keep_nightly(kept)
        kept.close()
        shown = looking("trace", "last", "--limit", "2").out
        assert "… and 2 more lines (--limit 0 for all)" in shown
        assert "parse[2]" not in shown
        assert "parse[2]" in looking("trace", "last", "--limit", "0").out

    def test_execution_that_is_not_there(self, looking: Command) -> None:
        kept = store()
        keep_nightly(kept)
        kept.close()
        done = looking("trace", "last", "--execution", "2")
        assert (done.code, done.out) == (2, "")
        assert "has one execution" in done.err

    def test_link_is_that_of_the_execution_that_is_shown(self, looking: Command) -> None:
        now = time.time_ns()
        later = bytes(reversed(TRACE))
        executions = (
            Execution(now, str(TraceParent(TRACE))),
            Execution(now + SECOND, str(TraceParent(later))),
        )
        row = FlowRunRow(
            "a" * 32, "nightly", "n", StateType.RUNNING, started=now, executions=executions
        )
        kept = store()
        kept.open_run(row)
        kept.close()
        first = looking("trace", "last", "--execution", "1").out
        assert first.endswith(f"trace: {TRACE.hex()}\n")
        assert looking("trace", "last").out.endswith(f"trace: {later.hex()}\n")

    def test_run_that_goes_on_as_far_as_it_is(self, looking: Command) -> None:
        kept = store()
        _, number = open_run(kept, "nightly")
        ended = members(0, range(2), StateType.COMPLETED)
        kept.commit(Batch(number, groups=[GroupRow(0, "parse", 0, 3)], task_runs=[ended]))
        shown = looking("trace", "last")
        refused = looking("trace", "last", "--send", "--endpoint", "http://127.0.0.1:1")
        kept.close()
        assert shown.code == 0
        assert "parse[1]" in shown.out
        assert (refused.code, refused.out) == (2, "")
        assert "goes on, and its own process sends its trace" in refused.err

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("last", "--unsent"),
            ("last", "--endpoint", "http://127.0.0.1:1"),
            ("last", "--send", "--limit", "1"),
            ("last", "--send", "--output", "x.json"),
        ],
    )
    def test_what_does_not_go_together(self, looking: Command, arguments: tuple[str, ...]) -> None:
        assert looking("trace", *arguments).code == 2


class TestWrites:
    def test_json_to_a_file_and_to_standard_output(self, looking: Command, tmp_path: Path) -> None:
        kept = store()
        run_id = keep_nightly(kept)
        kept.close()
        path = tmp_path / "trace.json"
        assert f"{path} written" in looking("trace", "last", "--output", str(path)).out
        document = json.loads(path.read_text(encoding="utf-8"))
        # A flow, three task runs, an attempt each.
        assert len(span_ids(document)) == 7
        assert span_ids(looking("trace", "last", "--json").json()) == span_ids(document)
        spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
        assert {span["traceId"] for span in spans} == {run_id}

    def test_file_that_cannot_be_written(self, looking: Command) -> None:
        kept = store()
        keep_nightly(kept)
        kept.close()
        done = looking("trace", "last", "--output", "/proc/trace.json")
        assert (done.code, done.out) == (2, "")
        assert "--output /proc/trace.json" in done.err


class TestSends:
    def test_to_the_endpoint_that_is_named(self, looking: Command, receiver: Receiver) -> None:
        kept = store()
        run_id = keep_nightly(kept)
        kept.close()
        done = looking("trace", "last", "--send", "--endpoint", receiver.endpoint)
        assert done.code == 0
        assert f"7 spans of nightly {run_id[:8]} sent to {receiver.endpoint}" in done.out
        assert f"trace: {run_id}" in done.out
        assert receiver.names() == {"flow nightly": 1, "task parse": 3, "run parse": 3}

    def test_same_spans_as_when_the_run_went_on(
        self, raysched: Command, traced: Receiver, outer: str
    ) -> None:
        raysched("run", outer, "--backend", "inline")
        live = {(span.span_id, span.SerializeToString()) for span in traced.spans()}
        assert live
        before = len(traced.spans())
        assert raysched("trace", "last", "--send").code == 0
        later = traced.spans()[before:]
        assert {(span.span_id, span.SerializeToString()) for span in later} == live

    def test_nothing_says_where_to(self, looking: Command) -> None:
        kept = store()
        keep_nightly(kept)
        kept.close()
        done = looking("trace", "last", "--send")
        assert (done.code, done.out) == (1, "")
        assert "raysched jaeger starts a Jaeger" in done.err

    def test_traces_are_off(self, looking: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = store()
        keep_nightly(kept)
        kept.close()
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        for more in ((), ("--endpoint", "http://127.0.0.1:1")):
            done = looking("trace", "last", "--send", *more)
            assert done.code != 0
            assert "OTEL_TRACES_EXPORTER says that traces are not exported" in done.err

    def test_endpoint_that_is_none(self, looking: Command) -> None:
        kept = store()
        keep_nightly(kept)
        kept.close()
        done = looking("trace", "last", "--send", "--endpoint", "localhost")
        assert done.code != 0
        assert "--endpoint: 'localhost' is no URL" in done.err
        assert "OTEL" not in done.err

    def test_what_was_not_delivered_is_sent_once(
        self, raysched: Command, traced: Receiver, outer: str
    ) -> None:
        traced.answer = Answer.REFUSED
        failed = raysched("run", outer, "--backend", "inline")
        assert "--send" in failed.err
        refused = raysched("trace", "--unsent")
        assert refused.code == 1
        assert "were not sent" in refused.out
        traced.answer = Answer.OK
        (sent,) = raysched("trace", "--unsent", "--json").json()
        assert (sent["unsent"], sent["spans"]) == (0, len(traced.spans()))
        assert "Nothing to send" in raysched("trace", "--unsent").out


class TestLink:
    @pytest.mark.usefixtures("traced")
    def test_trace_of_a_traced_run_is_told(self, raysched: Command, outer: str) -> None:
        done = raysched("run", outer, "--backend", "inline")
        run = raysched("show", "last", "--json").json()
        assert run["trace_id"] == run["id"]
        assert f"trace: {run['id']}" in done.out.splitlines()
        assert raysched("runs", "--json").json()[0]["trace_id"] == run["id"]
        (child,) = re.findall(r"subflows +(\w+)", raysched("show", "last").out)
        assert raysched("show", child, "--json").json()["trace_id"] is None

    @pytest.mark.usefixtures("traced")
    def test_template_of_the_settings(
        self, raysched: Command, outer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAYSCHED_TRACE_URL", "https://traces.example/{trace_id}?all")
        done = raysched("run", outer, "--backend", "inline", "--json")
        again = raysched("show", "last").out
        assert f"https://traces.example/{done.json()['trace_id']}?all" in again.replace("\n", "")

    def test_run_that_is_not_traced_has_none(self, raysched: Command, outer: str) -> None:
        assert "trace" not in raysched("run", outer, "--backend", "inline").out
        assert raysched("show", "last", "--json").json()["trace_id"] is None

    def test_unsampled_run_has_none(
        self, raysched: Command, traced: Receiver, outer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        assert "trace" not in raysched("run", outer, "--backend", "inline").out
        assert traced.spans() == []

    def test_trace_option_sends_to_this_machine(self, raysched: Command, outer: str) -> None:
        done = raysched("run", outer, "--backend", "inline", "--trace")
        assert done.code == 0
        run_id = raysched("show", "last", "--json").json()["id"]
        assert f"trace: {run_id}" in done.out


class TestLost:
    @pytest.mark.parametrize("command", [("runs",), ("show", "last"), ("why", "last")])
    def test_who_looks_tells_its_spans_once(
        self, raysched: Command, traced: Receiver, command: tuple[str, ...]
    ) -> None:
        keep_lost()
        assert raysched(*command).code == 0
        # Another process does it, which the command does not wait for.
        traced.wait(lambda: len(traced.received) > 0)
        assert traced.names() == {"flow nightly": 1, "task parse": 3, "run parse": 3}
        assert {span.trace_id for span in traced.spans()} == {TRACE}

    def test_what_was_told_is_noted(self, looking: Command, traced: Receiver) -> None:
        keep_lost()
        assert looking("trace", "--lost").code == 0
        assert traced.names()["flow nightly"] == 1
        assert "Nothing to send" in looking("trace", "--unsent").out

    def test_not_what_is_not_sampled(self, looking: Command, traced: Receiver) -> None:
        keep_lost(sampled=False)
        assert looking("trace", "--lost").code == 0
        assert traced.asked == 0

    def test_collector_that_never_answers_does_no_harm(
        self, raysched: Command, traced: Receiver
    ) -> None:
        run_id = keep_lost()
        traced.answer = Answer.NEVER
        done = raysched("runs")
        assert (done.code, done.err) == (0, "")
        assert run_id[:8] in done.out

    def test_collector_that_is_away_does_no_harm(
        self, raysched: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        run_id = keep_lost()
        done = raysched("runs", "--json")
        assert (done.code, done.err) == (0, "")
        assert done.json()[0]["id"] == run_id
