"""Why a run ended as it did, for people at a terminal."""

import shlex
from collections.abc import Collection, Iterator, Sequence

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raysched.cli.output import (
    STYLES,
    console,
    duration,
    local_time,
    log_text,
    noun,
    say,
    state_text,
)
from raysched.cli.why_words import (
    alike_text,
    asked_text,
    before_fallback_text,
    blame_text,
    change_text,
    driver_text,
    frame_text,
    held_facts,
    plain,
    seen_text,
    shortfall_text,
    shown_path,
    status_text,
    stopped_text,
    victims_text,
    where_text,
)
from raysched.client.why_details import TRIED_AGAIN
from raysched.client.why_facts import Cause, Comparison, Evidence, Happening, Part, Source, Try, Why
from raysched.client.why_graph import drawing_of
from raysched.client.why_waiting import Waiting
from raysched.client.words import nanoseconds
from raysched.model.ids import SHORT_ID
from raysched.model.states import StateType
from raysched.model.values import FailureClass

MOST_IN_FULL = 3
"""Causes of a run that are told in full; of the others, what failed and how often."""

MOST_BOXES = 20
"""Groups of the graph that are drawn."""

MOST_MESSAGE_LINES = 8
MOST_FRAMES = 8
MOST_TRACEBACK_LINES = 30
MOST_LOGS = 10
MOST_EVIDENCE_LINES = 12
MOST_BEFORE = 6

LONGEST_SAID = 100
"""Characters of what an attempt said, and of what happened in the minute before."""

ATTEMPT = ("attempt", "state", "class", "took", "where")
"""What a line tells of an attempt."""

INDENT = 3


def print_why(why: Why) -> None:
    """Print why a run ended as it did."""
    _head(why)
    _graph(why.flow, why.part)
    told: set[Happening] = set()
    for cause in why.causes[:MOST_IN_FULL]:
        _cause(cause, why.run, told)
    _in_short(why)
    _beside(why)
    if why.comparison is not None:
        _comparison(why.comparison)
    for subflow in why.subflows:
        say()
        say(("in the subflow", "dim"))
        print_why(subflow)
    if why.steps:
        say()
        say(("next", "bold"))
        for step in why.steps:
            say("   ", (step.command, "cyan"))
            say(("      ", ""), (step.purpose, "dim"))


def _beside(why: Why) -> None:
    """Print what is known beside the causes: maps that fell short, and how a run was stopped."""
    if why.shortfalls:
        say()
        for missed in why.shortfalls:
            say((f"{plain(missed.task)} ", "bold"), shortfall_text(missed))
    if held := held_facts(why):
        say()
        say(("when it was stopped", "bold"))
        print_facts(held)
    # What the verdict says is no news.
    reasons = {text: count for text, count in why.reasons.items() if text != why.message}
    if reasons:
        say()
        for reason, count in reasons.items():
            say((f"{count:,} ", "bold"), plain(reason))


def print_waiting(waiting: Waiting) -> None:
    """Print what a run waits for."""
    style = STYLES[waiting.state]
    say(
        (f"{waiting.flow} ", "bold"),
        (f"{waiting.run[:SHORT_ID]} ", "cyan"),
        (waiting.state.name, style),
    )
    say(plain(waiting.verdict))
    if waiting.waits:
        table = _table("first", "task runs", "state", "for", "what it waits for")
        for wait in waiting.waits:
            table.add_row(
                Text(plain(wait.key or wait.task)),
                Text(f"{wait.count:,}"),
                state_text(wait.state),
                Text("" if wait.seconds is None else duration(wait.seconds)),
                Text(plain(wait.reason)),
            )
        say()
        console().print(table)
    for subflow in waiting.subflows:
        say()
        print_waiting(subflow)


def _head(why: Why) -> None:
    style = STYLES[why.state]
    mark = "✔" if why.state is StateType.COMPLETED else "▶" if not why.state.is_terminal else "✘"
    say(
        (f"{mark} ", style),
        (why.flow, "bold"),
        (f" {why.run[:SHORT_ID]} ", "cyan"),
        (why.state.name, style),
    )
    say((plain(why.verdict), "bold"))
    if why.loss is not None:
        say(("driver ", "dim"), plain(driver_text(why.loss.driver)))
    if why.cache and why.cache not in why.verdict:
        say(plain(why.cache))


def _graph(title: str, part: Part) -> None:
    if not part.nodes:
        return
    say()
    for line in plain(drawing_of(title, part, most=MOST_BOXES).tree()).splitlines():
        label, arrow, needs = line.partition("←")
        say(label, (f"{arrow}{needs}", "dim"))
    if len(part.nodes) > MOST_BOXES:
        say((f"… and {len(part.nodes) - MOST_BOXES:,} more groups", "dim"))


def _in_short(why: Why) -> None:
    """Print the causes that are not told in full, and how they can be."""
    short = why.causes[MOST_IN_FULL:]
    for cause in short:
        _title(cause)
        _message(cause)
    if not short:
        return
    say()
    if why.more_causes:
        say((f"… and {noun(why.more_causes, 'more cause')}", "dim"))
    keys = [shlex.quote(cause.key) for cause in short if cause.key]
    command = f"raysched why {why.run[:SHORT_ID]} {keys[0]}" if keys else "raysched why --json"
    say((f"The first {MOST_IN_FULL} are told in full; another one: {command}", "dim"))


def _cause(cause: Cause, run: str, told: set[Happening]) -> None:
    _title(cause)
    _message(cause)
    if cause.source is not None:
        _source(cause.source)
    facts = [
        ("alike", alike_text(cause)),
        ("because of it", victims_text(cause)),
        ("class", blame_text(cause)),
        *((each.name, each.text) for each in _evidence(cause)),
        ("seen", seen_text(cause, run)),
        ("stopped", stopped_text(cause)),
        ("owner", cause.owner),
        ("runbook", cause.runbook),
    ]
    say()
    print_facts(facts)
    print_attempts(cause.attempts, told=(cause.said, cause.stopped))
    _frames(cause)
    _inputs(cause)
    _records(cause)
    _before(cause, told)
    for advice in cause.advice:
        say()
        text = Text.assemble(("advice ", "bold green"), advice.text)
        if advice.code:
            text.append(f"\n{advice.code}", "cyan")
        console().print(Padding(text, (0, 0, 0, INDENT), expand=False))


def _evidence(cause: Cause) -> Iterator[Evidence]:
    """Yield what the facts do not say anyway; the node is a matter of what broke on it."""
    broke = cause.failure_class is FailureClass.INFRASTRUCTURE
    for each in cause.evidence:
        if each.text != cause.stopped and (broke or each.name != "node"):
            yield each


def _title(cause: Cause) -> None:
    say()
    name = f" ({cause.name})" if cause.key and cause.name != cause.key else ""
    say(
        (f"{cause.number:<{INDENT}}", "dim"),
        (plain(cause.title + name), "bold"),
        (f"  {cause.state.name}", STYLES[cause.state]),
        f" ({status})" if (status := status_text(cause)) else "",
    )


def _message(cause: Cause) -> None:
    lines = plain(cause.said).splitlines()
    if len(lines) > MOST_MESSAGE_LINES:
        lines = [*lines[: MOST_MESSAGE_LINES - 1], "…"]
    for line in lines:
        say(" " * INDENT, (line, "red"))
    if before := before_fallback_text(cause):
        say(" " * INDENT, (next(iter(plain(before).splitlines())), "red"))


def _source(source: Source) -> None:
    say()
    place = f"{shown_path(source.file)}:{source.line} in {source.function}"
    say(" " * INDENT, plain(place), (f"  ({source.remark})" if source.remark else "", "dim"))
    width = max((len(str(number)) for number, _ in source.lines), default=0)
    for number, text in source.lines:
        hit = number == source.line
        say(
            " " * INDENT,
            ("▸ " if hit else "  ", "bold red"),
            (f"{number:>{width}} │ ", "dim"),
            (plain(text), "bold" if hit else "dim"),
        )


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names with their texts, those that there are."""
    told = [(name, text) for name, text in facts if text]
    width = max((len(name) for name, _ in told), default=0)
    for name, text in told:
        lines = plain(text).splitlines()
        if len(lines) > MOST_EVIDENCE_LINES:
            lines = [*lines[: MOST_EVIDENCE_LINES - 1], "…"]
        for number, line in enumerate(lines):
            label = "" if number else plain(name)
            say(" " * INDENT, (f"{label:<{width}}  ", "dim"), line)


def print_attempts(attempts: Sequence[Try], *, told: Collection[str] = ()) -> None:
    """Print the attempts of a task run: what each was is a line, what came of it another one.

    Args:
        attempts: The attempts.
        told: Messages and reasons that stand above already.
    """
    if not attempts:
        return
    asked = any(each.asked for each in attempts)
    heads = (*ATTEMPT[:-1], *(["asked for"] if asked else []), ATTEMPT[-1])
    rows = [_attempt_cells(each, asked=asked) for each in attempts]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    say()
    say(" " * INDENT, (_row(heads, widths), "dim"))
    for each, cells in zip(attempts, rows, strict=True):
        state, style = cells[1].ljust(widths[1]), STYLES[each.state]
        rest = _row(cells[2:], widths[2:])
        say(" " * INDENT, f"{cells[0]:<{widths[0]}}  ", (state, style), f"  {rest}".rstrip())
        said = "" if each.said in told else _cut(each.said)
        decision = "" if each.decision in {*told, TRIED_AGAIN} else each.decision
        if more := "; then: ".join(filter(None, (plain(said), plain(decision)))):
            say(" " * (INDENT + widths[0] + 2), more)


def _attempt_cells(each: Try, *, asked: bool) -> tuple[str, ...]:
    return (
        str(each.number),
        each.state.name,
        each.kind or (each.failure_class.value if each.failure_class else ""),
        "" if each.seconds is None else duration(each.seconds),
        *([plain(asked_text(each.asked))] if asked else []),
        plain(where_text(each.where)),
    )


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()


def _frames(cause: Cause) -> None:
    """Print the user's frames, innermost first, then the traceback if it tells more."""
    own = [frame for frame in reversed(cause.frames) if frame["own"]][:MOST_FRAMES]
    if len(own) > 1:
        _section("called by")
        for frame in own[1:]:
            say(" " * INDENT, plain(frame_text(frame)))
    # One without frames says no more than the message.
    if cause.traceback.count("Traceback (most recent call last)") > bool(own):
        lines = plain(cause.traceback).splitlines()
        _section("traceback")
        if len(lines) > MOST_TRACEBACK_LINES:
            half = MOST_TRACEBACK_LINES // 2
            left_out = len(lines) - 2 * half
            lines = [*lines[:half], f"  … {left_out} lines left out …", *lines[-half:]]
        for line in lines:
            say(" " * INDENT, (line, "dim"))


def _inputs(cause: Cause) -> None:
    if not cause.arguments:
        return
    _section("inputs")
    for each in cause.arguments:
        source = f"  from {', '.join(each.sources)}" if each.sources else ""
        say(
            " " * INDENT,
            (f"{plain(each.name)} = ", ""),
            plain(each.preview),
            (plain(source), "dim"),
        )


def _records(cause: Cause) -> None:
    if cause.logs:
        _section("last log records")
        for line in cause.logs[-MOST_LOGS:]:
            at = 0 if line.at is None else nanoseconds(line.at)
            text = log_text(at, line.level, cause.title, plain(line.message))
            say(" " * INDENT, text)


def _before(cause: Cause, told: set[Happening]) -> None:
    """Print what happened in the minute before, without what was told with another cause."""
    news = [each for each in cause.before if each not in told]
    told.update(news)
    if not news:
        return
    _section("in the minute before")
    if len(news) > MOST_BEFORE:
        say(" " * INDENT, (f"… {len(news) - MOST_BEFORE} before that", "dim"))
    for each in news[-MOST_BEFORE:]:
        where = " ".join(filter(None, (each.flow, each.run[:SHORT_ID], each.key)))
        moment = local_time(each.at).partition(" ")[2]
        what = plain(_cut(each.text))
        say(" " * INDENT, (f"{moment} ", "dim"), (f"{where} ", "cyan"), what)


def _cut(text: str) -> str:
    """Return the first line of a text, cut where it is long."""
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= LONGEST_SAID else f"{line[:LONGEST_SAID]}…"


def _comparison(comparison: Comparison) -> None:
    say()
    say(
        ("since the last success ", "bold"),
        (f"run {comparison.run[:SHORT_ID]}, {local_time(comparison.ended)}", "dim"),
    )
    if not comparison.changes:
        say(" " * INDENT, "nothing that is kept differs")
    changes = [(change.what, change_text(change)) for change in comparison.changes]
    print_facts([*changes, *(("not known", text) for text in comparison.unknown)])


def _section(name: str) -> None:
    say()
    say(" " * INDENT, (name, "bold"))


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
