"""Runs as the user's hooks and conditions see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysched.model.states import StateType


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task run at one moment.

    Attributes:
        id: `<flow run id>/<key>`.
        name: Rendered task run name, or the key.
        task_name: Name of the task.
        key: For example `parse[17]`.
        index: Position among the flow run's task runs of that name.
        flow_run_id: The flow run.
        run_count: Attempts begun.
        start_time: Start of the last attempt (ns since the epoch), 0 before the first.
        end_time: Its end (ns since the epoch), 0 while open.
        state_type: State.
        tags: Tags.
    """

    id: str
    name: str
    task_name: str
    key: str
    index: int
    flow_run_id: str
    run_count: int
    start_time: int
    end_time: int
    state_type: StateType
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One flow run at one moment.

    Attributes:
        id: Its id.
        name: Its name.
        flow_name: Name of the flow.
        run_count: Number of runs of the flow function begun.
        parameters: Its parameters.
        state_type: State.
        tags: Tags.
        parent_id: Id of the flow run that called it, or None.
    """

    id: str
    name: str
    flow_name: str
    run_count: int
    parameters: Mapping[str, Any]
    state_type: StateType
    tags: tuple[str, ...]
    parent_id: str | None
