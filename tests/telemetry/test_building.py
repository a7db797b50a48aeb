from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raysched.telemetry.reading import SpanView
from telemetry.histories import History, built

SEEDS = st.integers(0, 2**32)
BUDGETS = st.sampled_from([0, 1, 10, 40, 400, 5000])
SIZES = st.sampled_from([3, 70, 150])

FAILED = {"FAILED", "TIMED_OUT", "CRASHED"}


def plain(span: SpanView) -> Any:
    links = sorted(span.links)
    events = [(each.at, each.name, each.attributes) for each in span.events]
    return (
        span.id,
        (span.name, span.parent, span.start, span.end, span.error, links, events),
        sorted(span.attributes.items()),
    )


def told(spans: list[SpanView]) -> list[Any]:
    return sorted((plain(span) for span in spans), key=lambda each: each[0])


def by_id(spans: list[SpanView]) -> dict[bytes, SpanView]:
    return {span.id.span_id: span for span in spans}


@given(SEEDS, SEEDS, BUDGETS, SIZES)
@settings(deadline=None, max_examples=40)
def test_a_trace_is_the_same_live_and_from_the_database(
    seed: int, order: int, max_spans: int, largest: int
) -> None:
    history = History(seed, largest)
    assert told(built(history.live(order), max_spans)) == told(built(history.replayed(), max_spans))


@given(SEEDS, SEEDS, BUDGETS, SIZES)
@settings(deadline=None, max_examples=40)
def test_each_span_has_an_id_of_its_own_and_a_parent_around_it(
    seed: int, order: int, max_spans: int, largest: int
) -> None:
    history = History(seed, largest)
    spans = built(history.live(order), max_spans)
    known = by_id(spans)
    assert len(known) == len(spans)
    for span in spans:
        assert span.id.trace_id.hex() == history.row.id
        assert span.start <= span.end
        if span.name == "flow main":
            assert not span.parent
        else:
            parent = known[span.parent]
            assert parent.start <= span.start
            assert span.end <= parent.end


@given(SEEDS, SEEDS, BUDGETS, SIZES)
@settings(deadline=None, max_examples=40)
def test_every_link_leads_to_a_span(seed: int, order: int, max_spans: int, largest: int) -> None:
    spans = built(History(seed, largest).live(order), max_spans)
    known = {span.id for span in spans}
    for span in spans:
        assert len(span.links) <= 128 + 2
        assert len(set(span.links)) == len(span.links)
        assert known.issuperset(span.links)


@given(SEEDS, SEEDS, SIZES)
@settings(deadline=None, max_examples=40)
def test_without_a_limit_everything_is_told(seed: int, order: int, largest: int) -> None:
    history = History(seed, largest)
    spans = built(history.live(order), 0)
    assert len(spans) == history.count
    assert not any(span.name.startswith("chunk ") for span in spans)


@given(SEEDS, SEEDS, st.sampled_from([1, 10, 40, 400]), SIZES)
@settings(deadline=None, max_examples=40)
def test_the_limit_holds_but_for_failures_and_retries(
    seed: int, order: int, max_spans: int, largest: int
) -> None:
    history = History(seed, largest)
    spans = built(history.live(order), max_spans)
    must = _must_be_told(spans)
    # Up to half of the limit may have been told before the first failure was known.
    assert len(spans) <= max(max_spans, len(must) + max_spans // 2)
    total = sum(
        each.state.name in FAILED
        for run in _runs(history)
        for group in run.outcomes.values()
        for each in group
    )
    assert total == sum(span.attributes.get("raysched.task.state") in FAILED for span in spans)


@given(SEEDS, SEEDS, st.sampled_from([1, 10, 40, 400]), SIZES)
@settings(deadline=None, max_examples=40)
def test_what_is_not_told_is_counted(seed: int, order: int, max_spans: int, largest: int) -> None:
    history = History(seed, largest)
    spans = built(history.live(order), max_spans)
    own = [span for span in spans if not span.name.startswith("chunk ")]
    left = sum(
        int(str(span.attributes.get(f"raysched.spans.{how}", 0)))
        for span in spans
        for how in ("folded", "suppressed")
    )
    assert len(own) + left == history.count


def _must_be_told(spans: list[SpanView]) -> set[bytes]:
    """Return the ids of what failed or was tried again, with all that is above it and below it."""
    known = by_id(spans)
    must = {span.id.span_id for span in spans if not span.parent}
    for span in spans:
        eventful = span.attributes.get("raysched.task.state") in FAILED or (
            span.name.startswith("run ") and span.attributes["raysched.attempt.number"] != 1
        )
        at: SpanView | None = span
        while eventful and at is not None:
            must.add(at.id.span_id)
            at = known.get(at.parent)
    for span in spans:
        # A task run is told with all of its attempts.
        if span.name.startswith("run ") and span.parent in must:
            must.add(span.id.span_id)
        if span.links and span.name.startswith("run ") and span.links[0].span_id in known:
            must.add(span.links[0].span_id)
    for span in spans:
        if span.name.startswith("run ") and span.parent in must:
            must.add(span.id.span_id)
    return must


def _runs(history: History) -> list[History]:
    return [history, *(each for child in history.children for each in _runs(child))]
