"""Why a flow run ended as it did: the verdict, where, with what evidence, and what to do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raysched.client.shortfalls import shortfalls
from raysched.client.why_causes import Keys, Kind, find_failures, name_some
from raysched.client.why_changes import compare
from raysched.client.why_details import cause_of, flow_cause
from raysched.client.why_driver import loss_of
from raysched.client.why_facts import Cause, Comparison, Why
from raysched.client.why_graph import locate
from raysched.client.why_held import STOPPED, flow_place, held_by
from raysched.client.why_steps import steps_after
from raysched.client.why_verdict import verdict_on
from raysched.client.words import OWN_FAILURES, error_type, utc
from raysched.model.states import StateType
from raysched.model.values import FailureClass

if TYPE_CHECKING:
    from raysched.store.reader import Reader
    from raysched.store.views import RunView

MOST_CAUSES = 10
"""Causes that are told in full; the others are counted."""

MOST_SUBFLOWS = 5
"""Subflows that are told of a run."""

DEEPEST = 3
"""Subflows in subflows are told down to here."""


def explain(reader: "Reader", run: "RunView", *, depth: int = 0) -> Why:
    """Return why a flow run is as it is.

    Args:
        reader: Where it is kept.
        run: The run.
        depth: How many subflows it is in that are told, too.
    """
    failures = find_failures(reader, run)
    shown = failures.kinds[:MOST_CAUSES]
    name_some(reader, run, shown, Keys(failures.groups))
    subflows = tuple(_subflows(reader, run, depth))
    causes = [cause_of(reader, run, kind, number) for number, kind in enumerate(shown, 1)]
    if run.error is not None and not _is_told(run, causes, subflows):
        causes.append(flow_cause(reader, run, len(causes) + 1))
    standings = reader.standings(run)
    own = [kind for kind in failures.kinds if kind.state is not StateType.CANCELLED]
    why = Why(
        run=run.id,
        flow=run.flow,
        name=run.name,
        state=run.state,
        message=run.message,
        started=utc(run.started),
        ended=utc(run.ended),
        target=run.target,
        backend=run.backend,
        verdict="",
        counts=dict(run.counts),
        failures=sum(kind.count for kind in own),
        handled=sum(kind.handled for kind in own),
        not_run=failures.not_run,
        skipped=run.counts.get(StateType.SKIPPED, 0),
        rolled_back=sum(standing.rolled_back for standing in standings),
        kept=sum(standing.kept for standing in standings),
        reasons=failures.reasons,
        causes=tuple(causes),
        more_causes=len(failures.kinds) - len(shown),
        part=locate(failures.groups, failures.touched),
        comparison=_comparison(reader, run, shown),
        steps=tuple(steps_after(run, causes, reader.may_have_run(run))),
        subflows=subflows,
        shortfalls=tuple(shortfalls(reader, run)),
        held=held_by(reader, run, failures.groups) if run.state in STOPPED else (),
        place=flow_place(run) if run.state in STOPPED else None,
        loss=loss_of(reader, run, failures.kinds),
    )
    return replace(why, verdict=verdict_on(why))


def _comparison(reader: "Reader", run: "RunView", kinds: Sequence[Kind]) -> Comparison | None:
    """Return what differs from the last success; of a run that ended well nothing is asked."""
    if run.state is StateType.COMPLETED and not kinds:
        return None
    failed = None
    if kinds:
        group = kinds[0].group
        failed = reader.task_run(run, group.task, group.first + kinds[0].first)
    return compare(reader, run, failed)


def _subflows(reader: "Reader", run: "RunView", depth: int) -> Iterator[Why]:
    if depth == DEEPEST:
        return
    ended_badly = (*OWN_FAILURES, StateType.CANCELLED)
    found = [child for child in reversed(reader.children(run)) if child.state in ended_badly]
    for child in found[:MOST_SUBFLOWS]:
        yield explain(reader, child, depth=depth + 1)


def _is_told(run: "RunView", causes: Iterable[Cause], subflows: Sequence[Why]) -> bool:
    """Whether the flow function only raised what task runs or subflows say already."""
    error = run.error
    if error is None or error.failure_class in {FailureClass.UPSTREAM, FailureClass.CANCELLED}:
        return True
    told = [(cause.type, cause.message) for cause in causes]
    for subflow in subflows:
        told += [(cause.type, cause.message) for cause in subflow.causes]
    if error.type.startswith("raysched.errors.") and (told or subflows):
        return True
    if run.state in STOPPED:
        # Its message says it all.
        return True
    return (error_type(error), error.message) in told
