"""What workers say arrives, also if Ray is faster, or a thread stands still at the worst moment."""

from __future__ import annotations

import select
import signal
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ray.exceptions import WorkerCrashedError

from backends import jobs
from backends.scripted import Driver
from raysched import get_run_logger
from raysched.backends.ray.autopsy import Autopsies, end_worker
from raysched.backends.ray.hearts import Whereabouts
from raysched.backends.ray.listener import Alarms, Listener
from raysched.graph.payload import dump_call
from raysched.model.options import TaskSpec
from raysched.model.states import StateType
from raysched.worker.channel import Channel
from raysched.worker.interrupt import Signals
from raysched.worker.logs import capture
from raysched.worker.protocol import (
    Report,
    Stage,
    Unit,
    decode_report,
    decode_unit,
    encode_report,
    encode_unit,
)
from raysched.worker.reporter import Reporter
from raysched.worker.runner import Process, UnitRun
from raysched.worker.wire import ALIVE, BEGAN, CLOSE, HOLDS, PROGRESSED
from worker.unit_runs import HEADER, new_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backends.harness import Harness
    from backends.scripted import Connection
    from raysched.backends.ray.traces import Remains
    from raysched.engine.ports import Message

PATIENCE_SECONDS = 60.0


class Said:
    """A listener, what it has told of, and a worker of its."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        alarms = Alarms(lambda _: None, lambda _: None, lambda _: None)
        self.listener = Listener("127.0.0.1", self._take, lambda _: True, alarms)
        self.channel = Channel(self.listener.endpoint)

    def _take(self, message: Message) -> None:
        self.told.append(message)

    def stop_thread(self) -> Callable[[], None]:
        """Have the listener's thread stand still; return what lets it go on."""
        stands, may_go_on = threading.Event(), threading.Event()

        def stand() -> None:
            stands.set()
            may_go_on.wait(PATIENCE_SECONDS)

        self.listener.after_last_words(0, stand, died=False)
        assert stands.wait(PATIENCE_SECONDS)
        return may_go_on.set

    def catch_up(self) -> None:
        """Wait until the listener has heard all that was said."""
        heard = threading.Event()
        self.listener.after_last_words(0, heard.set, died=False)
        assert heard.wait(PATIENCE_SECONDS)

    def next_message(self) -> tuple[Any, ...]:
        """Return what the worker is told next."""
        assert select.select([self.channel], [], [], PATIENCE_SECONDS)[0]
        return self.channel.receive()[0]


@pytest.fixture
def said() -> Iterator[Said]:
    found = Said()
    yield found
    found.channel.close()
    found.listener.close()


class TestListener:
    def test_hears_what_was_said_while_it_stood_still_before_it_gives_up(
        self, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("raysched.backends.ray.listener.LAST_WORDS_SECONDS", 0.0)
        said.channel.send(BEGAN, 7, (0,), 1)
        said.catch_up()
        # Both in one turn of its thread: the unit is waited for, and the thread stands still.
        go_on = said.stop_thread()
        stands, may_go_on, lost = threading.Event(), threading.Event(), threading.Event()

        def lose() -> None:
            said.told.append("lost")
            lost.set()

        said.listener.after_last_words(7, lose, died=True)

        def stand() -> None:
            stands.set()
            may_go_on.wait(PATIENCE_SECONDS)

        said.listener.after_last_words(0, stand, died=False)
        go_on()
        assert stands.wait(PATIENCE_SECONDS)
        said.channel.send(BEGAN, 7, (1,), 2)
        may_go_on.set()
        assert lost.wait(PATIENCE_SECONDS)
        first, second, last = said.told
        assert (first.positions, second.positions, last) == ((0,), (1,), "lost")

    def test_closes_what_a_worker_keeps_whose_reply_was_faster_than_its_word(
        self, said: Said
    ) -> None:
        go_on = said.stop_thread()
        said.channel.send(HOLDS)
        closing = threading.Thread(target=said.listener.close_objects)
        closing.start()
        go_on()
        assert said.next_message() == (CLOSE,)
        said.channel.close()
        closing.join(PATIENCE_SECONDS)
        assert not closing.is_alive()


def test_worker_may_speak_before_its_unit_is_known_to_be_submitted(
    ray_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = ray_harness.backend
    function_of, endpoint = vars(backend)["_function_of"], vars(backend)["_listener"].endpoint

    class Hasty:
        """A remote function whose worker speaks before `.remote` returns."""

        def __init__(self, specs: Any) -> None:
            self._function = function_of(specs)

        def remote(self, frame: bytes, *handles: Any) -> Any:
            unit, channel = decode_unit(frame).id, Channel(endpoint)
            channel.send(PROGRESSED, unit, encode_report(Report(unit, spans=[b"span"])), 0, 0, 1)
            heard = select.select([channel], [], [], PATIENCE_SECONDS)[0]
            channel.close()
            assert heard, "nobody has heard it"
            return self._function.remote(frame, *handles)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "_function_of", Hasty)
        number = ray_harness.submit(TaskSpec("job", jobs.sleep), [(0,)])
    ended = ray_harness.finish(number)
    assert ended.states == {0: StateType.COMPLETED}
    assert ended.live == 1


class TestReporter:
    @pytest.fixture
    def driver(self) -> Iterator[Driver]:
        found = Driver()
        yield found
        found.close()

    @pytest.fixture
    def reporter(self, driver: Driver, tmp_path: Path) -> Iterator[tuple[Reporter, Connection]]:
        before = signal.set_wakeup_fd(-1)
        identity = ("node", "worker", 1, "host")
        traces, signals = str(tmp_path / "traces"), Signals(dedicated=True)
        found, connection = driver.while_accepting(
            lambda: Reporter(driver.endpoint, identity, traces, signals)
        )
        yield found, connection
        found.close()
        for thread in threading.enumerate():
            if thread.name == "raysched reporter":
                thread.join(PATIENCE_SECONDS)
        connection.close()
        signal.set_wakeup_fd(before)

    def run(self, reporter: Reporter, function: Any, **options: Any) -> Report:
        """Run a unit of one item beside a reporter."""
        payload = dump_call(((), {}))[0]
        stage = Stage(
            "work", mapped=False, shared=b"", tags=(), numbers=[0], attempts=[1], payloads=[payload]
        )
        process = Process(("node", "worker", 1, "host"), watcher=reporter)
        context = new_context(TaskSpec("work", function, **options))
        unit = UnitRun([context], encode_unit(Unit(7, HEADER, (stage,))), [], process)
        return decode_report(unit.run()[0])

    def test_nobody_waits_for_signs_of_a_unit_that_has_ended(
        self, reporter: tuple[Reporter, Connection]
    ) -> None:
        watcher, connection = reporter
        self.run(watcher, int, heartbeat_timeout_seconds=60.0)
        assert connection.until(ALIVE)[1:3] == (7, 60.0)
        assert connection.until(ALIVE)[1:3] == (7, 0.0)

    def test_what_a_broken_channel_may_have_lost_is_sent_again(
        self,
        reporter: tuple[Reporter, Connection],
        driver: Driver,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("raysched.worker.reporter._RECONNECT_SECONDS", 0.01)
        watcher, connection = reporter
        again: list[Report] = []

        def work() -> None:
            get_run_logger().info("first")
            connection.until(PROGRESSED)
            connection.close()
            other = driver.accept()
            again.append(decode_report(other.until(PROGRESSED)[2]))
            other.close()

        capture.acquire_for(20)
        try:
            report = self.run(watcher, work)
        finally:
            capture.release_one()
        assert list(report.states) == [StateType.COMPLETED], report.errors
        assert [log.message for log in again[0].logs] == ["first"]


class TestAutopsies:
    def test_unit_is_lost_also_if_nothing_can_be_found_out(self, ray_harness: Harness) -> None:
        del ray_harness
        autopsies, found = Autopsies(), []
        over = threading.Event()

        def then(left: Remains) -> None:
            found.append(left.found)
            over.set()

        nowhere = Whereabouts("no node", "no worker", 1, "host", "no file")
        autopsies.examine(7, WorkerCrashedError(), [nowhere], then)
        assert over.wait(PATIENCE_SECONDS)
        assert found == [False]
        autopsies.close()

    def test_worker_that_has_gone_on_to_another_unit_is_spared(self, tmp_path: Path) -> None:
        none = -(2**63)
        traces = tmp_path / "1.last"
        traces.write_bytes(struct.pack("<qqq", 7, none, none))
        # It ends its unit, and begins the next one, when it is asked for its stacks.
        script = f"""
import pathlib, signal, time
def asked(*_):
    pathlib.Path({str(traces)!r}).write_bytes({struct.pack("<qqq", 8, none, none)!r})
    pathlib.Path({str(tmp_path / "1.stacks")!r}).write_text("stacks")
signal.signal(signal.SIGUSR2, asked)
signal.signal(signal.SIGUSR1, lambda *_: print("alive", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.01)  # a signal just before `signal.pause` would end none
"""
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            worker.stdout.readline()
            where = Whereabouts("node", "worker", worker.pid, "host", str(traces))
            end_worker([where], 7)
            worker.send_signal(signal.SIGUSR1)
            assert worker.stdout.readline() == b"alive\n"
            end_worker([where], 8)
            assert worker.wait(PATIENCE_SECONDS) == -signal.SIGKILL


TERMINATED = """
import os, signal, sys, time
from pathlib import Path
from raysched.backends.ray.traces import Traces
from raysched.worker.objects import objects

objects.close = lambda: os.write(1, b"closed by %d\\n" % os.getpid())
Traces(Path(sys.argv[1])).note_exits()
heard, tell = os.pipe()
child = os.fork()
if not child:
    os.write(tell, b"here")  # Python forgets signals that come before it has noticed the fork
    while True:
        time.sleep(0.01)
os.read(heard, 4)
os.kill(child, signal.SIGTERM)
os.waitpid(child, 0)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_termination_of_a_forked_child_closes_nothing_of_its_worker_s(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TERMINATED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        try:
            said, _ = worker.communicate(timeout=PATIENCE_SECONDS)
        finally:
            worker.kill()
    assert worker.returncode == -signal.SIGTERM
    assert said == b"closed by %d\n" % worker.pid
