"""Why a run ended as it did, as one page of HTML: no script, nothing from elsewhere."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files

from raysched.cli.markup import Content, Markup, element, join
from raysched.cli.output import duration, local_time, noun
from raysched.cli.why_picture import svg
from raysched.cli.why_words import (
    alike_text,
    asked_text,
    before_fallback_text,
    blame_text,
    change_text,
    driver_text,
    held_facts,
    seen_text,
    shortfall_text,
    shown_path,
    status_text,
    stopped_text,
    victims_text,
    where_text,
)
from raysched.client.advice_case import Advice
from raysched.client.why_facts import Cause, Comparison, Source, Step, Try, Why
from raysched.model.ids import SHORT_ID
from raysched.model.states import SUCCESSES, StateType

MOST_BOXES = 40
"""Groups of the graph that are drawn."""

OPENED = 3
"""Causes that are open when the page is; the others open at a click."""


def page(why: Why) -> str:
    """Return the page."""
    title = f"why {why.flow} {why.run[:SHORT_ID]}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", _style()),
    )
    body = element("body", element("main", *_run(why)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


@cache
def _style() -> Markup:
    return Markup(files("raysched.cli").joinpath("why.css").read_text(encoding="utf-8"))


def _run(why: Why, level: int = 1) -> Iterator[Markup]:
    good = "good" if why.state is StateType.COMPLETED else None
    yield element(f"h{level}", f"{why.flow} ", _state(why.state))
    yield element("p", join(*_coded(why.verdict)), class_=f"verdict {good or ''}".strip())
    facts = [
        ("run", why.run),
        ("name", why.name),
        ("started", local_time(why.started)),
        ("ended", local_time(why.ended) if why.ended else ""),
        ("target", why.target),
        ("backend", why.backend),
        ("message", why.message),
        ("driver", driver_text(why.loss.driver) if why.loss is not None else ""),
        ("task run", why.key),
        ("cache", why.cache),
        *((missed.task, shortfall_text(missed)) for missed in why.shortfalls),
        *((noun(count, "task run"), reason) for reason, count in why.reasons.items()),
    ]
    yield _facts(facts)
    if why.part.nodes:
        yield element("h2", "Where")
        yield element("div", svg(why.flow, why.part, run=why.run, most=MOST_BOXES), class_="scroll")
        if len(why.part.nodes) > MOST_BOXES:
            left_out = noun(len(why.part.nodes) - MOST_BOXES, "more group")
            yield element("p", f"… and {left_out}", class_="soft")
    if why.causes:
        yield element("h2", noun(len(why.causes) + why.more_causes, "cause"))
        yield from (_cause(cause, why.run) for cause in why.causes)
        if why.more_causes:
            yield element(
                "p", f"… and {why.more_causes:,} more: raysched show {why.run[:SHORT_ID]}"
            )
    if held := held_facts(why):
        yield element("h2", "When it was stopped")
        yield _facts(held)
    if why.comparison is not None:
        yield from _comparison(why.comparison)
    if why.steps:
        yield element("h2", "Next")
        yield join(*map(_step, why.steps))
    for subflow in why.subflows:
        yield element("h2", "In the subflow")
        yield from _run(subflow, level=3)


def _cause(cause: Cause, run: str) -> Markup:
    name = f" ({cause.name})" if cause.key and cause.name != cause.key else ""
    summary = element(
        "summary",
        element("h3", element("span", f"{cause.title}{name}", class_="mono")),
        " ",
        _state(cause.state),
        element("span", f" {status_text(cause)}", class_="soft"),
        element("div", cause.said, class_="said mono"),
    )
    facts = [
        ("alike", alike_text(cause)),
        ("because of it", victims_text(cause)),
        ("class", blame_text(cause)),
        ("seen", seen_text(cause, run)),
        ("fallback", before_fallback_text(cause)),
        ("why it stopped", stopped_text(cause)),
        ("owner", cause.owner),
        ("fingerprint", cause.fingerprint),
    ]
    parts = [
        _source(cause.source) if cause.source is not None else None,
        _facts(facts, runbook=cause.runbook),
        *map(_advice, cause.advice),
        _evidence(cause),
        _attempts(cause.attempts),
        _inputs(cause),
        _logs(cause),
        _before(cause),
        _stack(cause),
    ]
    opened = "" if cause.number <= OPENED else None
    return element("details", summary, element("div", *parts), class_="cause", open=opened)


def _source(source: Source) -> Markup:
    place = f"{shown_path(source.file)}:{source.line} in {source.function}"
    remark = element("span", f" ({source.remark})", class_="soft") if source.remark else None
    lines: list[Content] = []
    for number, text in source.lines:
        shown = join(element("span", f"{number:>5} ", class_="number"), text)
        lines += [element("span", shown, class_="hit") if number == source.line else shown, "\n"]
    code = element("pre", *lines, class_="source") if lines else None
    return join(element("p", element("span", place, class_="mono"), remark), code)


def _facts(facts: Iterable[tuple[str, str]], *, runbook: str = "") -> Markup:
    rows = [join(element("dt", name), element("dd", *_lines(text))) for name, text in facts if text]
    if runbook:
        # Of other schemes, such as javascript:, no link is made.
        is_link = runbook.startswith(("https://", "http://"))
        shown = element("a", runbook, href=runbook, rel="noreferrer") if is_link else runbook
        rows.append(join(element("dt", "runbook"), element("dd", shown)))
    return element("dl", *rows)


def _lines(text: str) -> Iterator[Content]:
    for number, line in enumerate(text.split("\n")):
        yield from (element("br"), line) if number else (line,)


def _advice(advice: Advice) -> Markup:
    code = element("p", element("code", advice.code)) if advice.code else None
    return element("div", element("p", advice.text), code, class_="advice")


def _evidence(cause: Cause) -> Markup | None:
    if not cause.evidence:
        return None
    parts = [
        element("details", element("summary", each.name), element("pre", each.text, class_="wrap"))
        for each in cause.evidence
        if "\n" in each.text
    ]
    short = [(each.name, each.text) for each in cause.evidence if "\n" not in each.text]
    return join(element("h4", "Evidence"), _facts(short), *parts)


def _attempts(attempts: Sequence[Try]) -> Markup | None:
    if not attempts:
        return None
    rows = [
        (
            str(each.number),
            _state(each.state),
            each.kind or (each.failure_class.value if each.failure_class else ""),
            local_time(each.started),
            "" if each.seconds is None else duration(each.seconds),
            where_text(each.where),
            asked_text(each.asked),
            each.said,
            each.decision,
        )
        for each in attempts
    ]
    names = (
        "attempt",
        "state",
        "class",
        "began",
        "took",
        "where",
        "asked for",
        "what it said",
        "then",
    )
    return join(element("h4", "Attempts"), _table(names, rows))


def _inputs(cause: Cause) -> Markup | None:
    if not cause.arguments:
        return None
    rows = [
        (
            element("code", each.name),
            element("span", each.preview, class_="mono"),
            each.type,
            ", ".join(each.sources),
        )
        for each in cause.arguments
    ]
    return join(element("h4", "Inputs"), _table(("name", "value", "type", "from"), rows))


def _logs(cause: Cause) -> Markup | None:
    if not cause.logs:
        return None
    rows = [
        (
            local_time(line.at),
            logging.getLevelName(line.level),
            element("span", line.message, class_="mono"),
        )
        for line in cause.logs
    ]
    return join(element("h4", "Last log records"), _table(("time", "level", "message"), rows))


def _before(cause: Cause) -> Markup | None:
    if not cause.before:
        return None
    rows = [
        (local_time(each.at), f"{each.flow} {each.run[:SHORT_ID]}", each.key, each.text)
        for each in cause.before
    ]
    heading = element("h4", "In the minute before")
    return join(heading, _table(("time", "run", "task run", "what"), rows))


def _stack(cause: Cause) -> Markup | None:
    own = [frame for frame in reversed(cause.frames) if frame["own"]]
    rows = [
        (
            f"{shown_path(frame['file'])}:{frame['line']}",
            frame["function"],
            element("code", frame["code"]),
        )
        for frame in own
    ]
    frames = (
        join(element("h4", "Your code, innermost first"), _table(("", "", ""), rows))
        if rows
        else None
    )
    if not cause.traceback:
        return frames
    trace = element(
        "details",
        element("summary", "the whole traceback, with causes"),
        element("pre", cause.traceback),
    )
    return join(frames, trace)


def _comparison(comparison: Comparison) -> Iterator[Markup]:
    yield element("h2", "Since the last success")
    yield element(
        "p", f"run {comparison.run[:SHORT_ID]}, {local_time(comparison.ended)}", class_="soft"
    )
    rows = [(change.what, change_text(change)) for change in comparison.changes]
    yield _facts(rows) if rows else element("p", "Nothing that is kept differs.")
    for text in comparison.unknown:
        yield element("p", f"Not known: {text}.", class_="soft")


def _step(step: Step) -> Markup:
    return join(
        element("p", step.purpose, class_="soft"), element("pre", step.command, class_="wrap")
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[Content]]) -> Markup:
    head = element("tr", *(element("th", name) for name in names)) if any(names) else None
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("div", element("table", head, *body), class_="scroll")


def _state(state: StateType) -> Markup:
    looks = "bad"
    if state in SUCCESSES or not state.is_terminal:
        looks = "good"
    elif state in {StateType.UPSTREAM_FAILED, StateType.CANCELLED, StateType.SKIPPED}:
        looks = "followed"
    return element("span", state.name, class_=f"state {looks}")


def _coded(text: str) -> Iterator[Content]:
    """Yield a text, what stands between backticks as code."""
    for number, part in enumerate(text.split("`")):
        yield element("code", part) if number % 2 else part
