"""What a rerun would do: the plan of a flow that goes on through what an earlier run answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raysched.define.planning import Earlier, FlowPlan
from raysched.define.ports import Continuation, RecalledFlowRun
from raysched.define.sources import source_digest
from raysched.engine.subflows import Subflows
from raysched.errors import ResultNotKept
from raysched.graph.group import Group
from raysched.graph.recorded import Choice, Recorded
from raysched.model.ids import task_run_key
from raysched.model.states import SUCCESSES
from raysched.model.values import StoredValue, UnkeptValue
from raysched.results.envelope import decode
from raysched.results.storage import load

if TYPE_CHECKING:
    from raysched.define.flows import Flow
    from raysched.store.reader import Reader


PAGE = 1000
"""Values that are read at once."""


@dataclass(slots=True)
class RerunTask:
    """What a rerun would do of one task.

    Attributes:
        task: The task; `subflow/task` in subflows.
        reused: Number of task runs that are answered by the earlier run.
        runs: Keys of those that run.
        may_have_run: Keys, in the earlier run, of those of them that may have run there and must
            not run twice.
    """

    task: str
    reused: int = 0
    runs: list[str] = field(default_factory=list)
    may_have_run: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RerunPlan:
    """What a rerun would do, as far as it is known before anything runs.

    Attributes:
        tasks: By task, in order of calls.
        continues: Whether the flow goes on by what comes out of that.
        left: Completed task runs of the earlier run that no call has reached until there.
    """

    tasks: tuple[RerunTask, ...]
    continues: bool
    left: int


def plan_rerun(
    reader: "Reader", flow: "Flow[..., Any]", parameters: Mapping[str, Any], asked: Continuation
) -> RerunPlan:
    """Return what a rerun would do.

    Args:
        reader: Where the earlier run is.
        flow: The flow.
        parameters: Those that change.
        asked: What is asked for.

    Raises:
        NotResumable: It cannot be.
        ParameterError: The parameters do not fit.
        Exception: What the flow function raised.
    """
    earlier: list[_EarlierRun] = []

    def open_earlier(continues: Continuation, scope: bytes) -> Earlier:
        earlier.append(_EarlierRun(reader, continues, scope))
        return earlier[-1]

    plan = flow.plan_rerun(parameters, asked, open_earlier)
    tasks: dict[str, RerunTask] = {}
    _add(tasks, plan, "")
    return RerunPlan(tuple(tasks.values()), _continues(plan), sum(each.left for each in earlier))


def _add(tasks: dict[str, RerunTask], plan: FlowPlan, prefix: str) -> None:
    for group in plan.groups:
        name = prefix + group.spec.name
        task = tasks.setdefault(name, RerunTask(name))
        for index in range(group.size):
            if group.is_answered(index):
                task.reused += 1
                continue
            task.runs.append(prefix + group.key(index))
            recorded = group.recorded
            if recorded is None or group.spec.idempotent:
                continue
            position = group.positions[index]
            if recorded.attempts[position]:
                key = task_run_key(recorded.task, recorded.first + position)
                task.may_have_run.append(prefix + key)
    for subflow in plan.subflows:
        _add(tasks, subflow, f"{prefix}{subflow.flow}/")


def _continues(plan: FlowPlan) -> bool:
    return plan.continues or any(map(_continues, plan.subflows))


class _EarlierRun:
    """An earlier run, as it is kept (see `define.planning.Earlier`)."""

    def __init__(self, reader: "Reader", continues: Continuation, scope: bytes) -> None:
        self._reader = reader
        self._run = reader.find_run(continues.run_id)
        self._continues = continues
        choice = Choice(
            same=False,
            source_of=lambda spec: source_digest(spec.fn),
            rerun_changed=continues.rerun_changed,
            again=frozenset(continues.again),
            # What asks for a yes is told by the plan.
            confirmed=True,
        )
        self.recorded = Recorded(reader.records(self._run), choice)
        self._subflows = Subflows(scope, self.recorded)
        self._pages: dict[tuple[int, int], Mapping[int, bytes]] = {}

    @property
    def left(self) -> int:
        """Number of completed task runs that no call has claimed."""
        return sum(
            group.states[index] in SUCCESSES and index not in group.rolled_back
            for group, indices in self.recorded.left()
            for index in indices
        )

    def value(self, group: Group, index: int) -> Any:
        """See `Earlier.value`."""
        value = group.values[index]
        if isinstance(value, StoredValue):
            return load(value.location)
        recorded, position = group.recorded, group.positions[index]
        assert recorded is not None  # noqa: S101 - it is answered
        envelope = self._page(recorded.id, position).get(position)
        if isinstance(value, UnkeptValue) or envelope is None:
            raise ResultNotKept(f"the value of {recorded.task} is not kept")
        return decode(envelope)

    def _page(self, group: int, position: int) -> Mapping[int, bytes]:
        start = position - position % PAGE
        if (group, start) not in self._pages:
            values = self._reader.kept_values(self._run, group, start, start + PAGE)
            self._pages[group, start] = values
        return self._pages[group, start]

    def recall(self, flow: str, parameters: Mapping[str, Any]) -> RecalledFlowRun:
        """See `RunPort.recall`."""
        return self._subflows.recall(flow, parameters, self._continues)
