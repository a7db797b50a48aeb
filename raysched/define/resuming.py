"""What a flow run goes on from: the same run again, or a new one that reuses its results."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from raysched.define.context import current_scope
from raysched.define.flow_runs import FlowCaller
from raysched.define.ports import Continuation, FlowRunStart, KeptFlowRun, kept_run
from raysched.errors import NotResumable, ParameterError, RunOwned, UsageError
from raysched.graph.recorded import END_UNKNOWN, may_have_run
from raysched.model.ids import SHORT_ID
from raysched.model.states import SUCCESSES, StateType


def start_of_resume(caller: FlowCaller, continues: Continuation) -> FlowRunStart:
    """Return what goes on with a flow run (see `Flow.resume`).

    Args:
        caller: The flow.
        continues: What was asked for; its run may be told by a prefix of the id, or as `last`.

    Raises:
        NotResumable: It has completed, is another flow's, its parameters are not there, or task
            runs that must not run twice were under way, and it is not confirmed that they may.
        RunNotFound: No run, or more than one, matches.
    """
    kept = _kept(caller, "resume", continues.run_id)
    short = kept.id[:SHORT_ID]
    if kept.state in SUCCESSES:
        raise NotResumable(
            f"run {short} of {caller.what} is {kept.state}: nothing to go on with; "
            f"`raysched rerun {short}`, or .rerun(…), begins a new run that reuses its results"
        )
    parameters = _parameters(kept)
    try:
        _check_names(caller, parameters)
        args, kwargs = caller.signature.as_call(parameters)
        bound = caller.signature.bind(args, kwargs)
    except ParameterError as error:
        raise NotResumable(
            f"run {short} goes on with the parameters that it began with, and they do not fit any "
            f"more: {error}. Give new ones a default, or begin a new run that reuses its results: "
            f"`raysched rerun {short} --param name=value`"
        ) from error
    refused = refuses_resume(kept.may_have_run)
    if refused is not None and not continues.confirmed:
        raise refused
    return FlowRunStart(
        kept.id,
        kept.name,
        caller.spec,
        caller.signature.complete(bound),
        kept.tags,
        key=kept.key,
        continues=replace(continues, run_id=kept.id),
    )


def refuses_resume(begun: Iterable[tuple[str, StateType]]) -> NotResumable | None:
    """Return what keeps a run from being resumed without a person's yes, before anything starts.

    What else may have run already is refused when the flow function calls it again.

    Args:
        begun: As `KeptFlowRun.may_have_run`.
    """
    unknown = [(key, state) for key, state in begun if state in END_UNKNOWN]
    return may_have_run(unknown) if unknown else None


def start_of_rerun(
    caller: FlowCaller, parameters: Mapping[str, Any], continues: Continuation
) -> FlowRunStart:
    """Return what begins a new flow run from the results of one (see `Flow.rerun`).

    Args:
        caller: The flow.
        parameters: Those that change, by name.
        continues: What was asked for; its run may be told by a prefix of the id, or as `last`.

    Raises:
        NotResumable: It is a subflow's or another flow's, or its parameters are not there.
        ParameterError: The parameters do not fit the signature or the annotations.
        RunNotFound: No run, or more than one, matches.
    """
    kept = _kept(caller, "rerun", continues.run_id)
    signature = caller.signature
    both: dict[str, Any] = {}
    if not set(signature.names) <= parameters.keys():
        # On those that the flow does not take any more nothing can depend.
        before = _parameters(kept)
        both = {name: value for name, value in before.items() if name in signature.names}
    named = set(signature.names) - {signature.var_positional, signature.var_keyword}
    both.update({name: value for name, value in parameters.items() if name in named})
    args, kwargs = signature.as_call(both)
    others = {name: value for name, value in parameters.items() if name not in named}
    start = caller.begin(signature.bind(args, {**kwargs, **others}), None)
    return replace(start, tags=kept.tags, continues=replace(continues, run_id=kept.id, same=False))


def _kept(caller: FlowCaller, verb: str, run: str) -> KeptFlowRun:
    if current_scope() is not None:
        raise UsageError(
            f"{caller.what}: .{verb}() was called in a flow or task, but a run does not go on "
            "inside of another: call it outside"
        )
    kept = kept_run(run)
    short = kept.id[:SHORT_ID]
    if kept.parent:
        raise NotResumable(
            f"run {short} is a subflow's: {verb} the run that called it, {kept.parent[:SHORT_ID]}"
        )
    if verb == "resume" and kept.owner:
        raise RunOwned(
            f"run {short} of {caller.what} goes on in {kept.owner}: `raysched cancel {short}` "
            f"ends it, `raysched show {short}` tells how far it is"
        )
    if kept.flow != caller.spec.name:
        raise NotResumable(
            f"run {short} is of flow {kept.flow!r}, not of {caller.what}: {verb} it by its own flow"
        )
    return kept


def _parameters(kept: KeptFlowRun) -> Mapping[str, Any]:
    if kept.parameters is None:
        short = kept.id[:SHORT_ID]
        raise NotResumable(
            f"the parameters of run {short} are not there: {kept.lacks}. Call the flow again, or "
            f"give all of them: `raysched rerun {short} --param name=value …` reuses its results"
        )
    return kept.parameters


def _check_names(caller: FlowCaller, parameters: Mapping[str, Any]) -> None:
    unknown = [name for name in parameters if name not in caller.signature.names]
    if unknown:
        raise ParameterError(
            f"{caller.what} takes no {', '.join(map(repr, unknown))}; its parameters are "
            f"{caller.signature}"
        )
