"""The engine: advances the tracker, commits, makes visible, performs what follows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from raysched import faults
from raysched.compiler import compile_segment
from raysched.define.ports import FlowRunStart
from raysched.engine.caching import Caching
from raysched.engine.callbacks import Callbacks, call_hooks, may_retry, task_run_view
from raysched.engine.flow_run import OpenFlowRun
from raysched.engine.keeping import Keeper
from raysched.engine.loop import Loop
from raysched.engine.open_runs import OpenRuns
from raysched.engine.opening import new_row
from raysched.engine.ports import (
    Backend,
    Clock,
    Happened,
    Lost,
    Message,
    Observer,
    Store,
    Telemetry,
)
from raysched.engine.recording import fill, group_row, is_told, publish
from raysched.engine.reports import Reports
from raysched.engine.requests import Requests
from raysched.engine.resuming import answer, recorded_of
from raysched.engine.tracing import Tracing, observing
from raysched.engine.units import needed_values, refused, unit_call
from raysched.engine.values import KeptValues
from raysched.model.rows import ENGINE_LOGGER, Batch, FlowRunChange, LogRow
from raysched.model.states import StateType
from raysched.model.values import ErrorInfo, UnkeptValue
from raysched.settings import Settings
from raysched.tracker import advance
from raysched.tracker.messages import (
    AbortUnit,
    AskCache,
    AskCapacity,
    AskRetry,
    CallHooks,
    CapacityKnown,
    Command,
    Dispatch,
    Event,
    InputsLost,
    RetryAnswered,
    SegmentPlanned,
    TimePassed,
    WakeAt,
)

logger = logging.getLogger("raysched.engine")

MILLISECOND_NS = 1_000_000

GROUPS_NS = 20 * MILLISECOND_NS
"""How long rows of new groups may wait for the first outcome to be committed with (ns)."""

BUSY_UNITS = 32
"""With so many units on their way, turns wait for messages to gather."""


class Engine:
    """Runs the flow runs of this process on one backend, and keeps them in one store.

    Args:
        backend: Where units run; started here.
        store: Where states are kept; closed by `stop`.
        settings: Settings.
        clock: Where the time comes from.
        observers: Look at every committed batch.
        telemetry: Looks at it last, and tells where flow runs stand in traces; closed by `stop`.
            None where nothing is traced.
        target: What is being run, for the rows of flow runs: `dir/flow.py:flow`.
        takes_requests: Whether other processes may ask for something of its flow runs.
        storage: Where large results are kept (see `results.storage.open_storage`), or "".
    """

    def __init__(  # noqa: PLR0913 - the ports, each once
        self,
        backend: Backend,
        store: Store,
        settings: Settings,
        clock: Clock,
        *,
        observers: Sequence[Observer] = (),
        telemetry: Telemetry | None = None,
        target: str = "",
        takes_requests: bool = True,
        storage: str = "",
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.storage = storage
        self.callbacks = Callbacks(inline=backend.pumped)
        self._requests = Requests(store, self._interrupt) if takes_requests else None
        self.tracing = Tracing(telemetry, clock)
        self._observers = observers
        self._keeper = Keeper(
            store, settings.store_patience_seconds, observing(observers, telemetry)
        )
        self._values = KeptValues(self._keeper.values, settings.values_in_memory_bytes)
        self._clock = clock
        self._target = target
        self._changed: dict[OpenFlowRun, None] = {}
        self._reports = Reports(self, self._keeper)
        self._next_unit = count()
        self._open_runs = OpenRuns()
        backend.start(self._told)
        pump = backend.pump if backend.pumped else None
        broke = partial(self._open_runs.break_off, keeper=self._keeper)
        self._loop = Loop(clock, self._settle, self._is_busy, pump, backend.attend, broke)
        at, inline = self._loop.at, backend.pumped
        self._caching = Caching(self, self._keeper, clock, at, inline=inline)
        self.post = self._loop.post
        self.defer = self._loop.defer
        self.wait = self._loop.wait
        self.wait_async = self._loop.wait_async

    def open_run(self, start: FlowRunStart) -> OpenFlowRun:
        """See `define.ports.Engine.open_run`."""
        asked = 0
        if start.continues is not None and start.continues.same:
            taken = self._keeper.take_over(start.run_id, partial(self.tracing.execution, start))
            row, number = taken.row, taken.number
            if self._requests is not None:
                # Before the records are read, which takes a while.
                asked = self._requests.last(number)
        else:
            row = new_row(
                start,
                execution=self.tracing.execution(start),
                target=self._target,
                backend=self.backend.describe(),
            )
            number = self._keeper.open_run(row)
        run = OpenFlowRun(self, start, row, number, recorded_of(self._keeper, start, number))
        self._open_runs.enter(run)
        if run.large.problem and start.parent is None:
            self.post(run.say, logging.WARNING, run.large.problem)
        if self._requests is not None:
            self._requests.watch(run, asked)
        return run

    @property
    def is_broken(self) -> bool:
        """Whether the store or the backend is gone for good, so that nothing goes on here."""
        return self._loop.is_broken

    @property
    def is_idle(self) -> bool:
        """Whether no flow run is open."""
        return not self._open_runs.all()

    def exchange_telemetry(self, make: Callable[[], Telemetry | None]) -> None:
        """Close the telemetry of an idle engine, and go on with what is made then."""
        self.tracing.close()
        # Whatever making it raises, nothing is told to one that is closed.
        self.tracing, self._keeper.observers = Tracing(None, self._clock), self._observers
        telemetry = make()
        self.tracing = Tracing(telemetry, self._clock)
        self._keeper.observers = observing(self._observers, telemetry)

    def stop(self) -> None:
        """Let go of the backend, the telemetry and the store. Idempotent."""
        if self._requests is not None:
            self._requests.stop()
        self._loop.stop()
        self.callbacks.stop()
        self._caching.stop()
        self.backend.stop()
        self._open_runs.clear()
        # Before others could take open runs for lost ones, whose spans they would send again.
        self.tracing.close()
        self._keeper.close()

    def compile_soon(self, run: OpenFlowRun) -> None:
        """See `Host.compile_soon`."""
        if not self.backend.pumped:
            delay = int(self.settings.segment_milliseconds * MILLISECOND_NS)
            self.post(self._loop.at, self._clock.now() + delay, self.compile, run)

    def compile(self, run: OpenFlowRun) -> None:
        """See `Host.compile`."""
        # Whoever records from here on asks for another compilation.
        run.recorded_some = False
        groups = run.builder.take()
        if not groups:
            return
        for group in groups:
            run.invisible += group.size
            self._values.attach(group, run.number)
        now = self._clock.now()
        plan = compile_segment(
            groups, fusion=self.settings.fusion, earlier=run.tracker.planned_for_nobody
        )
        if not run.groups:
            # Nobody waits for these rows: the first outcome usually takes them along.
            run.groups_at = now + GROUPS_NS
            self._await_groups(run)
        run.groups.extend(
            group_row(planned, run.source_of, created=now)
            for planned in plan
            if is_told(planned.group)
        )
        self.advance(run, SegmentPlanned(plan))
        if run.builder.recorded is not None and answer(run, groups, self._keeper):
            self.post(self._loop.made_visible)

    def advance(self, run: OpenFlowRun, event: Event) -> None:
        """See `Host.advance`."""
        run.commands += advance(run.tracker, event, self._clock.now())
        self._changed[run] = None

    def touch(self, run: OpenFlowRun) -> None:
        """See `Host.touch`."""
        self._changed[run] = None

    def conclude(
        self, run: OpenFlowRun, state: StateType, message: str, error: ErrorInfo | None
    ) -> None:
        """See `Host.conclude`."""
        self._groups_due(run)
        self._settle()
        faults.reach("flow: before end")
        now, late = self._clock.now(), run.tracker.late
        message = "; ".join(filter(None, (message, run.large.summary())))
        change = FlowRunChange(state, message, now, error, run.attempt, late, run.result)
        run.collect_leftovers(completed=state is StateType.COMPLETED)
        self._settle()
        self._change(run, change)
        self._open_runs.leave(run)
        if self._requests is not None:
            self._requests.forget(run)

    def retry_flow(self, run: OpenFlowRun, error: ErrorInfo | None) -> None:
        """See `Host.retry_flow`."""
        self._groups_due(run)
        self._settle()
        self._change(run, FlowRunChange(StateType.RUNNING, "", 0, error, run.attempt))

    def _change(self, run: OpenFlowRun, change: FlowRunChange) -> None:
        batch = Batch(run.number, run.row.epoch, change)
        if change.state.is_terminal:
            batch.units = {
                node.group.id: node.units
                for node in run.tracker.nodes.values()
                if node.group.size > 1 and node.group.has_row
            }
        self._keeper.commit(run.row, batch)
        # Not before the caller has noted what was committed, which is what others wait for.
        self.post(self._loop.made_visible)

    def _await_groups(self, run: OpenFlowRun) -> None:
        # One timer a run, however many groups come and go before it.
        if not run.groups_awaited:
            run.groups_awaited = True
            self._loop.at(run.groups_at, self._groups_time, run)

    def _groups_time(self, run: OpenFlowRun) -> None:
        run.groups_awaited = False
        if not run.groups:
            return
        if self._clock.now() >= run.groups_at:
            self._groups_due(run)
        else:
            self._await_groups(run)

    def _groups_due(self, run: OpenFlowRun) -> None:
        if run.groups:
            run.groups_due = True
            self.touch(run)

    def _is_busy(self) -> bool:
        return len(self._reports.units) >= BUSY_UNITS

    def _told(self, message: Message) -> None:
        if isinstance(message, Happened):
            self.post(self._happened, self._open_runs.all(), message)
        else:
            self.post(self._reports.take, message)

    def _happened(self, runs: Iterable[OpenFlowRun], message: Happened) -> None:
        for run in runs:
            run.batch.events.append(message.event)
            self.touch(run)

    def _settle(self) -> None:
        """Commit, make visible and perform, until nothing more follows."""
        while self._changed:
            changed, self._changed = self._changed, {}
            for run in changed:
                self._settle_run(run)

    def _settle_run(self, run: OpenFlowRun) -> None:
        commands, run.commands = run.commands, []
        batch, run.batch = run.batch, Batch(run.number, run.row.epoch)
        batch.places = run.places.take_fresh()
        members = fill(batch, commands)
        batch.task_runs += run.leftovers
        run.leftovers = []
        if batch or run.groups_due or run.restarted:
            batch.groups, run.groups, run.groups_due = run.groups, [], False
            batch.restarted, run.restarted = run.restarted, []
            # What follows from a delivery is committed with it, or later.
            while run.deliveries:
                batch.deliveries.append(run.deliveries.popleft())
            self._keeper.commit(run.row, batch)
        # What is left over of an earlier execution, after these, is nobody's member.
        for (group, indices), columns in zip(members, batch.task_runs, strict=False):
            self._values.committed(group, indices, columns)
            run.large.committed(group, indices, columns)
            before = group.open_visible
            publish(group, indices)
            run.invisible -= before - group.open_visible
        if members:
            self._loop.made_visible()
        for command in commands:
            perform = self._PERFORMERS.get(type(command))
            if perform is not None:
                perform(self, run, command)

    def _dispatch(self, run: OpenFlowRun, command: Dispatch) -> None:
        if run.builder.recorded is not None:
            unkept = needed_values(command, UnkeptValue)
            if unkept:
                self.advance(run, InputsLost(command.unit, list(unkept)))
                return
        number = next(self._next_unit)
        self._reports.expect(number, run, command)
        faults.reach("before dispatch")
        try:
            self.backend.submit(unit_call(number, command, run.large.header))
        except Exception as error:
            logger.exception("a unit of %s cannot be submitted", command.group.spec.name)
            self._told(Lost(number, refused(error)))

    def _interrupt(self, run: OpenFlowRun) -> None:
        """Stop what runs in the thread of a flow, which could not be told otherwise."""
        # A flow function that waits beside another one looks again only then.
        self.post(self._loop.made_visible)
        if self.backend.pumped:
            for number in tuple(run.unit_numbers.values()):
                self.backend.cancel(number)

    def _abort(self, run: OpenFlowRun, command: AbortUnit) -> None:
        number = run.unit_numbers.get(command.unit)
        if number is not None:
            self.backend.cancel(number, command.positions, force=command.force)

    def _ask_capacity(self, run: OpenFlowRun, command: AskCapacity) -> None:
        capacity = self.backend.capacity(command.spec, command.scheduling_class)
        if not capacity.slots and not run.tracker.lacks_slots(command.scheduling_class):
            text = f"{command.spec.name} waits: it needs {capacity.lacking}"
            logger.warning(text)
            now = self._clock.now()
            row = LogRow(-1, 0, run.attempt, now, logging.WARNING, ENGINE_LOGGER, text)
            run.batch.logs.append(row)
        self.advance(run, CapacityKnown(command.scheduling_class, capacity.slots, capacity.lacking))

    def _wake_at(self, run: OpenFlowRun, command: WakeAt) -> None:
        self._loop.at(command.at, self.advance, run, TimePassed(command.at))

    def _call_hooks(self, run: OpenFlowRun, command: CallHooks) -> None:
        state = StateType.RUNNING if command.kind == "on_running" else None
        view = task_run_view(command.group, command.index, state)
        call = partial(call_hooks, command.group, command.index, command.kind, view)
        self.callbacks.submit(run, run.attempt, call)

    def _ask_retry(self, run: OpenFlowRun, command: AskRetry) -> None:
        view = task_run_view(command.group, command.index, command.state)
        call = partial(self._answer_retry, run, command, view)
        self.callbacks.submit(run, run.attempt, call)

    def _ask_cache(self, run: OpenFlowRun, command: AskCache) -> None:
        self._caching.ask(run, command)

    def _answer_retry(self, run: OpenFlowRun, command: AskRetry, view: Any) -> None:
        answer = may_retry(command.group, view, command.error)
        event = RetryAnswered(command.group, command.index, command.attempt, answer)
        self.post(self.advance, run, event)

    _PERFORMERS: dict[type[Command], Callable[[Any, OpenFlowRun, Any], None]] = {  # noqa: RUF012 - a table
        Dispatch: _dispatch,
        AbortUnit: _abort,
        AskCapacity: _ask_capacity,
        WakeAt: _wake_at,
        CallHooks: _call_hooks,
        AskRetry: _ask_retry,
        AskCache: _ask_cache,
    }
