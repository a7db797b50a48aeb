"""A trace as a waterfall in the terminal, as wide as that is."""

from collections.abc import Sequence
from itertools import groupby

from rich.text import Text

from raysched.cli.output import console, duration, noun, say
from raysched.cli.why_words import plain
from raysched.client.critical_path import CriticalPath
from raysched.client.waterfall import Line, Look

CRITICAL, INDENT = "◆ ", "  "

MANY = "\N{MULTIPLICATION SIGN}"

STYLES = {Look.RAN: "blue", Look.FAILED: "red", Look.WAITED: "dim"}

MARKS = {Look.RAN: "█", Look.FAILED: "█", Look.WAITED: "░"}

TOOK = 12
"""Width of `12 min 05 s` and a blank."""

LEAST_BAR = 12

MOST_SHARES = 4
"""What the critical path is made of is told down to here."""

LEAST_SHARE = 0.005
"""Shares below that would be shown as 0 %."""

PERCENT = 100

TENTH = 0.1
"""Seconds."""


def print_waterfall(lines: Sequence[Line], start: int, end: int, limit: int | None) -> None:
    """Print a waterfall.

    Args:
        lines: What it shows.
        start: Where its time begins (ns since the epoch).
        end: Where it ends.
        limit: At most so many lines; None for all.
    """
    shown = lines[:limit]
    label, bar, remark = _widths(shown, console().width)
    axis = _axis((end - start) / 1e9, bar)
    say(f"{'':{label}}  ", (axis, "dim"))
    for line in shown:
        text = Text(_label(line, label), "bold" if line.depth == 0 else "")
        text.append("  ")
        text.append_text(_bar(line, start, end, bar))
        text.append(f"{_short(line.seconds):>{TOOK}}", "dim")
        said = _remark(line)
        if said and remark:
            text.append(f"  {_cut(said, remark)}", "red" if line.failed else "dim")
        text.rstrip()
        console().print(text, soft_wrap=True)
    if len(shown) < len(lines):
        more = noun(len(lines) - len(shown), "more line")
        say((f"… and {more} (--limit 0 for all)", "dim"))


def print_critical_path(path: CriticalPath) -> None:
    """Print in one line what the critical path is made of."""
    shares = [share for share in path.shares if share.fraction >= LEAST_SHARE]
    told = [f"{share.name} {share.fraction * PERCENT:.0f} %" for share in shares[:MOST_SHARES]]
    rest = sum(share.fraction for share in shares[MOST_SHARES:])
    if rest >= LEAST_SHARE:
        told.append(f"the rest {rest * PERCENT:.0f} %")
    say((CRITICAL, "yellow"), f"critical path, {duration(path.seconds)}: ", plain(", ".join(told)))


def _widths(lines: Sequence[Line], width: int) -> tuple[int, int, int]:
    """Return the widths of labels, bars and remarks."""
    wanted = max((len(_full_label(line)) for line in lines), default=0)
    said = max((len(_remark(line)) for line in lines), default=0)
    label = min(wanted, max(width * 3 // 10, 16))
    remark = min(said, max(width - label - 2 - LEAST_BAR - TOOK - 2, 0), width // 3)
    bar = width - label - 2 - TOOK - (remark + 2 if remark else 0)
    return label, max(bar, LEAST_BAR), remark


def _full_label(line: Line) -> str:
    count = f" {MANY}{line.count:,}" if line.count > 1 else ""
    return (
        f"{CRITICAL if line.is_critical else INDENT}{INDENT * line.depth}{plain(line.label)}{count}"
    )


def _label(line: Line, width: int) -> str:
    return f"{_cut(_full_label(line), width):{width}}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _remark(line: Line) -> str:
    words = []
    if line.count > 1 and line.failed:
        words.append(f"{line.failed:,} failed")
    if line.retried and line.count > 1:
        words.append(f"{line.retried:,} tried again")
    elif line.retried:
        words.append("1 retry" if line.retried == 1 else f"{line.retried:,} retries")
    if line.p50 is not None and line.p95 is not None:
        words.append(f"p50 {_short(line.p50)} p95 {_short(line.p95)}")
    if line.remark:
        words.append(plain(line.remark))
    return ", ".join(words)


def _short(seconds: float) -> str:
    """Return a time span, of less than a tenth of a second in milliseconds."""
    if seconds >= TENTH:
        return duration(seconds)
    return f"{seconds * 1e3:.{0 if seconds >= TENTH / 10 else 1}f} ms"


def _axis(seconds: float, width: int) -> str:
    """Return a line with the time at its start, middle and end."""
    middle, last = duration(seconds / 2), duration(seconds)
    left = f"{'0 s':{max(width // 2 - len(middle) // 2, 4)}}{middle}"
    return f"{left}{last:>{max(width - len(left), len(last) + 1)}}"


def _bar(line: Line, start: int, end: int, width: int) -> Text:
    """Return a bar; what was short has a cell at least, and what ran hides what waited."""
    whole = max(end - start, 1)
    cells: list[Look | None] = [None] * width
    for piece in sorted(line.pieces, key=lambda piece: piece.look is not Look.WAITED):
        first = min(max(piece.start - start, 0) * width // whole, width - 1)
        last = min(max(-(-(piece.end - start) * width // whole), first + 1), width)
        cells[first:last] = [piece.look] * (last - first)
    text = Text()
    for look, run in groupby(cells):
        size = len(list(run))
        text.append((MARKS[look] if look else " ") * size, STYLES[look] if look else "")
    return text
