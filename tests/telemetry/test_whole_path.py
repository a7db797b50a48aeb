"""From task runs on Ray through an independent collector: all that arrives, whatever is broken."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.drivers import Place, until
from raysched.client import get_unsent_runs
from raysched.settings import settings
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import WAIT_SECONDS, Answer, receiving, rotel
from telemetry.trees import check_tree, kept_names, own_names

BURST = 25_000
"""Task runs, with two spans each."""

FLOWS = """
import asyncio, os, signal, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from opentelemetry import trace
from raysched import flow, in_context, runtime, task

HERE = Path(__file__).parent

def span(name):
    return trace.get_tracer("users").start_as_current_span(name)

@task
def nothing(number):
    return number

@task
def double(number):
    with span("sync"):
        return 2 * number

@task(retries=2)
def flaky(number):
    with span("tried"):
        if runtime.task_run.run_count <= number:
            raise OSError(number)

@task
def after(number):
    return number

@task(trigger_rule="all_failed")
def never(number):
    return number

@task(persist_result=True, cache_key_fn=lambda context, parameters: "one")
def cached():
    return 1

@task
async def waits(number):
    with span("async"):
        await asyncio.sleep(0.001)

@task
def threads(number):
    def one(_):
        with span("thread"):
            pass
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(in_context(one), range(2)))

@task
def leaf(number):
    with span("leaf"):
        return number

@task
def nests(number):
    return leaf(number) + sum(leaf.map(range(number)).result())

@flow
def below(number):
    with span("inside"):
        return double(number)

@task
def calls(number):
    return below(number)

# Each in a call of its own: a killed worker takes along what neighbours have not reported yet.
@task(crash_retries=1, batch=False)
def dies(number):
    with span("dying"):
        if number == 1 and runtime.task_run.run_count == 1:
            os.kill(os.getpid(), signal.SIGKILL)

@flow
def everything(burst=0):
    with span("around"):
        doubled = double.map(range(5))
    flaky.map(range(4)).wait()
    followed = after.map(flaky.map([3, 0]))
    followed.wait()
    never.submit(doubled[0]).wait()
    cached(), cached()
    waits.map(range(4)).result()
    threads.map(range(2)).result()
    nests.map(range(3)).result()
    below(1)
    calls.map(range(2)).result()
    dies.map(range(3)).result()
    nothing.map(range(burst)).wait()
    return sum(doubled.result())

@task
def pauses(number):
    (HERE / f"paused {number}").write_text(str(os.getpid()))
    with span("pause"):
        while not (HERE / f"go {number}").exists():
            time.sleep(0.01)

@flow
def slow():
    for number in range(3):
        double.map(range(50)).wait()
        pauses(number)

@flow
def small():
    return double.map(range(3)).result()

if __name__ == "__main__":
    small()
"""

USERS = {
    "around": 1,
    "sync": 5 + 3,
    "tried": 1 + 2 + 3 + 3 + 3 + 1,
    "async": 4,
    "thread": 2 * 2,
    "leaf": 3 + 3,
    "inside": 3,
    # What the worker was in when it was killed went with it.
    "dying": 3,
}


@pytest.fixture
def place(nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A directory with flows, for drivers that have all the time to deliver."""
    # Also for looking from this process.
    monkeypatch.setenv("RAYSCHED_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    environment = {
        "RAYSCHED_BACKEND": "inline",
        "RAYSCHED_TRACE_MAX_SPANS": "0",
        "RAYSCHED_TELEMETRY_FLUSH_SECONDS": str(WAIT_SECONDS),
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    place = Place(tmp_path, environment)
    place.write(FLOWS)
    yield place
    place.close()
    settings.cache_clear()


@pytest.fixture
def place_on_ray(place: Place, local_ray: None) -> Place:
    del local_ray
    place.use_local_ray()
    return place


def send_to(place: Place, endpoint: str, protocol: Protocol) -> None:
    place.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    place.environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol


@pytest.mark.parametrize(("protocol", "burst"), [(Protocol.HTTP, BURST), (Protocol.GRPC, 500)])
def test_everything_and_a_burst_through_a_collector(
    place_on_ray: Place, protocol: Protocol, burst: int
) -> None:
    place = place_on_ray
    with receiving(protocol) as receiver, rotel(receiver, place.path) as collector:
        send_to(place, collector.endpoint(protocol), protocol)
        driver = place.run("flows.py:everything", "-p", f"burst={burst}")
        # Some of its tasks fail for good.
        assert driver.finish() == 1, driver.output
        assert "not sent" not in driver.output
        assert "dropped" not in driver.output
        kept = kept_names(place.path / "home" / "raysched.db")
        whole = kept.total() + sum(USERS.values())
        receiver.wait(lambda: len(receiver.spans()) >= whole)
    spans = receiver.spans()
    assert Counter(span.name for span in spans) == kept + Counter(USERS)
    assert kept["run dies"] == 4
    assert kept["run nothing"] == burst
    check_tree(spans)


@pytest.mark.parametrize("protocol", Protocol)
def test_a_collector_that_is_stopped_and_started_while_a_run_goes_on(
    place: Place, protocol: Protocol
) -> None:
    with receiving(protocol) as receiver, rotel(receiver, place.path) as collector:
        send_to(place, collector.endpoint(protocol), protocol)
        driver = place.run("flows.py:slow")
        place.until_marked("paused 0")
        collector.stop()
        (place.path / "go 0").touch()
        place.until_marked("paused 1")
        collector.start()
        (place.path / "go 1").touch()
        place.until_marked("paused 2")
        (place.path / "go 2").touch()
        assert driver.finish() == 0, driver.output
        assert "not sent" not in driver.output
        kept = kept_names(place.path / "home" / "raysched.db")
        receiver.wait(lambda: own_names(receiver.spans()) == kept)
        receiver.wait(lambda: receiver.names().get("pause") == 3)
    check_tree(receiver.spans())


@pytest.mark.parametrize(
    ("answer", "protocol"),
    [
        (Answer.NEVER, Protocol.HTTP),
        (Answer.NEVER, Protocol.GRPC),
        (Answer.GARBAGE, Protocol.HTTP),
    ],
)
def test_what_a_bad_collector_has_not_taken_is_sent_by_the_command_that_is_told(
    place: Place, answer: Answer, protocol: Protocol
) -> None:
    place.environment["RAYSCHED_TELEMETRY_FLUSH_SECONDS"] = "0.3"
    with receiving(protocol) as receiver:
        send_to(place, receiver.endpoint, protocol)
        receiver.answer = answer
        driver = place.start("flows.py")
        assert driver.finish() == 0, driver.output
        (line,) = [line for line in driver.output.splitlines() if "not sent" in line]
        found = re.search(r"`raysched (trace \w+ --send)`", line)
        assert found is not None
        receiver.answer = Answer.OK
        sending = place.start("-m", "raysched", *found[1].split())
        assert sending.finish() == 0, sending.output
        arrived = receiver.spans()
    assert own_names(arrived) == kept_names(place.path / "home" / "raysched.db")
    check_tree(arrived)


def test_who_looks_after_a_kill_tells_the_trace_and_a_resume_goes_on_in_its_own(
    place: Place,
) -> None:
    with receiving(Protocol.HTTP) as receiver:
        send_to(place, receiver.endpoint, Protocol.HTTP)
        driver = place.run("flows.py:slow")
        place.until_marked("paused 0")
        (place.path / "go 0").touch()
        place.until_marked("paused 1")
        driver.signal_group(signal.SIGKILL)
        driver.finish()
        receiver.until_left()
        before = receiver.spans()
        looking = place.start("-m", "raysched", "runs")
        assert looking.finish() == 0, looking.output
        # Another process tells it, which nobody waits for.
        receiver.wait(lambda: "flow slow" in receiver.names())
        until(lambda: not get_unsent_runs(), "the mark that all was delivered")
        lost = receiver.spans()
        told = lost[len(before) :]
        assert len({span.span_id for span in told}) == len(told)
        check_tree(list({span.span_id: span for span in lost}.values()))
        receiver.received.clear()
        for number in range(1, 3):
            (place.path / f"go {number}").touch()
        resuming = place.start("-m", "raysched", "resume", "last")
        assert resuming.finish() == 0, resuming.output
        # What was told is not told again.
        check_tree(receiver.spans(), linked=lost[0].trace_id)
        (above,) = [span for span in lost if span.name == "flow slow"]
        (after,) = [span for span in receiver.spans() if span.name == "flow slow"]
        assert [link.span_id for link in after.links] == [above.span_id]


def test_a_resume_tells_each_span_once(place: Place) -> None:
    with receiving(Protocol.HTTP) as receiver:
        send_to(place, receiver.endpoint, Protocol.HTTP)
        driver = place.run("flows.py:slow")
        place.until_marked("paused 0")
        driver.signal_group(signal.SIGKILL)
        driver.finish()
        receiver.until_left()
        receiver.received.clear()
        for number in range(3):
            (place.path / f"go {number}").touch()
        resuming = place.start("-m", "raysched", "resume", "last")
        assert resuming.finish() == 0, resuming.output
        spans = receiver.spans()
    assert len({span.span_id for span in spans}) == len(spans)
    assert Counter(span.name for span in spans)["flow slow"] == 2
