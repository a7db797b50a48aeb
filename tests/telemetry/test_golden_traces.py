"""Traces of real flows, as trees that people can read."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult, StaticSampler
from opentelemetry.trace import TraceState

from raysched import flow, skip, task
from raysched.model.rows import Batch, FlowRunRow
from raysched.settings import settings
from raysched.store import open_reader
from raysched.store.replay import replay
from raysched.telemetry.building.builder import TraceBuilder
from raysched.telemetry.otlp import SpanId
from raysched.telemetry.reading import SpanView, read_spans, trees
from raysched.wiring import Configuration, configure, disconnect

Told = list[tuple[FlowRunRow, Batch]]


@pytest.fixture
def told(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path))
    settings.cache_clear()
    batches: Told = []
    before = configure(
        Configuration("inline", observers=[lambda row, batch: batches.append((row, batch))])
    )
    yield batches
    configure(before)
    settings.cache_clear()


def spans_of(batches: Told, max_spans: int = 5000) -> list[SpanView]:
    builder = TraceBuilder(max_spans)
    return read_spans([span for told in batches for span in builder.take(*told).spans])


def tree_of(batches: Told, max_spans: int = 5000) -> str:
    spans = spans_of(batches, max_spans)
    keys = {span.id: _name(span) for span in spans}
    lines: list[str] = []

    def show(span: SpanView, depth: int) -> None:
        told = [_name(span)]
        state = span.attributes.get(
            "raysched.task.state", span.attributes.get("raysched.flow.state")
        )
        told += [str(state)] if state else []
        told += [f"error {span.error!r}"] if span.error is not None else []
        told += [event.name for event in span.events]
        links = ", ".join(keys[link] for link in span.links)
        lines.append("  " * depth + " ".join(told) + (f" <- {links}" if links else ""))
        for child in span.children:
            show(child, depth + 1)

    for top in trees(spans):
        show(top, 0)
    return "\n".join(lines)


def _name(span: SpanView) -> str:
    of = span.attributes
    if span.name.startswith("task "):
        return f"task {of['raysched.task.key']}"
    if span.name.startswith("run "):
        return f"run {of['raysched.attempt.number']}"
    if span.name.startswith("chunk "):
        return f"{span.name} {of['raysched.chunk.first']} to {of['raysched.chunk.last']}"
    return span.name


@task
def load(number: int) -> int:
    return number


@task
def parse(number: int) -> int:
    return number + 1


@task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task
def broken(number: int) -> int:
    raise KeyError(number)


@task
def optional() -> None:
    skip("nothing to do")


def test_a_map_of_a_map_and_its_sum(told: Told) -> None:
    @flow
    def main() -> int:
        return total.submit(parse.map(load.map([1, 2]))).result()

    main()
    assert tree_of(told) == (
        "flow main COMPLETED\n"
        "  task load[0] COMPLETED\n"
        "    run 1\n"
        "  task parse[0] COMPLETED <- task load[0]\n"
        "    run 1\n"
        "  task load[1] COMPLETED\n"
        "    run 1\n"
        "  task parse[1] COMPLETED <- task load[1]\n"
        "    run 1\n"
        "  task total[0] COMPLETED <- task parse[0], task parse[1]\n"
        "    run 1"
    )


def test_a_failure_a_retry_and_what_follows(told: Told) -> None:
    tries: list[int] = []

    @task(retries=1)
    def shaky(number: int) -> int:
        tries.append(number)
        if len(tries) == 1:
            raise ConnectionError("try again")
        return number

    @flow
    def main() -> None:
        shaky(1)
        parse.submit(broken.submit(2)).wait()

    with pytest.raises(Exception, match="broken"):
        main()
    assert tree_of(told) == (
        "flow main FAILED error '1 task run failed: broken[0]'\n"
        "  task shaky[0] COMPLETED\n"
        "    run 1 error 'try again' exception\n"
        "    run 2\n"
        "  task broken[0] FAILED error '2'\n"
        "    run 1 error '2' exception\n"
        "  task parse[0] UPSTREAM_FAILED error 'it needs broken[0], which did not succeed'"
        " <- task broken[0]"
    )
    (failed,) = [span for span in spans_of(told) if span.name == "run broken"]
    assert failed.attributes["error.type"] == "KeyError"
    (event,) = failed.events
    assert event.attributes["exception.type"] == "KeyError"
    assert "raise KeyError(number)" in str(event.attributes["exception.stacktrace"])


def test_subflows_and_what_is_called_in_a_task(told: Told) -> None:
    @flow
    def sub(number: int) -> int:
        return load(number)

    @task
    def outer(number: int) -> int:
        return sub(parse(number))

    @flow
    def main() -> None:
        sub(1)
        outer(2)

    main()
    assert tree_of(told) == (
        "flow main COMPLETED\n"
        "  flow sub COMPLETED\n"
        "    task load[0] COMPLETED\n"
        "      run 1\n"
        "  task outer[0] COMPLETED\n"
        "    run 1\n"
        "      task parse[0] COMPLETED\n"
        "        run 1\n"
        "      flow sub COMPLETED\n"
        "        task load[0] COMPLETED\n"
        "          run 1"
    )


def test_what_never_ran_is_an_instant(told: Told) -> None:
    @flow
    def main() -> None:
        load.submit(1, wait_for=[optional.submit()]).wait()

    main()
    spans = {_name(span): span for span in spans_of(told)}
    skipped = spans["task load[0]"]
    assert skipped.attributes["raysched.task.state"] == "SKIPPED"
    assert skipped.error is None
    assert skipped.end == spans["task optional[0]"].end
    assert skipped.start == skipped.end - 1


def test_a_large_map_is_folded(told: Told) -> None:
    @flow
    def main() -> None:
        total.submit(parse.map(load.map(range(1000)))).wait()

    main()
    spans = spans_of(told, 2500)
    assert len(spans) <= 2500
    chunks = [span for span in spans if span.name.startswith("chunk ")]
    kept = [span for span in spans if span.name == f"task {_only({c.name for c in chunks})}"]
    # The slowest ten may be among the first fifty.
    assert 50 <= len(kept) <= 50 + 10
    folded = 1000 - len(kept)
    assert {span.attributes["raysched.task.key"] for span in kept} >= {
        f"{kept[0].attributes['raysched.task.name']}[{number}]" for number in range(50)
    }
    assert sum(int(str(span.attributes["raysched.chunk.count"])) for span in chunks) == folded
    (flow_span,) = [span for span in spans if span.name == "flow main"]
    assert flow_span.attributes["raysched.spans.folded"] == 2 * folded
    assert flow_span.attributes["raysched.tasks.total"] == 2001


def _only(names: set[str]) -> str:
    (name,) = names
    return name.removeprefix("chunk ")


def test_a_trace_that_is_not_sampled_is_not_told(told: Told) -> None:
    from raysched.model.rows import Execution

    @flow
    def main() -> None:
        load(1)

    main()
    place = f"00-{'ab' * 16}-{'cd' * 8}-"
    for flags, number in (("00", 0), ("01", 3)):
        execution = Execution(told[0][0].started, place + flags)
        again = [(replace(row, executions=(execution,)), batch) for row, batch in told]
        spans = spans_of(again)
        assert len(spans) == number
        assert {span.id.trace_id.hex() for span in spans} <= {"ab" * 16}
        if spans:
            assert [span.parent.hex() for span in spans if span.name == "flow main"] == ["cd" * 8]


@pytest.mark.parametrize("max_spans", [0, 10, 5000])
def test_a_kept_run_gives_the_same_trace(told: Told, max_spans: int) -> None:
    every_kind_fails()
    kept = replayed(told)
    assert tree_of(kept, max_spans) == tree_of(told, max_spans)
    assert _by_id(kept, max_spans) == _by_id(told, max_spans)


@pytest.mark.parametrize("max_spans", [0, 10, 5000])
def test_what_the_sampler_said_is_kept(
    told: Told, max_spans: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(Says(Decision.RECORD_AND_SAMPLE), shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    every_kind_fails()
    kept = replayed(told)
    assert _by_id(kept, max_spans) == _by_id(told, max_spans)
    assert _flow_spans(kept, max_spans) == _flow_spans(told, max_spans)
    spans = spans_of(kept, max_spans)
    assert {span.state for span in spans} == {"ot=th:8"}
    (top,) = [span for span in spans if "rule" in span.attributes]
    assert top.name == "flow main"
    said = {name: top.attributes[name] for name in SAID}
    assert said == SAID | {"many": [1, 2], "which": ["a", "b"]}


def every_kind_fails() -> None:
    """Run a flow with spans of every kind."""

    @flow
    def sub(number: int) -> int:
        return load(number)

    @task
    def outer(number: int) -> int:
        return sub(parse(number))

    @flow
    def main() -> None:
        sub(1)
        total.submit(parse.map(load.map(range(20)))).wait()
        parse.submit(broken.submit(2)).wait()
        outer(3)

    with pytest.raises(Exception, match="broken"):
        main()


def replayed(told: Told) -> Told:
    """Return what the database keeps of a run that was told."""
    disconnect()
    reader = open_reader(settings().resolved_database_url())
    kept = list(replay(reader, reader.find_run(told[0][0].id)))
    reader.close()
    return kept


class Says(StaticSampler):
    """A sampler that says more than yes."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        del args, kwargs
        return SamplingResult(Decision.RECORD_AND_SAMPLE, SAID, TraceState([("ot", "th:8")]))


SAID: Any = {"rule": "nightly é", "share": 0.5, "many": (1, 2), "which": ("a", "b"), "yes": True}


def _flow_spans(batches: Told, max_spans: int) -> list[bytes]:
    """Return the `flow` spans, encoded."""
    builder = TraceBuilder(max_spans)
    spans = [span for told in batches for span in builder.take(*told).spans]
    return sorted(span for span in spans if Span.FromString(span).name.startswith("flow "))


def _by_id(batches: Told, max_spans: int) -> dict[SpanId, SpanView]:
    return {span.id: span for span in spans_of(batches, max_spans)}
