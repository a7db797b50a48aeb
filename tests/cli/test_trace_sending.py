"""`raysched trace --send`: where to, and what it says."""

from collections.abc import Iterator

import pytest

from cli.commands import Command
from cli.kept_runs import keep_lost, keep_nightly, store
from raysched.telemetry.sending.environment import Protocol
from telemetry.receiver import Answer, Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Protocol.HTTP) as running:
        yield running


def test_what_had_been_delivered_before_is_told(looking: Command, receiver: Receiver) -> None:
    keep_lost(executions=2, traced=1)
    command = ("trace", "last", "--send", "--endpoint", receiver.endpoint)
    assert "1 of its 2 executions had been delivered before" in looking(*command).out
    assert "it had been delivered before" in looking(*command).out
    (sent,) = looking(*command, "--json").json()
    assert (sent["executions"], sent["delivered"]) == (2, 2)


def test_what_is_sent_for_the_first_time_was_not_delivered_before(
    looking: Command, receiver: Receiver
) -> None:
    keep_lost()
    done = looking("trace", "last", "--send", "--endpoint", receiver.endpoint)
    assert done.code == 0
    assert "before" not in done.out


def test_an_endpoint_may_be_pasted_with_its_path(looking: Command, receiver: Receiver) -> None:
    kept = store()
    keep_nightly(kept)
    kept.close()
    endpoint = f"{receiver.endpoint}/v1/traces"
    done = looking("trace", "last", "--send", "--endpoint", endpoint)
    assert done.code == 0
    assert f"sent to {endpoint}\n" in done.out


def test_a_base_url_with_a_path_too_many_is_explained(
    looking: Command, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store()
    keep_nightly(kept)
    kept.close()
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{receiver.endpoint}/v1/traces")
    receiver.answer = Answer.UNSUPPORTED
    done = looking("trace", "last", "--send")
    assert done.code == 1
    assert (
        "/v1/traces/v1/traces: it answered 404 Not Found: OTEL_EXPORTER_OTLP_ENDPOINT is a "
        "base URL; leave out /v1/traces, or set OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    ) in done.out
