"""`raysched resume` and `raysched rerun`: go on from what is kept of a run."""

import logging
from dataclasses import dataclass

from raysched.cli.children import run_child
from raysched.cli.go_on import may_have_run, print_asking
from raysched.cli.output import noun, print_json, say
from raysched.cli.parameters import read_parameters
from raysched.cli.progress import Progress
from raysched.cli.records import run_record
from raysched.cli.running import FAILURE, Options, run_flow
from raysched.cli.stock import print_stock, stock_record, stock_words
from raysched.cli.supervise import option_arguments
from raysched.cli.target import AnyFlow, Target, load_target
from raysched.client import Run, get_run, get_runs
from raysched.define.resuming import refuses_resume
from raysched.errors import NotResumable, UsageError
from raysched.model.ids import SHORT_ID
from raysched.model.rows import ENGINE_LOGGER
from raysched.model.states import SUCCESSES, StateType


@dataclass(frozen=True, slots=True)
class Choices:
    """What `raysched resume` and `raysched rerun` were told beside the run.

    Attributes:
        target: TARGET, or "" for where the flow was.
        options: How flows are run.
        rerun_changed: Whether to run again what completed with code that has changed since.
        confirmed: Whether task runs with `idempotent=False` may run again that may have run.
    """

    target: str
    options: Options
    rerun_changed: bool = False
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What `raysched rerun` is to do otherwise than the earlier run.

    Attributes:
        pairs: `name=value` of each `--param`.
        document: What `--params-json` was given, or None.
        again: Tasks and keys of `--from`.
        only_failed: Whether `--failed` said that nothing is.
    """

    pairs: tuple[str, ...]
    document: str | None
    again: tuple[str, ...]
    only_failed: bool

    def __bool__(self) -> bool:
        return bool(self.pairs or self.document or self.again or self.only_failed)


def resume_run(text: str, choices: Choices) -> int:
    """Go on with a run; return the exit code.

    Raises:
        NotResumable: There is nothing to go on with, or it is not known where the flow is.
        RunNotFound: No run, or more than one, matches.
        RunOwned: Another process, which lives, is working on it.
    """
    run = get_run(text)
    target = find_target(run, choices.target, "resume")

    def call(flow: AnyFlow) -> object:
        return flow.resume(run.id, rerun_changed=choices.rerun_changed, confirmed=choices.confirmed)

    refused = not choices.confirmed and refuses_resume(may_have_run(run)) is not None
    if refused or not _can_go_on(run):
        return run_flow(target, call, choices.options)
    say(
        f"resuming {run.flow} ",
        (run.id[:SHORT_ID], "cyan"),
        f": {stock_words(run.stock)}",
        stderr=choices.options.as_json,
    )
    said = max((record.id for record in run.logs(logger=ENGINE_LOGGER)), default=0)
    return run_flow(
        target,
        call,
        choices.options,
        progress=Progress(earlier=run.records),
        tell=lambda ended: print_notes(ended, said),
    )


def show_stock(text: str, *, as_json: bool) -> int:
    """Print what a resume of a run would reuse and run; return the exit code.

    Raises:
        NotResumable: There is nothing to go on with.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    if not _can_go_on(run):
        raise NotResumable(
            f"run {run.id[:SHORT_ID]} is {run.state.type}: there is nothing to go on with"
        )
    stock = run.stock
    if as_json:
        begun = [{"key": key, "state": state.name} for key, state in may_have_run(run)]
        print_json({**run_record(run), "resume": stock_record(stock), "may_have_run": begun})
        return 0
    say(f"a resume of {run.flow} ", (run.id[:SHORT_ID], "cyan"), " finds this; nothing was run")
    say()
    print_stock(stock)
    print_asking(run)
    return 0


def resume_all_lost(choices: Choices) -> int:
    """Go on with every run whose driver died, one after the other; return the exit code.

    Each in a process of its own, since their flows are in different files.
    """
    runs = [run for run in get_runs(states=[StateType.CRASHED]) if run.lost]
    if not runs:
        say("No run is lost.")
        return 0
    flags = [*option_arguments(choices.options)]
    flags += ["--rerun-changed"] * choices.rerun_changed + ["--yes"] * choices.confirmed
    failed: list[str] = []
    for number, run in enumerate(reversed(runs), 1):
        say((f"{number} of {len(runs)}: ", "dim"), f"{run.flow} ", (run.id[:SHORT_ID], "cyan"))
        ended = run_child(["resume", run.id, *flags])
        if ended.code:
            failed.append(run.id)
        if ended.asked:
            return ended.code
        say()
    well = len(runs) - len(failed)
    names = ", ".join(run_id[:SHORT_ID] for run_id in failed)
    say(
        f"{well:,} of {noun(len(runs), 'lost run')} completed",
        (f"; not {names}: raysched why RUN tells why" if failed else "", "red"),
    )
    return FAILURE if failed else 0


def rerun_run(text: str, choices: Choices, changes: Changes) -> int:
    """Begin a new run from the results of one; return the exit code.

    Args:
        text: RUN.
        choices: What was told.
        changes: What is to be different.

    Raises:
        UsageError: A parameter or an option cannot be right; nothing was started.
        RunNotFound: No run, or more than one, matches.
    """
    run = get_run(text)
    check_changes(run, choices, changes)
    target = find_target(run, choices.target, "rerun")
    parameters = read_parameters(target.flow.fn, changes.pairs, changes.document)

    def call(flow: AnyFlow) -> object:
        return flow.rerun(
            run.id,
            parameters=parameters,
            again=changes.again,
            rerun_changed=choices.rerun_changed,
            confirmed=choices.confirmed,
        )

    say(
        f"running {run.flow} again with the results of ",
        (run.id[:SHORT_ID], "cyan"),
        stderr=choices.options.as_json,
    )
    return run_flow(target, call, choices.options, tell=print_notes)


def find_target(run: Run, given: str, verb: str) -> Target:
    """Return the flow of a run.

    Args:
        run: The run.
        given: TARGET, or "" for where it was.
        verb: What is wanted, for messages.

    Raises:
        TargetError: There is no such flow.
        NotResumable: It is another flow's run, or nobody knows where the flow is.
    """
    short = run.id[:SHORT_ID]
    if run.parent:
        raise NotResumable(
            f"run {short} is a subflow's: {verb} the run that called it, {run.parent[:SHORT_ID]}"
        )
    if not (given or run.target):
        raise NotResumable(
            f"run {short} was begun where no file tells of its flow, such as a notebook; name it: "
            f"raysched {verb} {short} file.py:flow"
        )
    target = load_target(given or run.target)
    if target.flow.name != run.flow:
        raise NotResumable(
            f"run {short} is of flow {run.flow!r}, but {target.text} is {target.flow.name!r}"
        )
    return target


def check_changes(run: Run, choices: Choices, changes: Changes) -> None:
    """Check that a rerun would do something, as far as that is known.

    Raises:
        UsageError: All completed, and nothing is to change; or there is no such task or task run.
    """
    for name in changes.again:
        if name not in run:
            run.task_run(name)
    if not (changes or choices.rerun_changed or set(run.counts) - SUCCESSES):
        short = run.id[:SHORT_ID]
        raise UsageError(
            f"all task runs of run {short} completed, so a rerun would reuse them all: say by "
            "--from TASK or --param name=value what is to run again"
        )


def print_notes(run: Run, after: int = 0) -> None:
    """Print what raysched itself has noted of how a run went on, from a log record on.

    Its warnings are on standard error already.
    """
    for record in run.logs(logger=ENGINE_LOGGER, after=after):
        if record.level < logging.WARNING:
            say(record.message)


def _can_go_on(run: Run) -> bool:
    return run.lost or (run.state.is_final() and not run.state.is_completed())
