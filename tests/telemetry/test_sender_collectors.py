"""Spans through collectors that nobody here wrote, and programs that end beside bad ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import WAIT_SECONDS, Answer, Receiver, receiving, rotel
from telemetry.sending import names, sending, spans

BURST = 50_000


@pytest.fixture(params=list(Protocol))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(request.param) as running:
        yield running


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_burst_through_an_independent_collector(
    receiver: Receiver, protocol: Protocol, tmp_path: Path
) -> None:
    told: list[str] = []
    with (
        rotel(receiver, tmp_path) as collector,
        sending(collector.destination(protocol), told.append, 2**25) as sender,
    ):
        for start in range(0, BURST, 500):
            sender.put("run", spans(*names(start, start + 500)))
        sender.flush(WAIT_SECONDS)
        assert sender.unsent() == {}
        receiver.wait(lambda: len(receiver.spans()) >= BURST)
        found = receiver.names()
    assert set(found) == set(names(0, BURST))
    assert set(found.values()) == {1}
    assert told[-1:] == ["run"]


@pytest.mark.parametrize("protocol", list(Protocol))
def test_an_independent_collector_is_stopped_and_started_in_the_middle(
    protocol: Protocol, tmp_path: Path
) -> None:
    with (
        receiving(protocol) as receiver,
        rotel(receiver, tmp_path) as collector,
        sending(collector.destination(protocol), max_bytes=2**25) as sender,
    ):
        sender.put("run", spans(*names(0, BURST // 2)))
        sender.flush(WAIT_SECONDS)
        collector.stop()
        sender.put("run", spans(*names(BURST // 2, BURST)))
        sender.flush(0.3)
        assert sender.unsent() == {"run": BURST // 2}
        assert "refused" in sender.reason()
        collector.start()
        sender.flush(WAIT_SECONDS)
        assert sender.unsent() == {}
        receiver.wait(lambda: len(receiver.spans()) >= BURST)
        assert set(receiver.names()) == set(names(0, BURST))


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("answer", [Answer.NEVER, Answer.AWAY])
def test_a_program_ends_beside_a_collector_that_does_not_take_anything(
    protocol: Protocol, answer: Answer
) -> None:
    script = """
import sys
from functools import partial
from raysched.telemetry import otlp
from raysched.telemetry.sending.environment import Destination, Protocol, Signal
from raysched.telemetry.sending.spans import SpanSender
from raysched.telemetry.sending.transports import open_transport
destination = Destination(Signal.TRACES, Protocol(sys.argv[1]), sys.argv[2], timeout=3600)
sender = SpanSender(open_transport(destination), partial(otlp.traces_request, b""))
sender.put("run", [b""] * 10)
sender.flush(0.3)
print(sender.unsent())
if sys.argv[3] == "close":
    sender.close()
"""
    with receiving(protocol) as receiver:
        receiver.answer = answer
        for ending in ("close", "leave"):
            arguments = (protocol, receiver.destination().endpoint, ending)
            ended = subprocess.run(
                [sys.executable, "-c", script, *arguments],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (ended.returncode, ended.stdout) == (0, "{'run': 10}\n")
            assert ended.stderr == ""
