"""`raysched events`."""

import time
from collections.abc import Iterator, Mapping

from rich.text import Text

from raysched.cli.logs import FOLLOW_SECONDS
from raysched.cli.output import (
    console,
    local_time,
    print_json_lines,
    print_json_list,
    say,
)
from raysched.cli.records import event_record
from raysched.client import EventView, Run, get_run, utc
from raysched.model.events import EventKind

STYLES: Mapping[EventKind, str] = {
    EventKind.NODE_REMOVED: "red",
    EventKind.WORKER_DIED: "red",
    EventKind.OUT_OF_MEMORY: "bold red",
    EventKind.SPILLED: "yellow",
}

_WIDTH = max(map(len, EventKind))

PAGE = 1000
"""Events that are read at once."""


def print_events(text: str, *, follow: bool, as_json: bool) -> None:
    """Print what happened to the cluster while a run was open.

    Args:
        text: RUN.
        follow: Whether to go on until the run has ended.
        as_json: Whether to print JSON: a list, with `follow` one event a line.

    Raises:
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    events = _follow(run) if follow else _events(run, 0)
    if as_json:
        printer = print_json_lines if follow else print_json_list
        printer(event_record(run, event) for event in events)
        return
    some = False
    try:
        for event in events:
            some = True
            console().print(_line(event), soft_wrap=True)
    except KeyboardInterrupt:
        return
    if not some:
        say(("no events", "dim"), stderr=True)


def _events(run: Run, after: int) -> Iterator[EventView]:
    while events := run.events(after=after, limit=PAGE):
        yield from events
        after = events[-1].id


def _follow(run: Run) -> Iterator[EventView]:
    after = 0
    while True:
        # Looked at first: what is written before the end is still read.
        run.refresh()
        ended = run.state.is_final()
        for event in _events(run, after):
            after = event.id
            yield event
        if ended:
            return
        time.sleep(FOLLOW_SECONDS)


def _line(event: EventView) -> Text:
    return Text.assemble(
        (f"{local_time(utc(event.at))} ", "dim"),
        (f"{event.kind:{_WIDTH}} ", STYLES.get(event.kind, "cyan")),
        event.message,
    )
