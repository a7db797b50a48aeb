"""What is drawn while a flow runs, and how times and counts are put in words."""

import io
import re

import pytest
from rich.console import Console

from raysched.cli.display import Display, LiveDisplay, PlainDisplay, open_display
from raysched.cli.output import count, duration
from raysched.cli.progress import Progress
from raysched.model.rows import Batch, FlowRunRow, GroupRow, LogRow, TaskRunColumns
from raysched.model.states import StateType

MILLION = 1_000_000
RUN = FlowRunRow("ab" * 16, "nightly", "n", StateType.RUNNING, backend="Ray 2.60.0, 2 CPUs, here")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def columns(group: int, indices: range, state: StateType) -> TaskRunColumns:
    size = len(indices)
    zeros, none = [0] * size, [None] * size
    states = bytes([state]) * size
    return TaskRunColumns(group, indices, states, zeros, zeros, zeros, none, zeros)


@pytest.fixture
def progress() -> Progress:
    """A map of a million, half done, with each kind of trouble."""
    progress = Progress()
    groups = [
        GroupRow(0, "list_files", 0, 1),
        GroupRow(1, "parse_a_file_that_has_a_long_name", 0, MILLION, mapped=True),
        GroupRow(2, "total", 0, 1),
    ]
    progress(RUN, Batch(1, groups=groups))
    states = [
        columns(0, range(1), StateType.COMPLETED),
        columns(1, range(500_000), StateType.COMPLETED),
        columns(1, range(500_000, 500_123), StateType.RUNNING),
        columns(1, range(500_123, 500_130), StateType.AWAITING_RETRY),
        columns(1, range(500_130, 500_133), StateType.FAILED),
        columns(1, range(500_133, 500_135), StateType.UPSTREAM_FAILED),
        columns(1, range(500_135, 500_136), StateType.CANCELLED),
    ]
    progress(RUN, Batch(1, task_runs=states))
    return progress


def terminal(height: int = 24) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    console = Console(
        file=file, width=80, height=height, force_terminal=True, color_system=None, markup=False
    )
    return console, file


def frame(progress: Progress, height: int = 24) -> list[str]:
    """The lines of one drawing."""
    console, file = terminal(height)
    with LiveDisplay(progress, console, "nightly") as display:
        file.seek(0)
        file.truncate()
        display.show(progress.snapshot(), last=False)
        lines = CONTROL.sub("", file.getvalue()).splitlines()
    return [line.rstrip() for line in lines]


def test_live_table_of_a_million_fits_80_columns(progress: Progress) -> None:
    lines = frame(progress)
    assert max(map(len, lines)) <= 80
    assert re.search(r"nightly  abababab  \S+ s  Ray 2\.60\.0, 2 CPUs, here", "\n".join(lines))
    (row,) = (line for line in lines if line.startswith("parse"))
    assert re.search(r" 500k/1\.00M +123 +7 +3\+3", row)


def test_rows_that_are_done_make_room_on_a_small_terminal() -> None:
    progress = Progress()
    progress(RUN, Batch(1, groups=[GroupRow(n, f"task_{n:02}", 0, 1) for n in range(30)]))
    done = [columns(n, range(1), StateType.COMPLETED) for n in range(20)]
    running = [columns(20, range(1), StateType.RUNNING)]
    progress(RUN, Batch(1, task_runs=done + running))
    lines = frame(progress, height=14)
    assert len(lines) <= 14
    shown = [line.split()[0] for line in lines if line.startswith("task_")]
    assert shown == [f"task_{n}" for n in range(20, 28)]
    assert lines[-1] == "… and 22 more"


def test_plain_lines_tell_the_start_logs_and_the_end(progress: Progress) -> None:
    file = io.StringIO()
    progress(RUN, Batch(1, logs=[LogRow(1, 7, 1, 0, 30, "x", "careful [with] :markup:")]))
    with open_display(progress, Console(file=file, width=80), "nightly") as display:
        assert isinstance(display, PlainDisplay)
        display.note("Cancelling …")
    start, remark, log, end = file.getvalue().splitlines()
    assert start == "nightly abababab started on Ray 2.60.0, 2 CPUs, here"
    assert remark == "Cancelling …"
    assert log.endswith("WARNING parse_a_file_that_has_a_long_name[7] careful [with] :markup:")
    assert "500,007/1,000,002 done" in end
    troubles = "123 running, 7 retrying, 3 failed, 2 not run, 1 cancelled"
    assert f"500,006/1,000,000 ({troubles})" in end


def test_too_many_logs_are_a_count() -> None:
    progress = Progress(most_logs=3)
    progress(RUN, Batch(1, logs=[LogRow(-1, 0, 1, 0, 20, "x", f"line {n}") for n in range(10)]))
    file = io.StringIO()
    with open_display(progress, Console(file=file, width=80), "nightly"):
        pass
    assert "line 2\n… and 7 log records more: raysched logs last" in file.getvalue()


@pytest.mark.parametrize(("dumb", "kind"), [(False, LiveDisplay), (True, PlainDisplay)])
def test_display_suits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, *, dumb: bool, kind: type[Display]
) -> None:
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    console = Console(file=io.StringIO(), force_terminal=True)
    assert type(open_display(Progress(), console, "nightly")) is kind


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.00 s"),
        (0.4249, "0.42 s"),
        (0.999, "0.99 s"),
        (0.29, "0.29 s"),
        (-1, "0.00 s"),
        (12.34, "12.3 s"),
        (59.97, "59.9 s"),
        (60, "1 min 00 s"),
        (125, "2 min 05 s"),
        (119.8, "1 min 59 s"),
        (3599.9, "59 min 59 s"),
        (3780, "1 h 03 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (999_999, "999k"),
        (1_000_000, "1.00M"),
        (1_259_999, "1.25M"),
        (2_500_000_000, "2.50G"),
    ],
)
def test_counts(number: int, words: str) -> None:
    assert count(number) == words
