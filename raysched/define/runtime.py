"""What a run is called and with what: `raysched.runtime`, after Prefect's module of that name.

Outside flows and tasks the values are empty: None, 0, an empty list or dict.
"""

from collections.abc import Mapping
from typing import Any

from raysched.define.context import AttemptContext, FlowContext, current_scope


class _FlowRun:
    """The flow run that this code belongs to."""

    @property
    def id(self) -> str | None:
        """Its id."""
        scope = current_scope()
        if isinstance(scope, FlowContext):
            return scope.port.start.run_id
        return scope.surroundings.flow_run_id if scope else None

    @property
    def name(self) -> str | None:
        """Its name."""
        scope = current_scope()
        if isinstance(scope, FlowContext):
            return scope.port.start.name
        return scope.surroundings.flow_run_name if scope else None

    @property
    def flow_name(self) -> str | None:
        """Name of its flow."""
        scope = current_scope()
        if isinstance(scope, FlowContext):
            return scope.port.start.spec.name
        return scope.surroundings.flow_name if scope else None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Its parameters. In tasks empty if they are too large to travel with every task run."""
        scope = current_scope()
        if isinstance(scope, FlowContext):
            return dict(scope.port.start.parameters)
        return scope.parameters if scope else {}

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        scope = current_scope()
        if isinstance(scope, FlowContext):
            return list(scope.port.start.tags)
        return list(scope.surroundings.flow_run_tags) if scope else []

    @property
    def run_count(self) -> int:
        """Number of this run of the flow function, from 1; 0 in tasks, which outlive it."""
        scope = current_scope()
        return scope.run_count if isinstance(scope, FlowContext) else 0


class _TaskRun:
    """The task run that this code belongs to."""

    @property
    def id(self) -> str | None:
        """Its id."""
        attempt = _attempt()
        return attempt.task_run_id if attempt else None

    @property
    def name(self) -> str | None:
        """Its name: rendered from `task_run_name`, or its key."""
        attempt = _attempt()
        return attempt.task_run_name if attempt else None

    @property
    def key(self) -> str | None:
        """Its key, for example `parse[17]`."""
        attempt = _attempt()
        return attempt.task_run_key if attempt else None

    @property
    def task_name(self) -> str | None:
        """Name of its task."""
        attempt = _attempt()
        return attempt.surroundings.task_name if attempt else None

    @property
    def index(self) -> int | None:
        """Its position among the task runs of that name in the flow run."""
        attempt = _attempt()
        return attempt.index if attempt else None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The arguments, by parameter name."""
        attempt = _attempt()
        return dict(attempt.load_arguments()) if attempt else {}

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        attempt = _attempt()
        return list(attempt.surroundings.tags) if attempt else []

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1."""
        attempt = _attempt()
        return attempt.attempt if attempt else 0

    @property
    def run_count(self) -> int:
        """Prefect's word for `attempt`."""
        return self.attempt


def _attempt() -> AttemptContext | None:
    scope = current_scope()
    return scope if isinstance(scope, AttemptContext) else None


flow_run = _FlowRun()
task_run = _TaskRun()
