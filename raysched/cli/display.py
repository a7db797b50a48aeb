"""What a person sees while a flow runs: a live table on a terminal, plain lines elsewhere."""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from raysched.cli.output import count, duration, log_text, noun
from raysched.cli.progress import Progress, Rates, Snapshot, TaskProgress
from raysched.model.ids import SHORT_ID

FRAME_LINES = 5
"""Lines of the terminal that are not rows of the live table."""

MOST_IN_A_LINE = 4
"""Tasks that one plain line names."""

EXACT_RATE = 10
"""Rates below this (task runs a second) have a decimal."""


class Display(ABC):
    """Shows snapshots of `progress` on `console`, from a thread, until it is closed."""

    interval: float
    """Seconds between two looks."""

    def __init__(self, progress: Progress, console: Console, title: str) -> None:
        self._progress = progress
        self._console = console
        self._title = title
        self._notes: deque[str] = deque()
        self._rates = Rates(time.monotonic)
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="raysched-display", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look(last=True)

    def note(self, text: str) -> None:
        """Show a remark with the next look; does so little that a signal handler may call it."""
        self._notes.append(text)

    @abstractmethod
    def begin(self, snapshot: Snapshot) -> None:
        """Show what comes before all log records, once."""

    @abstractmethod
    def show(self, snapshot: Snapshot, *, last: bool) -> None:
        """Show a snapshot; nothing comes after the last one."""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def _loop(self) -> None:
        while not self._ended.wait(self.interval):
            self._look(last=False)

    def _look(self, *, last: bool) -> None:
        snapshot = self._progress.snapshot()
        self._rates.sample(snapshot.tasks)
        self.begin(snapshot)
        while self._notes:
            self._console.print(self._notes.popleft(), style="yellow", soft_wrap=True)
        if snapshot.logs:
            lines = [
                log_text(line.row.at, line.row.level, line.key, line.row.message)
                for line in snapshot.logs
            ]
            self._console.print(Text("\n").join(lines), soft_wrap=True)
        if snapshot.dropped_logs:
            more = noun(snapshot.dropped_logs, "log record")
            self._console.print(f"… and {more} more: raysched logs last", style="dim")
        self.show(snapshot, last=last)


class LiveDisplay(Display):
    """A table that is drawn anew in place, below the log records."""

    interval = 0.1

    def __init__(self, progress: Progress, console: Console, title: str) -> None:
        super().__init__(progress, console, title)
        self._spinner = Spinner("dots", style="blue")
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._live.update(self._frame(self._progress.snapshot()), refresh=True)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._live.stop()

    def begin(self, snapshot: Snapshot) -> None:
        """Do nothing: the headline is above the table."""

    def show(self, snapshot: Snapshot, *, last: bool) -> None:
        """Draw the table."""
        self._live.update(Text("") if last else self._frame(snapshot), refresh=True)

    def _frame(self, snapshot: Snapshot) -> RenderableType:
        parts: list[RenderableType] = [self._headline(snapshot)]
        if snapshot.tasks:
            parts.append(self._table(snapshot.tasks))
        return Group(*parts)

    def _headline(self, snapshot: Snapshot) -> RenderableType:
        run = snapshot.run
        headline = Text(f" {self._title}", "bold")
        if run is None:
            headline.append("  starting", "dim")
        else:
            headline.append(f"  {run.id[:SHORT_ID]}", "cyan")
        headline.append(f"  {duration(self.elapsed)}")
        if run is not None and run.backend:
            headline.append(f"  {run.backend}", "dim")
        headline.truncate(self._console.width - 2, overflow="ellipsis")
        self._spinner.update(text=headline)
        return self._spinner

    def _table(self, tasks: Sequence[TaskProgress]) -> Table:
        # 80 columns: 17 for the counts, 6 or 7 for each number, the rest for name and bar.
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=False)
        table.add_column("task", overflow="ellipsis", no_wrap=True, max_width=24, min_width=8)
        table.add_column("", width=10)
        for name in ("done", "run", "retry", "failed"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("rate", justify="right", no_wrap=True)
        table.add_column("left", justify="right", no_wrap=True)
        shown = self._most_interesting(tasks)
        for task in shown:
            table.add_row(*self._cells(task))
        if len(shown) < len(tasks):
            table.add_row(Text(f"… and {len(tasks) - len(shown)} more", "dim"))
        return table

    def _most_interesting(self, tasks: Sequence[TaskProgress]) -> list[TaskProgress]:
        """Return what fits the terminal in the flow's order: what is done makes room first."""
        room = max(self._console.height - FRAME_LINES, 3)
        if len(tasks) <= room:
            return list(tasks)
        order = {"active": 0, "waiting": 1, "done": 2}
        ranked = sorted(range(len(tasks)), key=lambda index: order[_kind(tasks[index])])
        return [tasks[index] for index in sorted(ranked[: room - 1])]

    def _cells(self, task: TaskProgress) -> list[RenderableType]:
        done, total = task.done, task.total
        failed = task.failed + task.followed + task.cancelled
        bar = ProgressBar(
            total=max(total, 1),
            completed=done,
            width=10,
            complete_style="red" if failed else "blue",
            finished_style="red" if failed else "green",
        )
        rate, left = self._rates.rate(task), self._rates.left(task)
        name_style = "dim" if _kind(task) == "waiting" else ""
        return [
            Text(task.name, name_style),
            bar,
            Text(f"{count(done)}/{count(total)}"),
            Text(count(task.running) if task.running else "", "blue"),
            Text(count(task.retrying) if task.retrying else "", "yellow"),
            _failures(task),
            Text(_per_second(rate) if done < total and rate else "", "dim"),
            Text(duration(left) if left is not None and done < total else "", "dim"),
        ]


class PlainDisplay(Display):
    """A line at the start, then one every few seconds if something changed."""

    interval = 0.2
    line_every = 5.0
    """Seconds."""

    def __init__(self, progress: Progress, console: Console, title: str) -> None:
        super().__init__(progress, console, title)
        self._started = False
        self._last_line = self.elapsed
        self._last_counts: dict[str, list[int]] = {}

    def begin(self, snapshot: Snapshot) -> None:
        """Print that the run has started, or was resumed."""
        run = snapshot.run
        if run is not None and not self._started:
            self._started = True
            where = f" on {run.backend}" if run.backend else ""
            begins = "resumed" if run.epoch > 1 else "started"
            line = f"{self._title} {run.id[:SHORT_ID]} {begins}{where}"
            self._console.print(line, soft_wrap=True)

    def show(self, snapshot: Snapshot, *, last: bool) -> None:
        """Print what changed, if it is time."""
        if not last and self.elapsed - self._last_line < self.line_every:
            return
        self._last_line = self.elapsed
        changed = [
            task for task in snapshot.tasks if self._last_counts.get(task.name) != task.counts
        ]
        if changed:
            self._last_counts = {task.name: task.counts for task in snapshot.tasks}
            self._console.print(self._line(snapshot.tasks, changed), soft_wrap=True)

    def _line(self, tasks: Sequence[TaskProgress], changed: Sequence[TaskProgress]) -> str:
        total = TaskProgress("")
        for task in tasks:
            total.counts = [a + b for a, b in zip(total.counts, task.counts, strict=True)]
        parts = [self._words(task) for task in changed[-MOST_IN_A_LINE:]]
        if len(changed) > MOST_IN_A_LINE:
            parts.append(f"{len(changed) - MOST_IN_A_LINE} more")
        return f"{duration(self.elapsed)}: {total.done:,}/{total.total:,} done; {', '.join(parts)}"

    def _words(self, task: TaskProgress) -> str:
        left = self._rates.left(task)
        rate = self._rates.rate(task)
        going_on = task.done < task.total
        words = [
            f"{task.running:,} running" if task.running else "",
            f"{task.retrying:,} retrying" if task.retrying else "",
            f"{task.failed:,} failed" if task.failed else "",
            f"{task.followed:,} not run" if task.followed else "",
            f"{task.cancelled:,} cancelled" if task.cancelled else "",
            _per_second(rate) if going_on and rate else "",
            f"{duration(left)} left" if going_on and left is not None else "",
        ]
        detail = ", ".join(filter(None, words))
        return f"{task.name} {task.done:,}/{task.total:,}{f' ({detail})' if detail else ''}"


def open_display(progress: Progress, console: Console, title: str) -> Display:
    """Return the display that suits the console."""
    kind = LiveDisplay if console.is_terminal and not console.is_dumb_terminal else PlainDisplay
    return kind(progress, console, title)


def _kind(task: TaskProgress) -> str:
    if task.done == task.total:
        return "done"
    return "active" if task.running or task.retrying or task.done else "waiting"


def _failures(task: TaskProgress) -> Text:
    text = Text(count(task.failed) if task.failed else "", "bold red")
    if without := task.followed + task.cancelled:
        text.append(f"+{count(without)}", "magenta")
    return text


def _per_second(rate: float) -> str:
    return f"{rate:.1f}/s" if rate < EXACT_RATE else f"{count(round(rate))}/s"
