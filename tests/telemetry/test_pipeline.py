"""What consumers in the background are told, and what becomes of who tells them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from raysched.model.rows import (
    AttemptRow,
    Batch,
    FlowRunChange,
    FlowRunRow,
    InputRow,
    LogRow,
    TaskRunColumns,
)
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo
from raysched.telemetry.ports import Consumer
from raysched.telemetry.sending.pipeline import Pipeline

WAIT_SECONDS = 30.0

RUN = FlowRunRow("run", "nightly", "nightly", StateType.RUNNING)
CHILD = FlowRunRow("child", "part", "part", StateType.RUNNING, parent="run")
GRANDCHILD = FlowRunRow("grandchild", "part", "part", StateType.RUNNING, parent="child")
OTHER = FlowRunRow("other", "nightly", "nightly", StateType.RUNNING)


class Recorder:
    """Keeps what it is told.

    Attributes:
        taken: What it was told.
        calls: All calls, by name.
        granted: How long each `flush` may take (seconds).
        threads: Names of the threads that called.
        gate: Lets `take` and `flush` go on.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[FlowRunRow, Batch]] = []
        self.calls: list[str] = []
        self.granted: list[float] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def take(self, row: FlowRunRow, batch: Batch) -> None:
        self._enter("take")
        self.taken.append((row, batch))

    def flush(self, seconds: float) -> None:
        self.granted.append(seconds)
        self._enter("flush")

    def close(self) -> None:
        self._enter("close")

    def runs(self) -> list[str]:
        return [row.id for row, _ in self.taken]

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)
        self.began.set()
        self.gate.wait()


class Broken(Recorder):
    def take(self, row: FlowRunRow, batch: Batch) -> None:
        super().take(row, batch)
        raise RuntimeError("take")

    def flush(self, seconds: float) -> None:
        super().flush(seconds)
        raise RuntimeError("flush")

    def close(self) -> None:
        super().close()
        raise RuntimeError("close")


@contextmanager
def feeding(*consumers: Consumer, logs: bool = True, max_bytes: int = 2**20) -> Iterator[Pipeline]:
    pipeline = Pipeline(consumers, logs=logs, max_bytes=max_bytes)
    try:
        yield pipeline
    finally:
        for consumer in consumers:
            if isinstance(consumer, Recorder):
                consumer.gate.set()
        pipeline.close(WAIT_SECONDS)


def columns(count: int = 3, values: Sequence[bytes | None] | None = None) -> TaskRunColumns:
    ones = [1] * count
    kept = values or [None] * count
    return TaskRunColumns(0, range(count), ones, ones, ones, ones, kept, ones, places=ones)


def batch(count: int = 3, *, state: StateType = StateType.RUNNING) -> Batch:
    return Batch(1, flow_run=FlowRunChange(state), task_runs=[columns(count)])


def test_batches_come_in_order_and_from_one_thread() -> None:
    consumers = Recorder(), Recorder()
    with feeding(*consumers) as pipeline:
        for number in range(100):
            pipeline.put((RUN, OTHER)[number % 2], batch())
        assert pipeline.flush(WAIT_SECONDS)
        assert pipeline.behind() == frozenset()
    for consumer in consumers:
        assert consumer.runs() == ["run", "other"] * 50
        assert consumer.threads == {"raysched-telemetry"}


@pytest.mark.parametrize("logs", [True, False])
def test_values_and_inputs_are_not_kept_and_logs_only_for_who_wants_them(*, logs: bool) -> None:
    consumer = Recorder()
    told = Batch(
        1,
        3,
        task_runs=[columns(2, [b"large", None])],
        attempts=[AttemptRow(0, 1, 1, StateType.FAILED, 1, 2, ErrorInfo("KeyError", "x"), place=1)],
        logs=[LogRow(0, 0, 1, 5, 20, "user", "hello")],
        inputs=[InputRow(0, 1, b"pickled")],
        spans=[b"scope"],
        dropped_spans=4,
    )
    with feeding(consumer, logs=logs) as pipeline:
        pipeline.put(RUN, told)
        pipeline.flush(WAIT_SECONDS)
    row, taken = consumer.taken[0]
    assert row is RUN
    assert (taken.run, taken.epoch, taken.spans, taken.dropped_spans) == (1, 3, [b"scope"], 4)
    assert (taken.attempts, taken.inputs) == (told.attempts, [])
    assert taken.logs == (told.logs if logs else [])
    assert not any(taken.task_runs[0].values)
    assert list(taken.task_runs[0].places) == [1, 1]
    # What was committed is still the engine's, and whole.
    assert told.task_runs[0].values == [b"large", None]


def test_who_puts_does_not_wait_for_consumers() -> None:
    consumer = Recorder()
    consumer.gate.clear()
    with feeding(consumer) as pipeline:
        for _ in range(100):
            pipeline.put(RUN, batch())
        assert consumer.began.wait(WAIT_SECONDS)
        assert not pipeline.flush(0.1)
        assert pipeline.behind() == {"run"}
        consumer.gate.set()
        assert pipeline.flush(WAIT_SECONDS)
        assert pipeline.behind() == frozenset()
        assert len(consumer.taken) == 100


def test_a_run_that_finds_no_room_is_given_up_and_others_are_not() -> None:
    consumer = Recorder()
    consumer.gate.clear()
    with feeding(consumer, max_bytes=10_000) as pipeline:
        for _ in range(100):
            pipeline.put(RUN, batch(20))
        consumer.gate.set()
        assert pipeline.flush(WAIT_SECONDS)
        assert pipeline.behind() == {"run"}
        told = len(consumer.taken)
        assert 0 < told < 100
        pipeline.put(RUN, batch(20))
        pipeline.put(OTHER, batch(20))
        assert pipeline.flush(WAIT_SECONDS)
        assert consumer.runs()[told:] == ["other"]
        assert pipeline.behind() == {"run"}


def test_a_subflow_belongs_to_the_run_at_the_top() -> None:
    consumer = Recorder()
    with feeding(consumer, max_bytes=10_000) as pipeline:
        for row in (RUN, CHILD, GRANDCHILD):
            pipeline.put(row, batch())
        assert pipeline.flush(WAIT_SECONDS)
        pipeline.put(GRANDCHILD, batch(10_000))
        assert pipeline.behind() == {"run"}
        pipeline.put(RUN, batch())
        assert pipeline.flush(WAIT_SECONDS)
    assert consumer.runs() == ["run", "child", "grandchild"]


def test_a_consumer_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    broken, recorder = Broken(), Recorder()
    with feeding(broken, recorder) as pipeline:
        pipeline.put(RUN, batch())
        pipeline.put(OTHER, batch())
        assert pipeline.flush(WAIT_SECONDS)
        # The trace of a run may lack what the consumer did not take.
        assert pipeline.behind() == {"run", "other"}
    assert recorder.runs() == ["run", "other"]
    assert {"take", "flush", "close"} == set(broken.calls) == set(recorder.calls)
    assert [record.message for record in caplog.records] == ["telemetry: Broken raised"]
    assert "RuntimeError: take" in caplog.text


def test_a_consumer_that_takes_all_of_its_time_leaves_the_others_theirs() -> None:
    class Slow(Recorder):
        def flush(self, seconds: float) -> None:
            super().flush(seconds)
            if len(self.granted) == 1:
                threading.Event().wait(seconds)

    consumers = important, slow, last = Recorder(), Slow(), Recorder()
    with feeding(*consumers) as pipeline:
        pipeline.flush(WAIT_SECONDS / 10)
        assert important.granted[0] > 0
        # The most important one comes last, and so with all that the others left.
        assert last.granted[0] <= WAIT_SECONDS / 10 / 3
        assert slow.granted[0] <= WAIT_SECONDS / 10 / 2


def test_what_comes_after_the_end_is_not_told() -> None:
    consumer = Recorder()
    with feeding(consumer) as pipeline:
        pipeline.put(RUN, batch(state=StateType.COMPLETED))
        pipeline.close(WAIT_SECONDS)
        pipeline.close(WAIT_SECONDS)
        assert pipeline.flush(WAIT_SECONDS)
        pipeline.put(OTHER, batch())
        assert pipeline.behind() == {"other"}
    assert consumer.runs() == ["run"]
    assert consumer.calls[-1] == "close"


def test_a_consumer_that_hangs_does_not_keep_the_end_waiting() -> None:
    consumer = Recorder()
    consumer.gate.clear()
    with feeding(consumer) as pipeline:
        pipeline.put(RUN, batch())
        pipeline.close(0.1)
        assert pipeline.behind() == {"run"}


def test_a_program_ends_beside_a_consumer_that_hangs_and_so_does_its_fork() -> None:
    script = """
import os, threading
from raysched.telemetry.sending.pipeline import Pipeline
from telemetry.test_pipeline import RUN, Recorder, batch
consumer = Recorder()
consumer.gate.clear()
pipeline = Pipeline([consumer], logs=False)
pipeline.put(RUN, batch())
consumer.began.wait()
child = os.fork()
if child == 0:
    pipeline.put(RUN, batch())
    assert pipeline.flush(60) and not pipeline.behind()
    pipeline.close(60)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
pipeline.close(0.1)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "7\n", "")
