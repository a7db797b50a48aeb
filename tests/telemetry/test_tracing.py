"""Programs as processes of their own: what they export, what becomes of that, and what it costs."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from faults.drivers import Place
from ports import free_port
from raysched import flow
from raysched.client import get_runs
from raysched.settings import settings
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import WAIT_SECONDS, Receiver, receiving, rotel
from telemetry.trees import check_tree

FLOWS = """
import os, signal, sys, time
from pathlib import Path
from raysched import flow, task

HERE = Path(__file__).parent

@task
def double(number):
    return 2 * number

@task(retries=1)
def traced(number):
    from opentelemetry import trace
    with trace.get_tracer("users").start_as_current_span("user"):
        return number

@task
def loaded(_):
    return sorted(m for m in sys.modules if m.partition(".")[0] in {"opentelemetry", "grpc"})

@flow
def below(number):
    return double.submit(number).result()

@flow
def program(size=3):
    numbers = double.map(range(size))
    return below(1) + sum(traced.map(numbers).result())

@flow
def fails():
    double.map(range(3)).wait()
    raise ValueError("no")

@flow
def modules():
    found = {*loaded(0), *loaded.with_options()(1)}
    driver = [m for m in sys.modules if m.partition(".")[0] == "opentelemetry"]
    assert not found and not driver, (found, driver)

@task
def wait(number):
    if number == 2 and not (HERE / "go").exists():
        (HERE / "waiting").write_text(str(os.getpid()))
        time.sleep(600)
    return number

@flow
def patient():
    while not (HERE / "told").exists():
        time.sleep(0.05)

@flow
def waits():
    double.map(range(3)).wait()
    return sum(wait.map(range(4)).result())
"""


@pytest.fixture
def place(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A directory with flows, for drivers without any telemetry."""
    # Also for looking from this process.
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    # All the time to deliver that a busy machine needs.
    patience = {"RAYSCHED_TELEMETRY_FLUSH_SECONDS": str(WAIT_SECONDS)}
    place = Place(tmp_path, {"RAYSCHED_BACKEND": "inline", **patience})
    place.write(FLOWS)
    yield place
    place.close()
    settings.cache_clear()


@pytest.fixture(params=["inline", "ray"])
def either_place(request: pytest.FixtureRequest, place: Place) -> Place:
    """The same, on both backends."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
        place.use_local_ray()
    return place


def send_to(place: Place, receiver: Receiver) -> None:
    place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
    place.environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = receiver.protocol


WHOLE = {
    "flow program": 1,
    "flow below": 1,
    "task double": 4,
    "run double": 4,
    "task traced": 3,
    "run traced": 3,
    "user": 3,
}


class TestOff:
    def test_nothing_is_imported_in_driver_and_workers(self, either_place: Place) -> None:
        driver = either_place.run("flows.py:modules")
        assert driver.finish() == 0, driver.output

    def test_disabled(self, place: Place) -> None:
        with receiving(Protocol.HTTP) as receiver:
            send_to(place, receiver)
            place.environment["OTEL_SDK_DISABLED"] = "true"
            driver = place.run("flows.py:modules")
            assert driver.finish() == 0, driver.output
            assert receiver.asked == 0


class TestCollectors:
    @pytest.mark.parametrize("protocol", Protocol)
    def test_a_whole_trace_arrives(self, either_place: Place, protocol: Protocol) -> None:
        with receiving(protocol) as receiver:
            send_to(either_place, receiver)
            driver = either_place.run("flows.py:program")
            assert driver.finish() == 0, driver.output
            assert receiver.names() == WHOLE, driver.output
            check_tree(receiver.spans())
            assert "sent" not in driver.output
        (run,) = [run for run in either_place.look("runs") if run["flow"] == "program"]
        assert receiver.spans()[0].trace_id.hex() == run["id"]

    def test_a_plain_program_says_where_its_traces_are(
        self,
        home: Path,
        collector: Receiver,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        del home, collector
        monkeypatch.setenv("RAYSCHED_TRACE_URL", "http://pages/{trace_id}")
        settings.cache_clear()

        @flow
        def below() -> None:
            """Do nothing."""

        @flow
        def above() -> None:
            below()

        above()
        (run,) = get_runs()
        assert capsys.readouterr().err == f"trace: http://pages/{run.id}\n"

    @pytest.mark.parametrize("protocol", Protocol)
    def test_a_burst_through_another_collector(self, place: Place, protocol: Protocol) -> None:
        size = 1_000
        with receiving(protocol) as receiver, rotel(receiver, place.path) as collector:
            place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint(protocol)
            place.environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
            place.environment["RAYSCHED_TRACE_MAX_SPANS"] = "0"
            driver = place.run("flows.py:program", "-p", f"size={size}")
            assert driver.finish() == 0, driver.output
            whole = 5 * size + 2 * 1 + 2
            receiver.wait(lambda: len(receiver.spans()) >= whole)
        assert receiver.names() == {
            **dict.fromkeys(["task double", "run double"], size + 1),
            **dict.fromkeys(["task traced", "run traced", "user"], size),
            "flow program": 1,
            "flow below": 1,
        }
        check_tree(receiver.spans())
        assert "sent" not in driver.output

    @pytest.mark.parametrize(("flow", "code"), [("program", 0), ("fails", 1)])
    def test_that_are_away_are_told_in_one_line(self, place: Place, flow: str, code: int) -> None:
        place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        place.environment["RAYSCHED_TELEMETRY_FLUSH_SECONDS"] = "0.5"
        driver = place.run(f"flows.py:{flow}")
        assert driver.finish() == code, driver.output
        (run,) = [run for run in place.look("runs") if run["flow"] == flow]
        (line,) = [line for line in driver.output.splitlines() if "not sent" in line]
        assert re.search(rf"\d+ spans of run {run['id'][:8]}", line)
        assert f"raysched trace {run['id'][:8]} --send" in line
        assert "127.0.0.1" in line

    def test_wrong_variables_are_told_before_anything_runs(self, place: Place) -> None:
        place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://localhost:4318"
        place.environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "carrier-pigeon"
        driver = place.run("flows.py:program")
        assert driver.finish() != 0, driver.output
        assert "OTEL_EXPORTER_OTLP_PROTOCOL" in driver.output
        assert place.look("runs") == []


def _told(place: Place, receiver: Receiver, run_id: str) -> list[Span]:
    """Run a program until it has told the trace of an earlier run; return that one's spans."""

    def spans() -> list[Span]:
        return [span for span in receiver.spans() if span.trace_id.hex() == run_id]

    driver = place.run("flows.py:patient")
    # The flow span is the last one, and travels with the others.
    receiver.wait(lambda: any(span.name.startswith("flow ") for span in spans()))
    (place.path / "told").touch()
    assert driver.finish() == 0, driver.output
    return spans()


class TestLostDrivers:
    """What a driver that was killed could not tell, others do."""

    @pytest.fixture
    def receiver(self, place: Place) -> Iterator[Receiver]:
        with receiving(Protocol.HTTP) as receiver:
            send_to(place, receiver)
            yield receiver

    def _kill(self, place: Place) -> str:
        driver = place.run("flows.py:waits")
        place.until_marked("waiting")
        driver.signal_group(signal.SIGKILL)
        driver.finish()
        run_id: str = place.show()["id"]
        return run_id

    def test_the_next_traced_program_tells_it(self, place: Place, receiver: Receiver) -> None:
        lost = self._kill(place)
        states = place.states().items()
        ended = Counter(
            key.partition("[")[0] for key, state in states if state in {"COMPLETED", "CRASHED"}
        )
        spans = _told(place, receiver, lost)
        names = Counter(span.name for span in spans)
        assert names["flow waits"] == 1
        assert names["task double"] == ended["double"] == 3
        assert names["task wait"] == names["run wait"] == ended["wait"]
        check_tree(list({span.span_id: span for span in spans}.values()))
        receiver.received.clear()
        again = place.run("flows.py:below", "-p", "number=1")
        assert again.finish() == 0, again.output
        assert lost not in {span.trace_id.hex() for span in receiver.spans()}

    def test_a_resume_tells_it_and_links_to_it(self, place: Place, receiver: Receiver) -> None:
        lost = self._kill(place)
        (place.path / "go").touch()
        driver = place.start("-m", "raysched", "resume", "last")
        assert driver.finish() == 0, driver.output
        first = [span for span in receiver.spans() if span.trace_id.hex() == lost]
        second = [span for span in receiver.spans() if span.trace_id.hex() != lost]
        first = list({span.span_id: span for span in first}.values())
        check_tree(first)
        check_tree(second, linked=bytes.fromhex(lost))
        (before,) = [span for span in first if span.name == "flow waits"]
        (after,) = [span for span in second if span.name == "flow waits"]
        assert [(link.trace_id, link.span_id) for link in after.links] == [
            (before.trace_id, before.span_id)
        ]
        receiver.received.clear()
        again = place.run("flows.py:below", "-p", "number=1")
        assert again.finish() == 0, again.output
        assert lost not in {span.trace_id.hex() for span in receiver.spans()}

    def test_what_a_collector_has_not_taken_is_sent_by_the_next(
        self, place: Place, receiver: Receiver
    ) -> None:
        receiver.stop()
        place.environment["RAYSCHED_TELEMETRY_FLUSH_SECONDS"] = "0.5"
        driver = place.run("flows.py:below", "-p", "number=1")
        assert driver.finish() == 0, driver.output
        place.environment["RAYSCHED_TELEMETRY_FLUSH_SECONDS"] = str(WAIT_SECONDS)
        run_id = place.show()["id"]
        receiver.start()
        spans = _told(place, receiver, run_id)
        assert Counter(span.name for span in spans) == {
            "flow below": 1,
            "task double": 1,
            "run double": 1,
        }
