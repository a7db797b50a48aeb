"""`raysched run`: load the target, call the flow, show what happens, sum it up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysched import client
from raysched.cli.output import print_json, say
from raysched.cli.parameters import read_parameters
from raysched.cli.records import run_record
from raysched.cli.running import FAILURE, Options, run_flow, short
from raysched.cli.summary import print_summary
from raysched.cli.target import AnyFlow, load_target
from raysched.engine.opening import CUT, preview
from raysched.errors import ParameterError, ResultError, RunExists
from raysched.model.ids import SHORT_ID


@dataclass(frozen=True, slots=True)
class Order:
    """What `raysched run` was told.

    Attributes:
        target: TARGET.
        pairs: `name=value` of each `--param`.
        document: What `--params-json` was given, or None.
        options: How flows are run.
        key: What makes the run the only one of its kind, or "".
        run_id: Id of the run, or "" for a new one.
    """

    target: str
    pairs: tuple[str, ...]
    document: str | None
    options: Options
    key: str = ""
    run_id: str = ""


def run_target(order: Order) -> int:
    """Run the flow that was ordered; return the exit code.

    Raises:
        UsageError: The target, a parameter or an option cannot be right; nothing was started.
        RayschedError: The run could not be started, or not be kept.
    """
    target = load_target(order.target)
    parameters = read_parameters(target.flow.fn, order.pairs, order.document)

    def call(flow: AnyFlow) -> object:
        return flow.run_as(parameters, key=order.key, run_id=order.run_id)

    existing = client.get_run_of_key(order.key) if order.key else None
    if existing is None:
        try:
            return run_flow(target, call, order.options)
        except RunExists as error:
            existing = client.get_run(error.run_id)
    return _tell_existing(existing, order, _differences(existing, target.flow, parameters))


def _tell_existing(run: client.Run, order: Order, others: str) -> int:
    """Tell of the run that has the key; return the exit code.

    Args:
        run: The run.
        order: What was ordered.
        others: Which of its parameters are others, or "".
    """
    as_json = order.options.as_json
    say(
        f"key {order.key}: ",
        (run.id[:SHORT_ID], "cyan"),
        f" of {run.flow} has it, so nothing was run",
        (f", with other parameters: {others}" if others else "", "yellow"),
        stderr=as_json,
    )
    if as_json:
        print_json(run_record(run, failures=True))
    else:
        print_summary(run, _returned(run))
    return 0 if run.state.is_completed() else FAILURE


def _differences(run: client.Run, flow: AnyFlow, parameters: Mapping[str, Any]) -> str:
    """Return which parameters of a run are others than those that were given: `die=2, not 5`."""
    if run.flow != flow.name:
        return ""
    try:
        asked = json.loads(preview(dict(flow.parameters_of(parameters))))
    except ParameterError:
        # Nothing is run with them.
        return ""
    had = run.parameters
    if CUT in had or CUT in asked:
        return "" if had == asked else "they are too long to be shown"
    return ", ".join(
        f"{name}={_told(had, name)}, not {_told(asked, name)}"
        for name in {**had, **asked}
        if _told(had, name) != _told(asked, name)
    )


def _told(parameters: Mapping[str, Any], name: str) -> str:
    return short(parameters[name]) or "None" if name in parameters else "there"


def _returned(run: client.Run) -> str:
    try:
        result: Any = run.result()
    except ResultError:
        return ""
    except Exception as error:  # noqa: BLE001 - of users' classes, which may have changed
        return f"a value that cannot be read here: {type(error).__name__}: {error}"
    return short(result)
