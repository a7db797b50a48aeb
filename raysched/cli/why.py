"""`raysched why`."""

from pathlib import Path

from raysched.cli.output import print_json, say
from raysched.cli.why_records import waiting_record, why_record
from raysched.cli.why_text import print_waiting, print_why
from raysched.client import get_run
from raysched.errors import UsageError


def explain_run(text: str, key: str, html: Path | None, *, waiting: bool, as_json: bool) -> None:
    """Print why a flow run, or a task run of it, ended as it did, or what it waits for.

    Args:
        text: RUN.
        key: Key of the task run, or "" for the whole run.
        html: File for a page with the same content, or None.
        waiting: Whether to tell what it waits for instead.
        as_json: Whether to print JSON.

    Raises:
        UsageError: The options do not go together, there is no such task run, or the file cannot
            be written.
        RunNotFound: No run, or more than one, matches.
    """
    if waiting and html is not None:
        raise UsageError("--html: a page is of how a run ended; leave --waiting out")
    if waiting and key:
        raise UsageError(f"--waiting: tells of whole runs; leave it or {key!r} out")
    run = get_run(text)
    if waiting:
        waits = run.waiting()
        print_json(waiting_record(waits)) if as_json else print_waiting(waits)
        return
    why = run.why(key)
    if html is not None:
        # Pages are rare, and the modules that draw them take a twentieth of a second.
        from raysched.cli.why_page import page

        _write(html, page(why))
    if as_json:
        print_json(why_record(why))
    elif html is not None:
        say(f"{html} written")
    else:
        print_why(why)


def _write(path: Path, content: str) -> None:
    try:
        # What a worker could not decode is in the texts as lone surrogates.
        path.write_text(content, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"--html {path}: {error.strerror}") from error
