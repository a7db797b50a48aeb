"""What threads and forks of a worker do to each other, at the worst moment."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.worker import deadman
from raysched.worker.channel import Channel
from raysched.worker.context import Endpoint
from raysched.worker.ending import end_items
from raysched.worker.logs import capture
from raysched.worker.outbox import Outbox
from raysched.worker.progress import Outcome, UnitProgress
from raysched.worker.protocol import LogRecord, Stage, Unit, decode_report
from raysched.worker.runner import UnitRun
from raysched.worker.wire import PROGRESSED, FrameReader
from worker.unit_runs import new_context, new_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 60


def run_of(function: Any, size: int = 1, **options: Any) -> UnitRun:
    return new_run(new_context(TaskSpec("work", function, **options)), [((), {})] * size)


def new_progress() -> UnitProgress:
    stage = Stage("work", mapped=False, shared=b"", tags=(), numbers=range(9), attempts=[1] * 9)
    return UnitProgress(Unit(7, b"", (stage,)), ("node", "worker", 1, "host"))


def record(message: str) -> LogRecord:
    return LogRecord(0, 1, 1, 20, "logger", message)


class Interruptible(socket.socket):
    """A socket whose user is interrupted once it has sent something."""

    interruption: Callable[[], None] | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()
        return sent

    def setsockopt(self, *_: Any) -> None:
        """It has no options of TCP."""


class Pair(Channel):
    """A channel without its introduction, to a socket of the test's own."""

    def __init__(self) -> None:
        self.driver, ours = socket.socketpair()
        self.driver.settimeout(PATIENCE_SECONDS)
        self.socket = Interruptible(fileno=ours.detach())
        self._messages = FrameReader()
        self._messages.limit = 1 << 20
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "create_connection", lambda *_: self.socket)
            patch.setattr(Channel, "_introduce", lambda *_: None)
            super().__init__(Endpoint("", 0, b""))

    def arrived(self, number: int) -> list[tuple[Any, ...]]:
        """Return so many messages that have arrived."""
        found: list[tuple[Any, ...]] = []
        while len(found) < number:
            found += self._messages.feed(self.driver.recv(1 << 16))
        return found


@pytest.fixture
def channel() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.close()
    found.driver.close()


def messages_of(progressed: list[tuple[Any, ...]]) -> list[str]:
    reports = [decode_report(message[2]) for message in progressed if message[0] == PROGRESSED]
    return [log.message for report in reports for log in report.logs]


def run_within_patience(*functions: Any) -> None:
    """Run functions in threads that have to end."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "it waits for itself, or for another one that waits for it"


class TestItems:
    def test_one_that_is_just_being_handed_back_is_not_cancelled(self) -> None:
        over, deciding = threading.Event(), threading.Event()

        def first() -> None:
            if not deciding.is_set():
                threading.Thread(target=run.hand_back).start()
                deciding.wait()

        run = run_of(first, 2)
        note = run.progress.hand_back

        def note_slowly(positions: list[int]) -> None:
            deciding.set()
            # Only if the unit does not wait for this, it is over by then.
            over.wait(0.2)
            note(positions)

        run.progress.hand_back = note_slowly  # type: ignore[method-assign, assignment]
        report = decode_report(run.run()[0])
        over.set()
        assert list(report.states) == [StateType.COMPLETED]
        assert report.handed_back == [1]

    def test_one_that_nobody_cancelled_is_not_told_to_be(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = run_of(int, 2)
        # Something else went wrong with it.
        monkeypatch.setattr(UnitRun, "_begin_next", lambda *_: None)
        assert list(decode_report(run.run()[0]).positions) == []

    def test_order_to_one_whose_event_loop_is_closed_harms_nobody(self) -> None:
        cancels: list[Any] = []

        async def work() -> None:
            # As another thread does that is to call them, and is late.
            cancels.extend(vars(run)["_cancels"].values())

        run = run_of(work, is_async=True)
        run.run()
        (cancel,) = cancels
        cancel()

    def test_one_that_ended_meanwhile_is_not_ended_by_force(self) -> None:
        ended: list[bool] = []

        def work() -> None:
            # As the thread beside it does, of the first item too late.
            ended.append(end_items(run, [0]))

        run = run_of(work, 2, timeout_seconds=1.0)
        report = decode_report(run.run()[0])
        assert ended == [True, False]
        assert list(report.states) == [StateType.TIMED_OUT, StateType.COMPLETED]
        assert [log.position for log in report.logs] == [0]


class TestReports:
    def test_spans_of_the_next_unit_are_not_taken_by_a_late_one(self) -> None:
        progress = new_progress()
        there = [b"first"]
        progress.collect = lambda: ([there.pop()] if there else [], 0)
        assert decode_report(progress.final()).spans == (b"first",)
        there.append(b"of the next unit")
        progress.take_unsent()
        assert there == [b"of the next unit"]

    def test_what_is_asked_for_spans_may_log(self, channel: Pair) -> None:
        progress, outbox = new_progress(), Outbox()
        outbox.connect(channel, None)
        progress.on_log = lambda: outbox.send_unsent(progress)
        collected: list[int] = []

        def collect() -> tuple[list[bytes], int]:
            if not collected:
                collected.append(1)
                progress.log(record("while collecting"))
            return [], 0

        progress.collect = collect
        run_within_patience(lambda: progress.log(record("first")))
        assert messages_of(channel.arrived(1)) == ["first", "while collecting"]

    def test_finalizer_may_log_where_another_thread_reports(self, channel: Pair) -> None:
        progress, outbox = new_progress(), Outbox()
        outbox.connect(channel, None)
        progress.on_log = lambda: outbox.send_unsent(progress)
        inside, reporting = threading.Event(), threading.Event()

        class Large:
            """A value: Python could call a finalizer wherever this is called."""

            size = 1

            def parts(self) -> Any:
                inside.set()
                reporting.wait(PATIENCE_SECONDS)
                progress.log(record("of a finalizer"))
                return ()

            settled = parts

        def collect() -> tuple[list[bytes], int]:
            reporting.set()
            return [], 0

        def end() -> None:
            outcome = Outcome(0, StateType.COMPLETED, 1, 2)
            progress.end(outcome, Large())  # type: ignore[arg-type]

        def report() -> None:
            inside.wait(PATIENCE_SECONDS)
            outbox.send_unsent(progress)

        progress.collect = collect
        run_within_patience(end, report)
        outbox.send_unsent(progress)
        assert messages_of(channel.arrived(1)) == ["of a finalizer"]

    def test_handler_that_raises_loses_nothing(self, channel: Pair) -> None:
        progress, outbox = new_progress(), Outbox()
        outbox.connect(channel, None)
        progress.log(record("first"))

        def interrupted(*_: Any) -> None:
            raise TimeoutError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channel, "send", interrupted)
            with pytest.raises(TimeoutError):
                outbox.send_unsent(progress)
        outbox.send_unsent(progress)
        assert messages_of(channel.arrived(1)) == ["first"]

    def test_message_within_a_message_comes_whole(self, channel: Pair) -> None:
        channel.socket.interruption = lambda: channel.send(2)
        run_within_patience(lambda: channel.send(1))
        assert channel.arrived(2) == [(1,), (2,)]
        assert channel.is_clear


@contextmanager
def captured() -> Iterator[None]:
    capture.acquire_for(logging.INFO)
    yield
    capture.release_one()


def test_fork_reports_nothing() -> None:
    def work() -> None:
        child = os.fork()
        if not child:
            logging.getLogger("users").warning("of the child")
            os._exit(0)
        os.waitpid(child, 0)
        logging.getLogger("users").warning("of the parent")

    run = run_of(work)
    told, tell = os.pipe()

    def on_log() -> None:
        os.write(tell, b"x")

    run.progress.on_log = on_log
    with captured():
        report = decode_report(run.run()[0])
    assert [log.message for log in report.logs] == ["of the parent"]
    assert os.read(told, 10) == b"x"
    os.close(told)
    os.close(tell)


STUCK = """
import socket, sys, time
from pathlib import Path
from raysched.model.options import TaskSpec
from raysched.settings import Settings
from raysched.worker.context import Endpoint, context_of
from raysched.worker.functions import LocalFunction
from raysched.worker.interrupt import Signals
from raysched.worker.protocol import Stage, Unit, encode_unit
from raysched.worker.reporter import Reporter
from raysched.worker.runner import Process, UnitRun
from raysched.graph.payload import dump_call
from worker.unit_runs import HEADER

def never_react():
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

with socket.create_server(("127.0.0.1", 0)) as server:
    nobody = Endpoint(*server.getsockname(), b"key")
signals = Signals(dedicated=True)
signals.install()
identity = ("node", "worker", 1, "host")
process = Process(identity, signals, Reporter(nobody, identity, sys.argv[1], signals))
spec = TaskSpec("work", never_react, timeout_seconds=0.1)
context = context_of(spec, Settings(termination_grace_seconds=0.1), LocalFunction)
stage = Stage("work", mapped=False, shared=b"", tags=(), numbers=[0], attempts=[1],
              payloads=[dump_call(((), {}))[0]])
UnitRun([context], encode_unit(Unit(7, HEADER, (stage,))), [], process).run()
"""


def test_item_that_is_ended_by_force_without_a_channel_is_told_of_by_its_file(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path / "traces")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as process:
        assert process.wait() == 1
    overdue = deadman.read(deadman.file_of(tmp_path, process.pid))
    assert overdue is not None
    assert (overdue.key, overdue.seconds) == ("work[0]", 0.1)
    assert "never_react" in overdue.stacks
