"""What holds of every trace, whatever was traced."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from sqlite3 import connect

from opentelemetry.proto.trace.v1.trace_pb2 import Span

_TASK_RUNS = """
SELECT task, count(*), sum(attempts) FROM task_run JOIN task_group
ON task_group.run = task_run.run AND task_group.id = task_run.grp GROUP BY task
"""


def check_tree(spans: list[Span], linked: bytes = b"") -> None:
    """Check that spans are one trace without orphans, each within the time of the one above."""
    assert len({span.trace_id for span in spans}) == 1
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        above = by_id.get(span.parent_span_id)
        assert (above is None) == (not span.parent_span_id), span
        if above is not None:
            assert above.start_time_unix_nano <= span.start_time_unix_nano, span
            assert span.end_time_unix_nano <= above.end_time_unix_nano, span
        for link in span.links:
            there = (
                link.span_id in by_id if link.trace_id == span.trace_id else link.trace_id == linked
            )
            assert there, span


def kept_names(database: Path) -> Counter[str]:
    """Return the names of the spans that the rows of a database stand for, without folding.

    All of its runs had one execution, and all of its task runs have ended.
    """
    names: Counter[str] = Counter()
    connection = connect(database)
    for task, task_runs, attempts in connection.execute(_TASK_RUNS):
        names[f"task {task}"] = task_runs
        names[f"run {task}"] = attempts
    for flow, number in connection.execute("SELECT flow, count(*) FROM flow_run GROUP BY flow"):
        names[f"flow {flow}"] = number
    connection.close()
    return +names


def own_names(spans: Iterable[Span]) -> Counter[str]:
    """Return how often there is each name of our own: a word, a space, a name."""
    return Counter(span.name for span in spans if " " in span.name)
