"""What the channel and the final report deliver together: everything, in order, without gaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raysched.model.states import StateType
from raysched.worker.progress import Outcome, UnitProgress
from raysched.worker.protocol import LogRecord, Report, Stage, Unit, decode_report

STEPS = st.lists(
    st.sampled_from(["log", "outcome", "span", "send", "arrive", "acknowledge", "break"]),
    max_size=60,
)

SIZE = 60


def new_progress() -> UnitProgress:
    stage = Stage(
        "task", mapped=False, shared=b"", tags=(), numbers=range(SIZE), attempts=[1] * SIZE
    )
    return UnitProgress(Unit(1, b"", (stage,)), ("node", "worker", 1, "host"))


class Driver:
    """Adds up the reports as the engine does."""

    def __init__(self) -> None:
        self.logs: list[str] = []
        self.spans: list[bytes] = []
        self.positions: list[int] = []

    def take(self, report: Report) -> None:
        assert report.first_log <= len(self.logs), "log records are missing"
        self.logs += [record.message for record in report.fresh_logs(len(self.logs))]
        assert report.first_span <= len(self.spans), "spans are missing"
        self.spans += report.fresh_spans(len(self.spans))
        self.positions += [each for each in report.positions if each not in self.positions]


@given(STEPS)
def test_everything_is_delivered_once_and_in_order(steps: list[str]) -> None:
    progress, driver = new_progress(), Driver()
    logs = outcomes = spans = 0
    ended: list[bytes] = []
    progress.collect = lambda: ([ended.pop(0) for _ in tuple(ended)], 0)
    sent: list[tuple[bytes, int, int, int]] = []
    arrived: list[tuple[int, int, int]] = []
    for step in steps:
        if step == "log":
            progress.log(LogRecord(0, 1, 0, 20, "logger", str(logs)))
            logs += 1
        elif step == "outcome" and outcomes < SIZE:
            progress.end(Outcome(outcomes, StateType.COMPLETED, 1, 2, b"value"))
            outcomes += 1
        elif step == "span":
            ended.append(str(spans).encode())
            spans += 1
        elif step == "send":
            part = progress.take_unsent()
            if part is not None:
                sent.append(part)
        elif step == "arrive" and sent:
            report, *reached = sent.pop(0)
            driver.take(decode_report(report))
            arrived.append((reached[0], reached[1], reached[2]))
        elif step == "break":
            # The channel, with what is on its way in both directions.
            sent.clear()
            arrived.clear()
            progress.send_again()
        elif step == "acknowledge" and arrived:
            progress.acknowledge(*arrived.pop(0))
    driver.take(decode_report(progress.final()))
    assert driver.logs == [str(number) for number in range(logs)]
    assert driver.spans == [str(number).encode() for number in range(spans)]
    assert driver.positions == list(range(outcomes))


@given(STEPS)
def test_final_report_has_all_that_was_not_acknowledged(steps: list[str]) -> None:
    """What was sent and never arrived comes again."""
    progress, driver = new_progress(), Driver()
    logs = spans = 0
    ended: list[bytes] = []
    progress.collect = lambda: ([ended.pop(0) for _ in tuple(ended)], 0)
    for step in steps:
        if step == "log":
            progress.log(LogRecord(0, 1, 0, 20, "logger", str(logs)))
            logs += 1
        elif step == "span":
            ended.append(b"span")
            spans += 1
        elif step == "send":
            progress.take_unsent()
    driver.take(decode_report(progress.final()))
    assert (len(driver.logs), len(driver.spans)) == (logs, spans)


def test_first_outcome_of_an_item_counts() -> None:
    progress = new_progress()
    progress.end(Outcome(0, StateType.TIMED_OUT, 1, 2))
    progress.end(Outcome(0, StateType.COMPLETED, 1, 3))
    report = decode_report(progress.final())
    assert bytes(report.states) == bytes([StateType.TIMED_OUT])


def test_an_outcome_is_not_told_before_what_ran_inside_it() -> None:
    progress = new_progress()
    progress.add_nested(0, {})
    progress.end(Outcome(0, StateType.COMPLETED, 1, 2, b"value"))
    progress.complete(1, 2, 3, b"other", "")
    part = progress.take_unsent()
    assert part is not None
    assert list(decode_report(part[0]).positions) == [1]
    report = decode_report(progress.final())
    assert sorted(report.positions) == [0, 1]
    assert [run.position for run in report.nested] == [0]
