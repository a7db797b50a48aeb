"""What becomes of spans on their way to collectors that work, fail, hang, come and go."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from raysched.telemetry import otlp
from raysched.telemetry.sending.environment import Protocol
from raysched.telemetry.sending.sender import REQUEST_BYTES, REQUEST_ITEMS, Sender, ignore
from raysched.telemetry.sending.spans import SpanSender
from raysched.telemetry.sending.transports import open_transport
from telemetry.messages import REJECTED
from telemetry.receiver import SAID, WAIT_SECONDS, Answer, Receiver, receiving
from telemetry.sending import names, sending, spans


@pytest.fixture(params=list(Protocol))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with receiving(request.param) as running:
        yield running


@pytest.fixture
def sender(receiver: Receiver) -> Iterator[SpanSender]:
    with sending(receiver.destination()) as opened:
        yield opened


def in_background(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_spans_arrive_without_being_asked_for(receiver: Receiver, sender: SpanSender) -> None:
    sender.put("run", spans("a", "b"))
    sender.put("run", spans("c"))
    receiver.wait(lambda: receiver.names() == {"a": 1, "b": 1, "c": 1})
    assert receiver.asked == 1


def test_spans_of_user_code_arrive_with_them(receiver: Receiver, sender: SpanSender) -> None:
    scope = ScopeSpans(spans=[Span(name="x"), Span(name="y")])
    scope.scope.name = "user"
    receiver.answer = Answer.AWAY
    sender.put("run", spans("a"), [scope.SerializeToString()])
    assert sender.unsent() == {"run": 3}
    receiver.answer = Answer.OK
    sender.flush(WAIT_SECONDS)
    assert sender.unsent() == {}
    found = {
        one.scope.name: {span.name for span in one.spans}
        for one in receiver.received[0].message.resource_spans[0].scope_spans
    }
    assert found == {"raysched": {"a"}, "user": {"x", "y"}}


@pytest.mark.parametrize(
    ("count", "padding", "requests"),
    [(REQUEST_ITEMS, 0, 1), (REQUEST_ITEMS + 1, 0, 2), (5, REQUEST_BYTES // 2, 5)],
)
def test_requests_are_as_large_as_collectors_like(
    receiver: Receiver, sender: SpanSender, count: int, padding: int, requests: int
) -> None:
    sender.put("run", spans(*names(0, count), padding=padding))
    sender.flush(WAIT_SECONDS)
    assert receiver.asked == requests
    assert set(receiver.names()) == set(names(0, count))


@pytest.mark.parametrize("answer", [Answer.AWAY, Answer.BUSY])
def test_what_is_not_taken_now_is_sent_again(
    receiver: Receiver, sender: SpanSender, answer: Answer
) -> None:
    receiver.answer, receiver.retry_after = answer, 0.01
    sender.put("run", spans("a", "b"))
    sender.flush(0.0)
    receiver.wait(lambda: receiver.asked >= 2)
    assert sender.unsent() == {"run": 2}
    receiver.answer = Answer.OK
    receiver.wait(lambda: receiver.names() == {"a": 1, "b": 1})
    sender.flush(WAIT_SECONDS)
    assert (sender.unsent(), sender.reason()) == ({}, "")


def test_it_says_why_and_where_to(receiver: Receiver, sender: SpanSender) -> None:
    receiver.answer = Answer.AWAY
    sender.put("run", spans("a"))
    sender.flush(0.0)
    receiver.wait(lambda: receiver.asked >= 2)
    assert str(receiver.port) in sender.reason()
    assert "503" in sender.reason() or "UNAVAILABLE" in sender.reason()


def test_what_is_never_taken_holds_up_nothing_behind_it(receiver: Receiver) -> None:
    receiver.never_takes = b"poison"
    told: list[str] = []
    with sending(receiver.destination(), told.append) as sender:
        sender.put("bad", spans("poison"))
        for number in range(5):
            sender.put(f"run {number}", spans(f"span {number}"))
        in_background(lambda: sender.flush(WAIT_SECONDS))
        receiver.wait(lambda: len(receiver.received) == 5)
        # It is tried again, and is on its way as long as that may help.
        asked = receiver.asked
        receiver.wait(lambda: receiver.asked > asked)
        assert sender.unsent() == {"bad": 1}
        receiver.never_takes = b""
        sender.flush(WAIT_SECONDS)
        assert sender.unsent() == {}
    assert sorted(told) == ["bad", *(f"run {number}" for number in range(5))]


@contextmanager
def impatient(
    receiver: Receiver, delivered: Callable[[str], None] = ignore
) -> Iterator[Sender[bytes]]:
    """A sender that tries a request only once more after others have been taken."""
    sender = Sender[bytes](
        open_transport(receiver.destination()),
        lambda pieces: otlp.traces_request(b"", pieces, ()),
        retry_seconds=0.0,
        delivered=delivered,
    )
    try:
        yield sender
    finally:
        sender.close()


def test_what_is_never_taken_is_given_up_and_counted(receiver: Receiver) -> None:
    receiver.never_takes = b"poison"
    told: list[str] = []
    with impatient(receiver, told.append) as sender:
        for run_id, name in (("bad", "poison"), ("good", "a")):
            sender.put(spans(name)[0], 1, 1, run_id)
        # Nothing is on its way any more long before that time is over.
        assert sender.flush(WAIT_SECONDS)
        assert receiver.names() == {"a": 1}
        sender.put(spans("b")[0], 1, 1, "bad")
        assert sender.flush(WAIT_SECONDS)
        assert receiver.names() == {"a": 1, "b": 1}
        assert sender.unsent() == {"bad": 1}
        assert "503" in sender.reason() or "UNAVAILABLE" in sender.reason()
    assert told == ["good"]


def test_nothing_is_given_up_while_nothing_is_taken(receiver: Receiver) -> None:
    receiver.answer = Answer.AWAY
    with impatient(receiver) as sender:
        for name in ("a", "b"):
            sender.put(spans(name)[0], 1, 1, name)
        sender.flush(0.0)
        receiver.wait(lambda: receiver.asked >= 6)
        receiver.answer = Answer.OK
        assert sender.flush(WAIT_SECONDS)
        assert receiver.names() == {"a": 1, "b": 1}
        assert sender.unsent() == {}


def test_a_flush_does_not_wait_for_a_collector_that_wants_more_time(
    receiver: Receiver, sender: SpanSender
) -> None:
    receiver.answer, receiver.retry_after = Answer.BUSY, 3600
    sender.put("run", spans("a"))
    # The test's own limit of time is shorter.
    sender.flush(3000)
    assert sender.unsent() == {"run": 1}
    assert receiver.asked == 1


def test_a_flush_cuts_our_own_pauses_short(receiver: Receiver, sender: SpanSender) -> None:
    receiver.answer = Answer.AWAY
    sender.put("run", spans("a"))
    sender.flush(0.0)
    # By now the pauses are seconds.
    receiver.wait(lambda: receiver.asked >= 5)
    asked, receiver.answer = receiver.asked, Answer.OK
    sender.flush(WAIT_SECONDS)
    assert receiver.asked == asked + 1
    assert sender.unsent() == {}


def test_a_receiver_that_never_answers(receiver: Receiver, sender: SpanSender) -> None:
    receiver.answer = Answer.NEVER
    sender.put("one", spans("a", "b"))
    sender.put("two", spans("c"))
    sender.flush(0.2)
    assert sender.unsent() == {"one": 2, "two": 1}
    assert sender.reason().endswith("it has not answered yet")
    sender.close()
    assert sender.unsent() == {"one": 2, "two": 1}
    assert sender.reason().endswith("it has not answered yet")


def test_what_is_refused_is_lost_and_the_rest_is_not(
    receiver: Receiver, sender: SpanSender
) -> None:
    receiver.answer = Answer.REFUSED
    sender.put("one", spans("a", "b"))
    sender.flush(WAIT_SECONDS)
    receiver.answer = Answer.OK
    sender.put("two", spans("c"))
    sender.flush(WAIT_SECONDS)
    assert receiver.names() == {"c": 1}
    assert sender.unsent() == {"one": 2}
    assert SAID in sender.reason()


def test_what_is_rejected_of_a_request_is_counted(receiver: Receiver, sender: SpanSender) -> None:
    receiver.answer = Answer.PARTIAL
    sender.put("run", spans(*names(0, 10)))
    sender.put("small", spans("a"))
    sender.flush(WAIT_SECONDS)
    assert sender.unsent() == {"run": REJECTED, "small": 1}
    assert "rejected" in sender.reason()


def test_garbage_counts_as_not_sent(receiver: Receiver, sender: SpanSender) -> None:
    receiver.answer = Answer.GARBAGE
    sender.put("run", spans("a"))
    sender.flush(WAIT_SECONDS)
    assert sender.unsent() == {"run": 1}
    assert "not OTLP" in sender.reason()


def test_a_collector_without_this_signal_is_asked_once(
    receiver: Receiver, sender: SpanSender, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = Answer.UNSUPPORTED
    caplog.set_level(logging.INFO)
    for number in range(5):
        sender.put(f"run {number}", spans("a"))
        sender.flush(WAIT_SECONDS)
    assert receiver.asked == 1
    assert sum(sender.unsent().values()) == 5
    assert caplog.text == ""


def test_delivery_is_told_for_each_run_and_not_for_what_is_lost(receiver: Receiver) -> None:
    told: list[str] = []
    with sending(receiver.destination(), told.append) as sender:
        sender.put("one", spans("a"))
        sender.put("two", spans("b"))
        sender.flush(WAIT_SECONDS)
        receiver.answer = Answer.REFUSED
        sender.put("three", spans("c"))
        sender.flush(WAIT_SECONDS)
    assert sorted(told) == ["one", "two"]


def test_what_a_callback_raises_harms_nothing(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(run_id: str) -> None:
        raise RuntimeError(run_id)

    with sending(receiver.destination(), raises) as sender:
        for name in ("a", "b"):
            sender.put(name, spans(name))
            sender.flush(WAIT_SECONDS)
    assert receiver.names() == {"a": 1, "b": 1}
    assert "RuntimeError: a" in caplog.text


def test_what_cannot_be_encoded_is_lost_alone(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(pieces: Sequence[bytes]) -> bytes:
        if b"bad" in pieces:
            raise ValueError("no such thing")
        return b"".join(pieces)

    sender = Sender(open_transport(receiver.destination()), encode, request_bytes=0)
    sender.put(b"bad", 3, 2, "run")
    sender.put(b"", 1, 5, "run")
    assert sender.flush(WAIT_SECONDS)
    assert sender.unsent() == {"run": 2}
    assert len(receiver.received) == 1
    assert "no such thing" in sender.reason()
    assert "no such thing" in caplog.text
    sender.close()


def test_pieces_without_items_travel_like_others(receiver: Receiver) -> None:
    sender = Sender(open_transport(receiver.destination()), b"".join, request_bytes=0)
    for _ in range(3):
        sender.put(b"", 1, 0, "run")
    assert sender.flush(WAIT_SECONDS)
    assert len(receiver.received) == 3
    assert sender.unsent() == {}
    sender.close()


def test_who_puts_waits_for_room(receiver: Receiver) -> None:
    with sending(receiver.destination(), max_bytes=10_000) as sender:
        for number in range(5):
            # There is room for one of them.
            sender.put("run", spans(f"span {number}", padding=9_900))
        sender.flush(WAIT_SECONDS)
        assert set(receiver.names()) == {f"span {number}" for number in range(5)}
        assert sender.unsent() == {}


def test_nobody_waits_for_room_while_the_collector_is_down(receiver: Receiver) -> None:
    receiver.stop()
    with sending(receiver.destination(), max_bytes=10_000) as sender:
        for number in range(100):
            sender.put("run", spans(f"span {number}", padding=1_000))
        sender.flush(0.0)
        assert sender.unsent() == {"run": 100}
        receiver.start()
        sender.flush(WAIT_SECONDS)
        # What had found room is kept for as long as it takes.
        arrived = len(receiver.names())
        assert arrived > 0
        assert sender.unsent() == {"run": 100 - arrived}


def test_who_waits_for_room_is_let_go_when_the_collector_goes_down(receiver: Receiver) -> None:
    receiver.answer = Answer.NEVER
    with sending(receiver.destination(), max_bytes=10_000) as sender:
        sender.put("run", spans("first", padding=9_990))
        waiting = in_background(lambda: sender.put("run", spans("second", padding=9_990)))
        receiver.wait(lambda: receiver.asked == 1)
        assert waiting.is_alive()
        receiver.stop()
        waiting.join(WAIT_SECONDS)
        assert not waiting.is_alive()
        assert sender.unsent() == {"run": 2}
        receiver.start()


def test_closing_lets_everyone_go(receiver: Receiver) -> None:
    receiver.answer = Answer.NEVER
    with sending(receiver.destination(), max_bytes=10_000) as sender:
        sender.put("run", spans("first", padding=9_990))
        sender.flush(0.0)
        receiver.wait(lambda: receiver.asked == 1)
        putting = in_background(lambda: sender.put("run", spans("second", padding=9_990)))
        flushing = in_background(lambda: sender.flush(WAIT_SECONDS * 10))
        sender.close()
        sender.close()
        for thread in (putting, flushing):
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
        sender.put("run", spans("third"))
        assert sender.unsent() == {"run": 3}


def test_a_receiver_that_is_stopped_and_started_in_the_middle(receiver: Receiver) -> None:
    with sending(receiver.destination(), max_bytes=2**25) as sender:
        sender.put("run", spans(*names(0, 10_000)))
        receiver.wait(lambda: receiver.asked >= 1)
        receiver.stop()
        sender.put("run", spans(*names(10_000, 20_000)))
        receiver.start()
        sender.put("run", spans(*names(20_000, 30_000)))
        sender.flush(WAIT_SECONDS)
        assert sender.unsent() == {}
        # A request whose answer got lost was sent twice: spans have ids, so that harms nothing.
        assert set(receiver.names()) == set(names(0, 30_000))
