"""`raysched run --supervise`: start the driver again whenever it has died."""

from raysched import client
from raysched.cli.children import Ended, pause, run_child
from raysched.cli.go_on import may_have_run
from raysched.cli.output import noun, say
from raysched.cli.run import Order
from raysched.cli.running import Options
from raysched.define.resuming import refuses_resume
from raysched.errors import NotResumable, RunNotFound, StoreUnavailable
from raysched.model.ids import SHORT_ID, new_run_id

LONGEST_PAUSE = 60.0
"""Most that is waited before a driver is started again (seconds)."""


def supervise(order: Order, most: int) -> int:
    """Run the flow that was ordered in a process of its own; return the exit code of the last one.

    A process that died is followed by one that goes on with its run, after 1, 2, 4, … seconds.

    Args:
        order: What to run.
        most: How often at most.

    Raises:
        StoreError: The database cannot be read, at the start or when somebody asks for the end.
    """
    run = client.get_run_of_key(order.key) if order.key else None
    run_id = new_run_id()
    arguments = _run_arguments(order, run_id)
    if run is not None and run.lost:
        run_id = run.id
        arguments = _resume_arguments(order, run_id)
    died = 0
    while True:
        ended = run_child(arguments)
        if ended.asked:
            return ended.code
        run, refused = _find(run_id)
        # One that could not even begin, for want of a parameter or Ray, would not the next time.
        if not (ended.signal if run is None else run.lost):
            return ended.code
        if refused is not None:
            say((f"{_name(run, order)} is not resumed: {refused}", "red"), stderr=True)
            return ended.code
        died += 1
        what = f"the driver of {_name(run, order)} {_cause(ended)}"
        if died > most:
            say(
                f"{what}, and that is enough: it was started again {noun(most, 'time')}",
                stderr=True,
            )
            return ended.code
        delay = min(2.0 ** (died - 1), LONGEST_PAUSE)
        does = "started again" if run is None else "resumed"
        say(
            (f"{what}: it is {does} in {delay:g} s ({died} of {noun(most, 'time')})", "yellow"),
            stderr=True,
        )
        if pause(delay):
            return ended.code
        if run is not None:
            arguments = _resume_arguments(order, run.id)


def _find(run_id: str) -> tuple[client.Run | None, NotResumable | None]:
    """Return the run, and what keeps it from being resumed, if it was lost.

    As soon as the database can be read; raises if somebody asks for the end.
    """
    delay = 1.0
    while True:
        try:
            run = client.get_run(run_id)
            return run, refuses_resume(may_have_run(run)) if run.lost else None
        except RunNotFound:
            return None, None
        except StoreUnavailable as error:
            say((f"{error}; looking again in {delay:g} s", "yellow"), stderr=True)
            if pause(delay):
                raise
            delay = min(2 * delay, LONGEST_PAUSE)


def _name(run: client.Run | None, order: Order) -> str:
    return order.target if run is None else f"{run.flow} {run.id[:SHORT_ID]}"


def _cause(ended: Ended) -> str:
    return f"was killed by {ended.signal}" if ended.signal else f"ended with exit code {ended.code}"


def _run_arguments(order: Order, run_id: str) -> list[str]:
    arguments = ["run", order.target, "--run-id", run_id]
    for pair in order.pairs:
        arguments += ["--param", pair]
    if order.document is not None:
        arguments += ["--params-json", order.document]
    if order.key:
        arguments += ["--key", order.key]
    return [*arguments, *option_arguments(order.options)]


def _resume_arguments(order: Order, run_id: str) -> list[str]:
    return ["resume", run_id, order.target, *option_arguments(order.options)]


def option_arguments(options: Options) -> list[str]:
    """Return what says on a command line how flows are run."""
    arguments = []
    if options.address is not None:
        arguments += ["--address", options.address]
    if options.backend is not None:
        arguments += ["--backend", options.backend]
    if options.max_parallel is not None:
        arguments += ["--max-parallel", str(options.max_parallel)]
    return [*arguments, "--json"] if options.as_json else arguments
