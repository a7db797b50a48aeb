"""How stories are run here, and what of their text differs from run to run."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from typer.testing import CliRunner

from raysched import get_run, wiring
from raysched.cli.app import app
from raysched.client import Run
from raysched.settings import settings

HERE = Path(__file__).parent

VOLATILE = (
    (re.compile(r"\b[0-9a-f]{32}\b"), "(run)"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "(run)"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\b\d\d:\d\d:\d\d\b"), "(time)"),
    (re.compile(r"\b\d+\.\d\d? s\b"), "(s)"),
    (re.compile(rf"{re.escape(socket.gethostname())}, pid \d+"), "(host), pid (pid)"),
    (re.compile(re.escape(f"{HERE}{os.sep}")), ""),
    (re.compile(r"(?<=[^\s│]) {2,}"), "  "),
    (re.compile(r" +$", re.MULTILINE), ""),
)
"""What differs, and what stands for it; the widths of columns do, but not how code is indented."""


@contextmanager
def home() -> Iterator[Path]:
    """A home of its own, in which flows run inline; texts are 80 columns wide."""
    before, directory = dict(os.environ), Path.cwd()
    with TemporaryDirectory() as folder:
        kept = {name: text for name, text in before.items() if not name.startswith("RAYSCHED_")}
        os.environ.clear()
        os.environ.update(
            kept, RAYSCHED_HOME=folder, RAYSCHED_BACKEND="inline", COLUMNS="80", TZ="UTC"
        )
        os.chdir(HERE)
        _forget()
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)
            os.chdir(directory)
            _forget()


def _forget() -> None:
    wiring.disconnect()
    settings.cache_clear()


def run(story: Callable[..., object]) -> Run:
    """Runs a story to its bad end; returns the run."""
    with suppress(Exception, KeyboardInterrupt):
        story()
    return get_run("last")


def told(*arguments: str) -> str:
    """Returns what `raysched why` prints."""
    result = CliRunner().invoke(app, ("why", *arguments), prog_name="raysched")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def steady(text: str) -> str:
    """Returns a text without what differs from run to run."""
    for pattern, stand_in in VOLATILE:
        text = pattern.sub(stand_in, text)
    return text


def golden(name: str) -> Path:
    """Returns the file with the text of a story."""
    return HERE / "golden" / f"{name}.txt"
