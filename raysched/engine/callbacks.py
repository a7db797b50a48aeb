"""The user's hooks and retry conditions: called in order, away from the loop."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from raysched.define.context import in_flow
from raysched.define.ports import RunPort
from raysched.define.states import State
from raysched.graph.group import Group
from raysched.model.runs import TaskRun
from raysched.model.states import FAILURES, SUCCESSES, StateType
from raysched.model.values import ErrorInfo
from raysched.results.envelope import decode
from raysched.results.rebuild import exception_of, failure_of

logger = logging.getLogger("raysched.engine")


class Callbacks:
    """Calls functions one after the other, in a thread of its own or, `inline`, at once.

    They run as parts of their flow run: `get_run_logger` and `runtime` work in them.
    """

    def __init__(self, *, inline: bool) -> None:
        self._inline = inline
        self._queue: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._thread: threading.Thread | None = None
        self._stopped = False

    def submit(self, port: RunPort, run_count: int, function: Callable[[], None]) -> None:
        """Call `function` soon; what it raises is logged.

        Args:
            port: The flow run that it belongs to.
            run_count: Number of the run of its flow function, from 1.
            function: What to call.
        """
        function = partial(_call, port, run_count, function)
        if self._inline:
            function()
            return
        with self._changed:
            self._queue.append(function)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="raysched-callbacks", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait until all submitted functions were called; return whether they were.

        Args:
            timeout: Seconds.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def stop(self) -> None:
        """Call nothing more."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._stopped)
                if self._stopped:
                    return
                function = self._queue.popleft()
                self._busy = True
            function()


def call_hooks(group: Group, index: int, kind: str, task_run: TaskRun) -> None:
    """Call the user's hooks of one kind; one that raises is logged and harms nothing."""
    state = _state(group, index, task_run)
    for hook in getattr(group.spec.hooks, kind):
        try:
            hook(group.spec.task, task_run, state)
        except Exception:
            name = getattr(hook, "__qualname__", repr(hook))
            logger.exception("%s hook %s of %s raised", kind, name, task_run.key)


def may_retry(group: Group, task_run: TaskRun, error: ErrorInfo) -> bool:
    """Ask the task's `retry_condition_fn`; one that raises means no, as in Prefect."""
    condition = group.spec.retry.condition
    if condition is None:
        return True
    exception = exception_of(task_run.key, task_run.state_type, error)
    state: State[object] = State(task_run.state_type, None, error.message, exception)
    try:
        return bool(condition(group.spec.task, task_run, state))
    except Exception:
        logger.exception("retry_condition_fn of %s raised: it is not retried", task_run.key)
        return False


def task_run_view(group: Group, index: int, state: StateType | None = None) -> TaskRun:
    """Return a member as it is now, or as it would be in `state`."""
    key = group.key(index)
    return TaskRun(
        f"{group.run_id}/{key}",
        group.names.get(index, key),
        group.spec.name,
        key,
        group.first + index,
        group.run_id,
        group.attempts[index],
        group.started[index],
        group.ended[index],
        StateType(group.states[index]) if state is None else state,
        group.tags,
    )


def _state(group: Group, index: int, task_run: TaskRun) -> State[object]:
    error = group.errors.get(index)

    def load() -> object:
        if task_run.state_type in FAILURES:
            return failure_of(group, index)
        if task_run.state_type not in SUCCESSES:
            return None
        value = group.value(index)
        return decode(value) if isinstance(value, bytes) else None

    return State(task_run.state_type, None, error.message if error else None, load=load)


def _call(port: RunPort, run_count: int, function: Callable[[], None]) -> None:
    try:
        with in_flow(port, run_count):
            function()
    except Exception:
        logger.exception("a callback raised")
