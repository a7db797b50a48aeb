"""`raysched why` over flows that really failed, inline."""

import json
from pathlib import Path
from typing import Any

import pytest

from raysched import StateType, flow, get_run, task
from raysched.client.why_facts import Cause
from why import stories
from why.around import golden, run, told
from why.golden_texts import TEXTS, text_of


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    """If it differs on purpose: `PYTHONPATH=tests python tests/why/golden_texts.py`."""
    assert text_of(name) == golden(name).read_text(encoding="utf-8")


def only_cause(story: Any) -> Cause:
    (cause,) = run(story).why().causes
    return cause


class TestOneRoot:
    def test_verdict_counts_what_followed_and_what_is_kept(self) -> None:
        why = run(stories.nightly).why()
        assert why.verdict == (
            "1 root failure: `load[17]` KeyError 'usage_facts' → 2 not run, 39 results kept"
        )
        assert (why.failures, why.not_run, why.kept, why.handled) == (1, 2, 39, 0)

    def test_is_located_to_the_line_and_the_index(self) -> None:
        cause = only_cause(stories.nightly)
        assert (cause.key, cause.map_index, cause.map_size) == ("load[17]", 17, 20)
        assert cause.source is not None
        lines = dict(cause.source.lines)
        assert lines[cause.source.line].strip() == 'return table["usage_facts"]'
        assert (cause.source.file, cause.source.remark) == (stories.__file__, "")

    def test_has_the_smallest_part_of_the_graph(self) -> None:
        part = run(stories.nightly).why().part
        assert [(node.task, node.failed, node.not_run) for node in part.nodes] == [
            ("load", 1, 0),
            ("clean", 0, 1),
            ("total", 0, 1),
        ]

    def test_tells_inputs_with_where_they_came_from_but_no_secrets(self) -> None:
        cause = only_cause(stories.nightly)
        inputs = {each.name: (each.preview, each.sources) for each in cause.arguments}
        assert inputs["number"] == ("17", ())
        assert inputs["table"] == ("{'usage': 1}", ("tables[0]",))
        assert "open sesame" not in told("last") + told("last", "--json")

    def test_tells_its_log_records_owner_and_runbook(self) -> None:
        cause = only_cause(stories.nightly)
        assert [line.message for line in cause.logs] == ["loading 17"]
        assert (cause.owner, cause.runbook) == (
            "data@shop.example",
            "https://wiki.example/load",
        )

    def test_counts_how_often_it_was_seen(self) -> None:
        first = run(stories.nightly)
        cause = only_cause(stories.nightly)
        assert cause.seen is not None
        assert (cause.seen.attempts, cause.seen.runs, cause.seen.first_run) == (2, 2, first.id)


class TestSeveralRoots:
    def test_are_told_by_their_causes_with_what_followed_from_each(self) -> None:
        why = run(stories.several).why()
        assert [(cause.key, cause.count, cause.victims) for cause in why.causes] == [
            ("read[0]", 2, {"show": 2}),
            ("fetch[0]", 1, {"show": 1}),
            ("wait[0]", 1, {}),
        ]
        assert why.verdict.startswith("4 root failures of 3 kinds: ")

    def test_source_is_that_of_the_innermost_cause(self) -> None:
        cause = run(stories.several).why().causes[0]
        assert cause.source is not None
        assert dict(cause.source.lines)[cause.source.line].strip() == 'return {"a": "b"}[path]'
        assert "direct cause of the following exception" in cause.traceback

    def test_each_attempt_is_told_and_why_there_was_no_further_one(self) -> None:
        cause = run(stories.several).why().causes[1]
        assert [(each.number, each.decision) for each in cause.attempts][:2] == [
            (1, "tried again"),
            (2, "tried again"),
        ]
        assert cause.stopped == cause.attempts[-1].decision != ""

    def test_max_failures_has_roots_and_victims_in_one_group(self) -> None:
        why = run(stories.stopped).why()
        (node,) = why.part.nodes
        assert node.failed + node.not_run == 40
        assert (why.failures, why.not_run) == (node.failed, node.not_run)
        ((reason, count),) = why.reasons.items()
        assert reason.startswith("max_failures=3")
        assert count == node.not_run
        assert why.part.links == ()


class TestGoodEnd:
    def test_handled_failures_and_fallbacks_are_told(self) -> None:
        why = run(stories.handled).why()
        assert (why.state, why.handled, why.failures) == (StateType.COMPLETED, 2, 2)
        assert [(cause.key, cause.state) for cause in why.causes] == [
            ("fetch[0]", StateType.FAILED),
            ("optional[0]", StateType.COMPLETED),
        ]

    def test_of_nothing_but_successes_is_a_line(self) -> None:
        why = run(stories.fine).why()
        assert (why.verdict, why.causes, why.steps) == ("nothing failed: 1 result kept", (), ())


class TestFlowFunction:
    def test_its_own_exception_is_a_cause(self) -> None:
        cause = only_cause(stories.own)
        assert (cause.key, cause.said) == ("", "LookupError: no such month")
        assert cause.source is not None
        assert cause.source.function == "own"

    def test_it_is_none_where_it_only_let_through_what_a_task_raised(self) -> None:
        @flow
        def letting_through() -> str:
            return stories.fetch.with_options(retries=0).submit("c").result()

        cause = only_cause(letting_through)
        assert cause.key == "fetch[0]"

    def test_what_a_subflow_failed_of_is_told_with_it(self) -> None:
        why = run(stories.around).why()
        (inner,) = why.subflows
        assert (inner.flow, len(inner.causes), why.causes) == ("several", 3, ())
        assert why.verdict.startswith("1 subflow failed: `several`, 4 root failures")


class TestLastSuccess:
    def test_what_differs_is_told(self) -> None:
        @task
        def halve(number: int) -> float:
            return 1 / (number - 3)

        @flow
        def halving(size: int = 3, note: str = "same") -> list[float]:
            return halve.map(range(size)).result()

        completed = run(halving)
        run(lambda: halving(5))
        comparison = get_run("last").why().comparison
        assert comparison is not None
        assert comparison.run == completed.id
        changes = {each.what: (each.before, each.now) for each in comparison.changes}
        assert changes["parameter size"] == ("3", "5")
        assert changes["task runs of halve"] == ("3", "5")
        assert "parameter note" not in changes
        assert any("hash" in text for text in comparison.unknown)

    def test_is_none_where_there_was_none(self) -> None:
        assert run(stories.nightly).why().comparison is None


class TestSource:
    def test_that_changed_since_is_not_shown(self, home: Path) -> None:
        file = home / "moving.py"
        file.write_text(
            "from raysched import flow, task\n@task\ndef fall():\n    raise ValueError('x')\n"
            "@flow\ndef falling():\n    fall()\n",
            encoding="utf-8",
        )
        names: dict[str, Any] = {}
        exec(compile(file.read_text(), str(file), "exec"), names)  # noqa: S102 - a flow of ours
        failed = run(names["falling"])
        before = failed.why().causes[0].source
        assert before is not None
        assert dict(before.lines)[3] == "def fall():"
        file.write_text("# new\n" * 20, encoding="utf-8")
        after = failed.why().causes[0].source
        assert after is not None
        assert "another line stands there now" in after.remark
        assert not any("new" in text for _, text in after.lines)
        file.unlink()
        gone = failed.why().causes[0].source
        assert gone is not None
        assert gone.remark == "the file is not on this machine"


class TestSteps:
    def test_name_commands_that_there_are(self) -> None:
        commands = [step.command for step in run(stories.nightly).why().steps]
        names = {command.split()[1] for command in commands}
        assert names <= {"resume", "debug", "logs", "why", "cancel"}
        assert any(command.endswith("'load[17]'") for command in commands)


def test_json_is_one_document_with_the_verdict() -> None:
    run(stories.several)
    record = json.loads(told("last", "--json"))
    assert record["verdict"] == get_run("last").why().verdict
    assert [cause["key"] for cause in record["causes"]] == ["read[0]", "fetch[0]", "wait[0]"]
