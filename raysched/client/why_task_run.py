"""Why one task run ended as it did, whatever has become of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raysched.client.why_cache import cache_story
from raysched.client.why_causes import Keys, Kind, class_of
from raysched.client.why_changes import compare
from raysched.client.why_details import cause_of
from raysched.client.why_facts import Part, Why
from raysched.client.why_graph import Touched, locate
from raysched.client.why_steps import steps_for
from raysched.client.why_verdict import verdict_on_task_run
from raysched.client.words import split_key, utc
from raysched.model.states import SUCCESSES, StateType

if TYPE_CHECKING:
    from raysched.model.rows import GroupRow
    from raysched.store.endings import Followers
    from raysched.store.reader import Reader
    from raysched.store.views import RunView, TaskRunView

MOST_ROOTS = 20
"""Failures that are looked at of a task run that did not run because of them."""

MOST_CAUSES = 3
"""Of these, failures with different causes that are told."""

MOST_NAMED = 5
"""Keys of these that are named."""


def explain_task_run(reader: "Reader", run: "RunView", view: "TaskRunView") -> Why:
    """Return why a task run is as it is.

    Its cause comes first, if there is one, then those of the failures because of which it did not
    run. One that went well at once, was skipped, or is open and has not failed, has none.

    Args:
        reader: Where it is kept.
        run: The run that it is in.
        view: The task run.
    """
    groups = reader.groups(run)
    keys = Keys(groups)
    followers = [each for each in reader.followers(run) if view.key in each.roots]
    kinds = [_kind(groups, keys, view, followers)] if _has_cause(reader, run, view) else []
    kinds += [_kind(groups, keys, root, ()) for root in _different(reader, run, view.roots)]
    causes = tuple(cause_of(reader, run, kind, number) for number, kind in enumerate(kinds, 1))
    failed = view.state.is_terminal and view.state not in SUCCESSES
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
        not_run=sum(each.count for each in followers),
        causes=causes,
        part=_part(groups, keys, view, followers),
        comparison=compare(reader, run, view) if failed and view.error is not None else None,
        steps=tuple(steps_for(run, causes)),
        key=view.key,
        cache=cache_story(reader, run, view),
    )
    return replace(why, verdict=verdict_on_task_run(why, view))


def _has_cause(reader: "Reader", run: "RunView", view: "TaskRunView") -> bool:
    """Whether something went wrong with it, be it in an attempt before the last one."""
    if view.state is StateType.SKIPPED:
        return False
    if view.state.is_terminal and view.state not in SUCCESSES:
        return True
    return any(row.error is not None for row in reader.attempts(run, view.group, view.member))


def _kind(
    groups: "Sequence[GroupRow]",
    keys: Keys,
    view: "TaskRunView",
    followers: "Sequence[Followers]",
) -> Kind:
    group = next(each for each in groups if each.id == view.group)
    victims: Counter[str] = Counter()
    for each in followers:
        victims[keys.tasks[each.group]] += each.count
    error = view.error
    return Kind(
        alike=view.key,
        group=group,
        first=view.member,
        state=view.state,
        failure_class=class_of(view.state) if error is None else error.failure_class,
        reason=view.reason or _because(view.roots),
        by_group=Counter({group.id: 1}),
        keys=[view.key],
        handled=int(view.handled),
        victims=victims,
    )


def _because(roots: Sequence[str]) -> str:
    if not roots:
        return ""
    more = f" and {len(roots) - MOST_NAMED:,} more" if len(roots) > MOST_NAMED else ""
    return f"did not run because of {', '.join(roots[:MOST_NAMED])}{more}"


def _different(reader: "Reader", run: "RunView", roots: Sequence[str]) -> "list[TaskRunView]":
    """Return the first of the failures with these keys that have different causes."""
    found: dict[object, TaskRunView] = {}
    for task, index in filter(None, map(split_key, roots[:MOST_ROOTS])):
        view = reader.task_run(run, task, index)
        if view is not None:
            fingerprint = view.error.fingerprint if view.error is not None else ""
            found.setdefault((view.state, fingerprint or (task, view.reason)), view)
    return list(found.values())[:MOST_CAUSES]


def _part(
    groups: "Sequence[GroupRow]",
    keys: Keys,
    view: "TaskRunView",
    followers: "Sequence[Followers]",
) -> Part:
    """Return the part of the graph from its roots to it, or from it to what did not run."""
    touched: dict[int, Touched] = {}
    if view.roots:
        roots = Counter(keys.groups(view.roots))
        touched = {group: Touched(failed=count) for group, count in roots.items()}
        of_it = touched.get(view.group, Touched())
        touched[view.group] = replace(of_it, not_run=1, roots=frozenset(roots))
    elif followers:
        touched[view.group] = Touched(failed=1)
        for each in followers:
            before = touched.get(each.group, Touched())
            touched[each.group] = replace(
                before, not_run=before.not_run + each.count, roots=frozenset({view.group})
            )
    return locate(groups, touched)
