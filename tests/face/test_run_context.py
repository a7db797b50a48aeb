import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from face.around import in_flow
from raysched import FutureError, InvalidOption, flow, get_run_logger, runtime, tags, task


@task
def task_facts(x: int) -> dict[str, Any]:
    run, around = runtime.task_run, runtime.flow_run
    return {
        "id": run.id,
        "name": run.name,
        "key": run.key,
        "task_name": run.task_name,
        "index": run.index,
        "attempt": run.attempt,
        "run_count": run.run_count,
        "parameters": dict(run.parameters),
        "tags": run.tags,
        "flow_id": around.id,
        "flow_name": around.flow_name,
        "flow_run_name": around.name,
        "flow_parameters": dict(around.parameters),
        "flow_tags": around.tags,
    }


def flow_facts() -> dict[str, Any]:
    run = runtime.flow_run
    return {
        "id": run.id,
        "name": run.name,
        "flow_name": run.flow_name,
        "parameters": dict(run.parameters),
        "tags": run.tags,
        "run_count": run.run_count,
        "task": runtime.task_run.id,
    }


class TestRuntime:
    def test_outside(self) -> None:
        assert flow_facts() == {
            "id": None,
            "name": None,
            "flow_name": None,
            "parameters": {},
            "tags": [],
            "run_count": 0,
            "task": None,
        }
        facts = task_facts(1)
        assert (facts["key"], facts["index"], facts["attempt"], facts["tags"]) == (
            None,
            None,
            0,
            [],
        )

    def test_in_a_flow(self) -> None:
        @flow(name="nightly", flow_run_name="n-{day}")
        def nightly(day: int, more: str = "yes") -> dict[str, Any]:
            return flow_facts()

        with tags("b", "a"):
            facts = nightly(3)
        assert len(facts.pop("id")) == 32
        assert facts == {
            "name": "n-3",
            "flow_name": "nightly",
            "parameters": {"day": 3, "more": "yes"},
            "tags": ["a", "b"],
            "run_count": 1,
            "task": None,
        }

    def test_in_a_task(self) -> None:
        tagged = task_facts.with_options(tags={"t"}, task_run_name="facts-{x}")

        @flow(name="nightly")
        def nightly(day: int) -> Any:
            with tags("c"):
                facts = tagged.map([5, 6]).result()[1]
            return flow_facts(), facts

        around, facts = nightly(3)
        assert facts == {
            "id": f"{around['id']}/task_facts[1]",
            "name": "facts-6",
            "key": "task_facts[1]",
            "task_name": "task_facts",
            "index": 1,
            "attempt": 1,
            "run_count": 1,
            "parameters": {"x": 6},
            "tags": ["c", "t"],
            "flow_id": around["id"],
            "flow_name": "nightly",
            "flow_run_name": around["name"],
            "flow_parameters": {"day": 3},
            "flow_tags": [],
        }

    def test_attempts_are_counted(self) -> None:
        @task(retries=2)
        def flaky() -> int:
            if runtime.task_run.attempt < 3:
                raise ValueError("again")
            return runtime.task_run.run_count

        assert in_flow(flaky) == 3

    def test_in_a_subflow_of_a_task(self) -> None:
        @flow
        def inner() -> Any:
            return flow_facts()

        @task
        def outer() -> Any:
            return inner(), runtime.task_run.key

        facts, key = in_flow(outer)
        assert (facts["flow_name"], facts["task"], key) == ("inner", None, "outer[0]")

    def test_async_tasks_do_not_mix(self) -> None:
        @task
        async def key() -> str | None:
            await asyncio.sleep(0)
            return runtime.task_run.key

        @flow
        async def around() -> list[str | None]:
            return await asyncio.gather(*(key() for _ in range(3)))

        assert asyncio.run(around()) == ["key[0]", "key[1]", "key[2]"]


class TestTags:
    def test_nest(self) -> None:
        with tags("a") as outer, tags("b", "a") as inner:
            assert (outer, inner) == ({"a"}, {"a", "b"})

    def test_end_with_the_block(self) -> None:
        def body() -> Any:
            with tags("a"):
                before = task_facts.submit(1)
            return before.result()["tags"], task_facts(1)["tags"]

        assert flow(body)() == (["a"], [])

    def test_do_not_reach_into_tasks(self) -> None:
        @task
        def outer() -> Any:
            return task_facts(1)["tags"]

        def body() -> Any:
            with tags("a"):
                return outer()

        assert flow(body)() == []

    def test_are_texts(self) -> None:
        with pytest.raises(InvalidOption, match="3 is not a string"), tags(3):  # type: ignore[arg-type]
            pass


class TestLogger:
    def test_outside(self) -> None:
        with pytest.raises(FutureError, match="only works in a flow or a task"):
            get_run_logger()

    @pytest.mark.usefixtures("in_this_process")
    @pytest.mark.parametrize("where", ["flow", "task"])
    def test_writes_to_the_logging_module(
        self, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def say() -> None:
            get_run_logger().info("hello %s", where)

        in_task = task(say, name="say")
        with caplog.at_level(logging.INFO):
            in_flow(say if where == "flow" else in_task)
        assert (f"raysched.{where}_run", f"hello {where}") in [
            (record.name, record.getMessage()) for record in caplog.records
        ]

    def test_prints_are_kept(self, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
        @flow(log_prints=True)
        def chatty() -> None:
            print("flow", "speaks")  # noqa: T201

        @flow
        def plain() -> None:
            print("not kept")  # noqa: T201

        with caplog.at_level(logging.INFO):
            chatty()
            plain()
            print("outside")  # noqa: T201
        messages = [record.getMessage() for record in caplog.records]
        assert "flow speaks" in messages
        assert "not kept" not in messages
        assert capsys.readouterr().out == "not kept\noutside\n"

    @pytest.mark.usefixtures("in_this_process")
    def test_prints_of_tasks_follow_the_flow(self, caplog: pytest.LogCaptureFixture) -> None:
        @task
        def chatty(x: int) -> None:
            print("task speaks", x)  # noqa: T201

        def body() -> None:
            chatty(1)
            chatty.with_options(log_prints=False)(2)

        with caplog.at_level(logging.INFO):
            flow(body, log_prints=True)()
            flow(body)()
        messages = [record.getMessage() for record in caplog.records]
        assert messages.count("task speaks 1") == 1
        assert messages.count("task speaks 2") == 0

    def test_prints_are_kept_beside_other_libraries(self, tmp_path: Path) -> None:
        """As Ray does, which replaces `print` for good when a worker first says something."""
        environment = {
            **os.environ,
            "RAYSCHED_BACKEND": "inline",
            "RAYSCHED_HOME": str(tmp_path),
        }
        script = Path(__file__).with_name("other_prints.py")
        ended = subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, text=True, check=True
        )
        assert ended.stdout == (
            "library: flow speaks 2\nlibrary: outside\ntask 1, flow 1, task 2, task 3, flow 3\n"
        )
