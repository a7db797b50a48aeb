"""The run context: which attempt of which task run of which flow run user code runs in."""

import pickle
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """The attempt that user code runs in; set by the worker around each call.

    Attributes:
        flow_run_id: Id of the flow run.
        flow_run_name: Its name.
        flow_name: Name of the flow.
        pickled_parameters: Pickled parameters of the flow run, or b"" where they are too large
            to travel with every unit.
        flow_run_tags: Tags of the flow run.
        task_name: Name of the task.
        task_run_key: Key of the task run, for example `parse[17]`.
        task_run_name: Its rendered name, the key where the task has no template.
        index: Its position among the task runs of its name in the flow run.
        attempt: Number of the attempt, from 1.
        tags: Tags of the task run.
    """

    flow_run_id: str
    flow_run_name: str
    flow_name: str
    pickled_parameters: bytes
    flow_run_tags: tuple[str, ...]
    task_name: str
    task_run_key: str
    task_run_name: str
    index: int
    attempt: int
    tags: tuple[str, ...]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """A copy of the flow run's parameters, empty where they did not travel."""
        if not self.pickled_parameters:
            return {}
        parameters: dict[str, Any] = pickle.loads(self.pickled_parameters)
        return parameters


attempt_context: ContextVar[AttemptContext | None] = ContextVar("attempt_context", default=None)
"""The attempt that this code runs in, or None outside a task run."""
