"""Task runs of all kinds on Ray, side by side."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from raysched import (
    InvalidOption,
    SerializationError,
    StateType,
    flow,
    get_run,
    runtime,
    task,
    wait,
)

pytestmark = pytest.mark.usefixtures("on_ray")


def test_results_from_nothing_to_100_megabytes() -> None:
    sizes = [0, 1, 1000, 40_000, 1_000_000, 100_000_000]

    @task
    def make(size: int) -> bytes | None:
        return b"x" * size if size else None

    @task
    def measure(data: bytes | None) -> int:
        return len(data or b"")

    @flow
    def all_sizes() -> tuple[list[int], list[int]]:
        made = make.map(sizes)
        return measure.map(made).result(), [len(one.result() or b"") for one in made]

    assert all_sizes() == (sizes, sizes)


def test_a_task_that_prints_a_lot() -> None:
    lines = 100_000

    @task(log_prints=True)
    def print_many() -> int:
        for number in range(lines):
            print("line", number)  # noqa: T201 - what it is about
        return lines

    @task
    def quick(number: int) -> int:
        return number

    @flow
    def beside_it() -> int:
        printed = print_many.submit()
        return sum(quick.map(range(200)).result()) + printed.result()

    assert beside_it() == sum(range(200)) + lines
    messages = [log.message for log in get_run("last")["print_many"][0].logs]
    dropped = [message for message in messages if "dropped" in message]
    # What the driver cannot take is counted, never lost without a word.
    missing = sum(int(message.split()[0]) for message in dropped)
    assert len(messages) - len(dropped) + missing == lines
    assert messages[:3] == ["line 0", "line 1", "line 2"]


class TestForks:
    def test_threads(self) -> None:
        @task
        def with_threads(number: int) -> int:
            sums: list[int] = []
            threads = [threading.Thread(target=sums.append, args=(number,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sum(sums)

        @flow
        def many() -> int:
            return sum(with_threads.map(range(100)).result())

        assert many() == 4 * sum(range(100))

    def test_processes(self) -> None:
        @task
        def with_process(number: int) -> tuple[int, str]:
            child = os.fork()
            if child == 0:
                os._exit(number)
            _, status = os.waitpid(child, 0)
            echo = subprocess.run(
                [sys.executable, "-c", f"print({number})"],
                capture_output=True,
                text=True,
                check=True,
            )
            return os.waitstatus_to_exitcode(status), echo.stdout.strip()

        @flow
        def several() -> list[tuple[int, str]]:
            return with_process.map(range(10)).result()

        assert several() == [(number, str(number)) for number in range(10)]


def test_resources_of_all_sizes() -> None:
    @task(num_cpus=0.1)
    def light(number: int) -> int:
        return number

    @task(num_cpus=2)
    def heavy(number: int) -> int:
        return number

    @flow
    def side_by_side() -> int:
        lights, heavies = light.map(range(100)), heavy.map(range(10))
        mixed = light.map(heavy.map(range(10)))
        return sum(sum(futures.result()) for futures in (lights, heavies, mixed))

    assert side_by_side() == sum(range(100)) + 2 * sum(range(10))


def test_asynchronous_tasks() -> None:
    @task
    async def later(number: int) -> int:
        await asyncio.sleep(0.1)
        return number

    @task
    def quick(number: int) -> int:
        return number + 1

    @flow
    def waits() -> int:
        return sum(quick.map(later.map(range(200))).result())

    assert waits() == sum(range(1, 201))


class TestOneOfManyInAUnit:
    def test_that_takes_too_long(self) -> None:
        @task(timeout_seconds=1, batch_size=50)
        def slow(number: int) -> int:
            if number == 25:
                time.sleep(60)
            return number

        @flow
        def fifty() -> None:
            wait(slow.map(range(50)))

        fifty(return_state=True)
        states = [run.state.type for run in get_run("last")["slow"]]
        assert states.pop(25) is StateType.TIMED_OUT
        assert set(states) == {StateType.COMPLETED}

    def test_that_is_running_when_the_flow_is_cancelled(self) -> None:
        @task(batch_size=50)
        def slow(number: int) -> int:
            if number == 25:
                time.sleep(60)
            return number

        @flow
        def fifty() -> None:
            futures = slow.map(range(50))
            # Those behind it are handed back, and run elsewhere.
            wait([each for number, each in enumerate(futures) if number != 25])
            get_run(str(runtime.flow_run.id)).cancel()
            futures.wait()

        assert fifty(return_state=True).type is StateType.CANCELLED
        states = [run.state.type for run in get_run("last")["slow"]]
        assert [number for number in range(50) if states[number] is StateType.CANCELLED] == [25]
        assert states.count(StateType.COMPLETED) == 49


def test_generators_are_refused() -> None:
    def rows(number: int) -> Any:
        yield number

    async def rows_async(number: int) -> Any:
        yield number

    for fn in (rows, rows_async):
        with pytest.raises(InvalidOption, match="generator: return a list instead of yielding"):
            task(fn)

    @task
    def hidden(number: int) -> Any:
        return (row for row in range(number))

    with pytest.raises(SerializationError, match="generator, which cannot leave the worker"):
        flow(lambda: hidden(3), name="hiding")()
