"""What a collector has of a story's run, against what the database tells of it."""

from collections import Counter
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from raysched.store import open_reader
from raysched.store.replay import replay
from raysched.telemetry.building.builder import Executions, TraceBuilder

if TYPE_CHECKING:
    from chaos.story import Story
    from telemetry.receiver import Receiver

MAX_SPANS = 5000
"""As drivers have it by default."""


def judge_traces(story: "Story", receiver: "Receiver") -> list[str]:
    """Return what is wrong with what arrived.

    None that the database tells of is missing, and parents and links are there. Of a run that was
    never resumed, there is nothing else, and each span is what the database tells, however often it
    was sent and by whom; a resume writes over rows of which an earlier driver has told.

    Args:
        story: Its run is over, and what its drivers could not deliver was sent since.
        receiver: Where its spans went.
    """
    expected = {span.span_id: span for span in _kept(story)}
    told = [_plain(span) for span in receiver.spans()]
    arrived = {span.span_id: span for span in told}
    missing = Counter(span.name for key, span in expected.items() if key not in arrived)
    wrong = [f"{number} spans {name} are missing" for name, number in missing.items()]
    for span in arrived.values():
        above = [span.parent_span_id] if span.parent_span_id else []
        wrong += [
            f"{span.name} leads to {other.hex()}, which is not there"
            for other in [*above, *(link.span_id for link in span.links)]
            if other not in arrived
        ]
    if len({span.trace_id for span in expected.values()}) == 1:
        wrong += [
            f"{span} should be {expected.get(span.span_id, 'nothing')}"
            for span in told
            if span != expected.get(span.span_id)
        ]
    return wrong


def _kept(story: "Story") -> list[Span]:
    reader = open_reader(story.url)
    try:
        builder = TraceBuilder(MAX_SPANS, Executions.ALL)
        told = [builder.take(*each) for each in replay(reader, reader.find_run(story.kept().id))]
    finally:
        reader.close()
    spans = chain.from_iterable(each.spans for each in told)
    return [_plain(Span.FromString(span)) for span in spans]


def _plain(span: Span) -> Span:
    """Return a span with its attributes in order of their names."""
    attributes = sorted(span.attributes, key=attrgetter("key"))
    del span.attributes[:]
    span.attributes.extend(attributes)
    return span
