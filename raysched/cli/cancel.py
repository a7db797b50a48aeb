"""`raysched cancel`."""

import time
from collections.abc import Sequence

from raysched.cli.output import noun, print_json, say
from raysched.cli.records import run_record
from raysched.cli.summary import print_outcome
from raysched.client import Run, get_run
from raysched.model.ids import SHORT_ID

LOOK_SECONDS = 0.25
"""Between two looks at a run that is being cancelled."""

ANSWER_SECONDS = 15.0
"""How long a driver may take to say that it has taken the request (seconds): it asks once a second.

What it does then may take as long as there is something to clean up.
"""

PATIENCE_SECONDS = 15.0
"""After so long (seconds) people are told what they may do, if it still has not ended."""


def cancel_run(text: str, keys: Sequence[str], *, force: bool, wait: bool, as_json: bool) -> int:
    """Ask the driver of a run to cancel it; return the exit code.

    It is 0 when the run, or these task runs of it, are CANCELLED, and without waiting when it was
    asked.

    Args:
        text: RUN.
        keys: Keys of the task runs that are meant, all of the run if empty.
        force: Whether workers end without time to clean up.
        wait: Whether to wait until it has ended.
        as_json: Whether to print the run as JSON at the end.

    Raises:
        RunNotFound: No run, or more than one, matches.
        UsageError: The run has no such task run.
        StoreError: The database cannot be written.
    """
    run = get_run(text)
    asked = run.cancel(force=force, keys=keys)
    try:
        if asked:
            _say_asked(run, keys, force=force)
            code = _wait(run, keys, force=force) if wait else 0
        else:
            _say_why_not(run)
            code = int(not _is_cancelled(run, keys))
    except KeyboardInterrupt:
        say("not waiting any more; the run is still asked to cancel", stderr=True)
        code = 1
    if as_json:
        print_json(run_record(run) | {"asked": asked})
    return code


def _say_asked(run: Run, keys: Sequence[str], *, force: bool) -> None:
    say(
        f"asked {run.flow} ",
        (run.id[:SHORT_ID], "cyan"),
        f" to cancel {', '.join(keys) or 'everything in it'}, ",
        "without time to clean up" if force else "with time to clean up",
        stderr=True,
    )


def _say_why_not(run: Run) -> None:
    if run.lost:
        remark = "its process has died, and with it all that it ran: there is nothing to cancel"
    else:
        remark = f"it has ended {run.state.type.name}: there is nothing to cancel"
    say(f"{run.flow} ", (run.id[:SHORT_ID], "cyan"), f": {remark}", stderr=True)


def _wait(run: Run, keys: Sequence[str], *, force: bool) -> int:
    if not _wait_for_end(run, keys, force=force):
        say(
            ("! ", "yellow"),
            f"its process has not answered for {ANSWER_SECONDS:.0f} s. It stays asked to cancel; "
            "that process may be stopped, be in C code that holds Python's lock, be without the "
            "database or, with the inline backend, clean up; "
            f"raysched show {run.id[:SHORT_ID]} tells what becomes of it",
            stderr=True,
        )
        return 1
    if not keys:
        print_outcome(run, stderr=True)
    return int(not _is_cancelled(run, keys))


def _wait_for_end(run: Run, keys: Sequence[str], *, force: bool) -> bool:
    """Wait until a run, or these task runs of it, have ended; return whether its driver answers."""
    asked_at = time.monotonic()
    answered = False
    told = set()
    while not _has_ended(run, keys):
        waited = time.monotonic() - asked_at
        answered = answered or run.has_taken_request()
        if not answered and waited > ANSWER_SECONDS:
            return False
        news = [_progress(run, keys)] if answered else []
        if waited > PATIENCE_SECONDS:
            news.append(_choices(run, force=force))
        for words in news:
            if words not in told:
                told.add(words)
                say((f"  {words}", "dim"), stderr=True)
        time.sleep(LOOK_SECONDS)
        run.refresh()
    return True


def _has_ended(run: Run, keys: Sequence[str]) -> bool:
    if run.state.is_final() or not keys:
        return run.state.is_final()
    return all(run.task_run(key).state.is_final() for key in keys)


def _is_cancelled(run: Run, keys: Sequence[str]) -> bool:
    if not keys:
        return run.state.is_cancelled()
    states = {key: run.task_run(key).state for key in keys}
    for key, state in states.items():
        # The message of an attempt that was interrupted begins with the key.
        message = (state.message or "").removeprefix(f"{key}: ")
        say(f"{key} {state.type.name}", f": {message}" if message else "", stderr=True)
    return all(state.is_cancelled() for state in states.values())


def _progress(run: Run, keys: Sequence[str]) -> str:
    """Return what is waited for after the driver has taken the request."""
    if keys:
        number = sum(not run.task_run(key).state.is_final() for key in keys)
    else:
        number = sum(count for state, count in run.counts.items() if not state.is_terminal)
    what = f"{noun(number, 'task run')} to end" if number else "the flow function to end"
    return f"taken by its process, which waits for {what}"


def _choices(run: Run, *, force: bool) -> str:
    """Return what people may do when it takes long."""
    harder = "" if force else f"raysched cancel {run.id[:SHORT_ID]} --force gives it no more time; "
    return f"it may be cleaning up; {harder}Ctrl-C ends only this waiting"
