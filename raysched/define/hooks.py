"""Calling a flow's hooks."""

import logging
from typing import Any

from raysched.define.ports import FlowRunStart
from raysched.define.states import State
from raysched.model.runs import FlowRun
from raysched.model.states import StateType

logger = logging.getLogger(__name__)

_KINDS = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.TIMED_OUT: "on_failure",
    StateType.CRASHED: "on_crashed",
    StateType.CANCELLED: "on_cancellation",
}


def call_flow_hooks(start: FlowRunStart, run_count: int, state: State[Any]) -> None:
    """Call the hooks of the state that a flow run has entered.

    A hook that raises is logged and harms nothing.
    """
    kind = _KINDS.get(state.type)
    if kind is None:
        return
    hooks = getattr(start.spec.hooks, kind)
    if not hooks:
        return
    flow_run = FlowRun(
        id=start.run_id,
        name=start.name,
        flow_name=start.spec.name,
        run_count=run_count,
        parameters=start.parameters,
        state_type=state.type,
        tags=start.tags,
        parent_id=start.parent.start.run_id if start.parent else None,
    )
    for hook in hooks:
        try:
            hook(start.spec.flow, flow_run, state)
        except Exception:
            name = getattr(hook, "__qualname__", repr(hook))
            logger.exception("%s hook %s of flow run %s raised", kind, name, start.name)
