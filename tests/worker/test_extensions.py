"""What takes part in items: where it is entered, and how what it has to report comes home."""

from __future__ import annotations

import pytest

from raysched.graph.payload import dump_call
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.model.traces import TraceParent, flow_span_id, trace_id
from raysched.worker.progress import UnitProgress
from raysched.worker.protocol import (
    Report,
    RunHeader,
    Stage,
    Unit,
    decode_report,
    encode_header,
    encode_unit,
)
from raysched.worker.runner import UnitRun
from worker.own_extensions import entered_as
from worker.unit_runs import HERE, new_context

RUN = "5" * 32


def function() -> tuple[str, int, int]:
    return entered_as.get()


async def coroutine() -> tuple[str, int, int]:
    return entered_as.get()


def reported(
    header: RunHeader, body: object = function, *, max_concurrency: int = 1, size: int = 3
) -> Report:
    """Run a unit of the flow run of a header; return its report."""
    is_async = body is coroutine
    spec = TaskSpec("work", body, is_async=is_async, max_concurrency=max_concurrency)  # type: ignore[arg-type]
    payload = dump_call(((), {}))[0]
    stage = Stage(
        "work",
        mapped=False,
        shared=b"",
        tags=(),
        numbers=range(10, 10 + size),
        attempts=[2] * size,
        payloads=[payload] * size,
    )
    unit = encode_unit(Unit(1, encode_header(header), (stage,)))
    return decode_report(UnitRun([new_context(spec)], unit, [], HERE).run()[0])


def header(extension: str = "worker.own_extensions:noting") -> RunHeader:
    place = TraceParent(trace_id(RUN), flow_span_id(RUN))
    return RunHeader(RUN, "run", "flow", traceparent=str(place), extension=extension)


@pytest.mark.parametrize(
    ("body", "max_concurrency"), [(function, 1), (function, 2), (coroutine, 1)]
)
def test_each_item_is_entered_in_its_own_context(body: object, max_concurrency: int) -> None:
    report = reported(header(), body, max_concurrency=max_concurrency)
    assert list(report.states) == [StateType.COMPLETED] * 3
    assert sorted(report.spans) == [f"5 work {10 + n} 2".encode() for n in range(3)]
    assert report.dropped_spans == 3
    assert entered_as.get(None) is None


def test_what_another_attempt_calls_takes_part_as_that_one() -> None:
    report = reported(header()._replace(within=("outer", 7, 1)))
    assert report.spans == (b"5 outer 7 1",) * 3


def test_nothing_is_there_without_one() -> None:
    report = reported(RunHeader(RUN, "run", "flow"))
    assert list(report.states) == [StateType.FAILED] * 3, "the function found a context"
    assert (report.spans, report.dropped_spans) == ((), 0)


@pytest.mark.parametrize("name", ["mute", "not_one", "nowhere"])
def test_one_that_breaks_is_left_out(name: str) -> None:
    report = reported(header(f"worker.own_extensions:{name}"))
    failed = StateType.COMPLETED if name == "mute" else StateType.FAILED
    assert list(report.states) == [failed] * 3
    told = [log for log in report.logs if name in log.message]
    assert len(told) == (name != "mute")
    assert report.spans == ()


def test_reports_on_the_way_take_along_what_there_is() -> None:
    ended = [[b"first"], [], [b"second"], [b"third"]]
    stage = Stage("work", mapped=False, shared=b"", tags=(), numbers=[0], attempts=[1])
    progress = UnitProgress(Unit(1, b"", (stage,)), HERE.identity)
    progress.collect = lambda: (ended.pop(0), 1)
    first, second = progress.take_unsent(), progress.take_unsent()
    assert first is not None
    assert second is not None, "dropped ones are told, too"
    assert decode_report(first[0]).spans == (b"first",)
    assert decode_report(second[0]).dropped_spans == 2
    third = progress.take_unsent()
    assert third is not None
    assert decode_report(third[0]).spans == (b"second",)
    progress.acknowledge(*first[1:])
    # The second report may still be overtaken by this one.
    final = decode_report(progress.final())
    assert (final.first_span, final.spans) == (1, (b"second", b"third"))
    assert final.dropped_spans == 4
