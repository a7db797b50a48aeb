"""What backends tell of units: from messages to events of the tracker, and to what is kept."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysched.engine.keeping import Keeper
from raysched.engine.places import Worker, forget, note, worker_in
from raysched.engine.placing import place
from raysched.engine.ports import Began, Lost, Reported, UnitMessage
from raysched.engine.units import incomplete, lost_inputs, missing_inputs, unit_ended
from raysched.model.rows import Batch, LogRow, PlaceRow
from raysched.model.values import LargeValue, StoredValue
from raysched.tracker.messages import (
    Dispatch,
    InputsLost,
    UnitHandedBack,
    UnitLost,
    UnitStarted,
)
from raysched.worker.protocol import Report, decode_report

if TYPE_CHECKING:
    from raysched.engine.flow_run import Host, OpenFlowRun
    from raysched.graph.calls import Member


@dataclass(slots=True)
class Sent:
    """A unit that the backend has.

    Attributes:
        run: Its flow run.
        dispatched: The unit: the tracker may have closed it before the last report of it comes.
        logs_seen: How many of its log records have been taken.
        spans_seen: How many of its messages of spans have been taken.
        dropped_spans: How many of its spans are known to have been dropped.
    """

    run: "OpenFlowRun"
    dispatched: Dispatch
    logs_seen: int = 0
    spans_seen: int = 0
    dropped_spans: int = 0


class Reports:
    """The units that are on their way, and what becomes of them. Within turns.

    Args:
        host: The engine.
        keeper: Where the rows are kept of what attempts ran themselves.

    Attributes:
        units: The units on their way, by number.
    """

    def __init__(self, host: "Host", keeper: Keeper) -> None:
        self.units: dict[int, Sent] = {}
        self._host = host
        self._keeper = keeper

    def expect(self, number: int, run: "OpenFlowRun", dispatched: Dispatch) -> None:
        """Note that a unit is being submitted."""
        self.units[number] = Sent(run, dispatched)
        run.unit_numbers[dispatched.unit] = number
        forget(dispatched)

    def take(self, message: UnitMessage) -> None:
        """Account for a message."""
        sent = self.units.get(message.unit)
        if sent is None:
            return
        run, unit = sent.run, sent.dispatched.unit
        if isinstance(message, Began):
            self._host.advance(run, UnitStarted(unit, message.positions, message.at))
            return
        if isinstance(message, Lost):
            self._forget(message.unit)
            self._lost(sent, message)
            return
        report = decode_report(message.report)
        self._keep_spans(sent, report)
        if report.missing:
            self._forget(message.unit)
            for problem in report.missing.values():
                run.say(logging.WARNING, f"{problem}: it is computed again")
            self._without_inputs(sent, missing_inputs(sent.dispatched, report.missing))
            return
        if report.unkept:
            run.large.refused(report.unkept)
        self._note_place(sent, report.positions, report.worker)
        self._keep_logs(sent, report)
        self._keep_nested(sent, report)
        if isinstance(message, Reported):
            self._forget(message.unit)
            self._host.advance(run, unit_ended(unit, report, message.handle))
            self._hand_back(run, unit, report)
            if unit in run.tracker.units:
                self._host.advance(run, UnitLost(unit, incomplete()))
            return
        if report.positions:
            self._host.advance(run, unit_ended(unit, report, None))
        self._hand_back(run, unit, report)

    def _lost(self, sent: Sent, message: Lost) -> None:
        """Account for a unit that broke: what it needs may be lost, or only further away."""
        dispatched, unit = sent.dispatched, sent.dispatched.unit
        lost = lost_inputs(dispatched, message.error, self._host.backend)
        if not lost:
            self._note_place(sent, None, worker_in(message.error.evidence))
            self._host.advance(sent.run, UnitLost(unit, message.error))
            return
        gone: list[Member] = []
        for group, index in lost:
            value = group.values[index]
            if isinstance(value, LargeValue) and value.location:
                group.values[index] = StoredValue(value.location, value.size)
            else:
                gone.append((group, index))
        self._without_inputs(sent, gone)

    def _without_inputs(self, sent: Sent, gone: list["Member"]) -> None:
        """Account for a unit that did not begin; what it needs may be there again by now."""
        unit = sent.dispatched.unit
        if gone:
            self._host.advance(sent.run, InputsLost(unit, gone))
        elif unit in sent.run.tracker.units:
            everything = sorted(sent.run.tracker.units[unit].open)
            self._host.advance(sent.run, UnitHandedBack(unit, everything))

    def _hand_back(self, run: "OpenFlowRun", unit: int, report: Report) -> None:
        if report.handed_back:
            self._host.advance(run, UnitHandedBack(unit, report.handed_back))

    def _keep_nested(self, sent: "Sent", report: Report) -> None:
        """Keep what attempts of a unit ran themselves: it has ended, so nothing follows."""
        run = sent.run
        dispatched = sent.dispatched
        for position, plain in report.nested:
            group, index = dispatched.member(position)
            key = group.key(index)
            where = PlaceRow(run.places.id_of(report.worker), *report.worker)
            own = Batch(run.number, run.row.epoch, places=run.places.take_fresh())
            called = place(run.builder, plain, own, key, where)
            if own:
                self._keeper.commit(run.row, own)
            for row, batches in called:
                number = self._keeper.open_run(row)
                for batch in batches:
                    batch.run = number
                    self._keeper.commit(row, batch)

    def _note_place(self, sent: Sent, positions: Sequence[int] | None, worker: Worker) -> None:
        """Note where members of a unit are, or were; None stands for all that are open there."""
        unit = sent.run.tracker.units.get(sent.dispatched.unit)
        if unit is not None:
            place = sent.run.places.id_of(worker)
            note(sent.dispatched, unit.open if positions is None else positions, unit.open, place)

    def _keep_spans(self, sent: Sent, report: Report) -> None:
        fresh = report.fresh_spans(sent.spans_seen)
        # A report that was overtaken knows of fewer.
        dropped = max(0, report.dropped_spans - sent.dropped_spans)
        if fresh or dropped:
            sent.spans_seen += len(fresh)
            sent.dropped_spans += dropped
            sent.run.batch.spans += fresh
            sent.run.batch.dropped_spans += dropped
            self._host.touch(sent.run)

    def _forget(self, number: int) -> None:
        sent = self.units.pop(number)
        del sent.run.unit_numbers[sent.dispatched.unit]

    def _keep_logs(self, sent: "Sent", report: Report) -> None:
        fresh = report.fresh_logs(sent.logs_seen)
        if not fresh:
            return
        sent.logs_seen += len(fresh)
        for log in fresh:
            group, index = sent.dispatched.member(log.position)
            sent.run.batch.logs.append(
                LogRow(*group.place(index), log.attempt, log.at, log.level, log.logger, log.message)
            )
        self._host.touch(sent.run)
