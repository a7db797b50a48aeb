"""Drivers that die, are told to end, or hold the GIL for long."""

import signal
from contextlib import suppress

import psutil
import pytest

from faults.drivers import Driver, Place, is_alive, until

FLOWS = """
from common import *
import asyncio
import re

@task
async def nap(number):
    try:
        mark(f"hanging-{number}")
        await asyncio.sleep(600)
    finally:
        # A second interrupt would come here.
        await asyncio.sleep(0.1)
        mark(f"cleaned-{number}")

@flow
async def sleeping():
    double.map(range(3)).wait()
    await nap(0)

@flow
def computing():
    value = double.submit(1).result()
    mark("computing")
    re.match(r"(x+x+)+y", "x" * 25)  # holds the GIL for seconds
    mark("computed")
    return value

@task
def swallow():
    while True:
        try:
            mark("swallowing")
            time.sleep(600)
        except BaseException:
            mark("swallowed")

@flow
def stubborn():
    swallow.submit().wait()

if __name__ == "__main__":
    hanging()
"""

RAYS_AGENTS = ("Agent", "ray::DashboardA", "ray::RuntimeEnv")
"""In the names of processes, which Linux cuts after 15 characters.

They outlive a killed driver in bare Ray, too, two of them by a minute (Ray 2.60).
"""

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def without_agents(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run and are none of Ray's own agents."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            name = process.name()
            if not any(agent in name for agent in RAYS_AGENTS):
                found.append(process)
    return found


def check_lost(place: Place) -> dict[str, str]:
    """Check that the run is not taken for an open one; return the states of its task runs."""
    (listed,) = place.look("runs")
    assert (listed["state"], listed["message"]) == ("CRASHED", "driver lost")
    assert place.show()["state"] == "CRASHED"
    states = place.states()
    assert [states[f"double[{index}]"] for index in range(3)] == ["COMPLETED"] * 3
    # What had not begun stays SCHEDULED.
    assert set(states.values()) <= {"COMPLETED", "CRASHED", "SCHEDULED"}
    return states


class TestKilled:
    def test_inline(self, place: Place) -> None:
        driver = place.run("common.py")
        place.kill("hanging-0")
        assert driver.finish() == -signal.SIGKILL, driver.output
        check_lost(place)

    def test_nothing_of_its_own_ray_stays_behind(self, own_ray_place: Place) -> None:
        driver = own_ray_place.run("common.py")
        worker = int(own_ray_place.until_marked("hanging-0"))
        own_ray_place.until_running("hang[0]")
        started = without_agents(driver.descendants())
        assert worker in {process.pid for process in started}
        driver.process.kill()
        driver.finish()
        assert check_lost(own_ray_place)["hang[0]"] == "CRASHED"
        until(lambda: not any(is_alive(process.pid) for process in started), "the end of its Ray")

    def test_workers_of_a_cluster_stop(self, ray_place: Place) -> None:
        driver = ray_place.run("common.py")
        worker = int(ray_place.until_marked("hanging-0"))
        ray_place.until_running("hang[0]")
        driver.process.kill()
        driver.finish()
        assert check_lost(ray_place)["hang[0]"] == "CRASHED"
        until(lambda: not is_alive(worker), "the end of its worker")


def check_cancelled(place: Place, driver: Driver, *by: str) -> None:
    run = place.show()
    assert run["state"] == "CANCELLED", driver.output
    assert run["message"].removeprefix("cancelled by ") in by
    assert set(place.states().values()) <= {"COMPLETED", "CANCELLED", "UPSTREAM_FAILED"}
    # Those that were running had their `finally`.
    begun = list(place.path.glob("hanging-[0-9]"))
    assert begun
    for each in begun:
        assert each.with_name(each.name.replace("hanging", "cleaned")).exists()
    assert "Traceback" not in driver.output


class TestCancelled:
    @SIGNALS
    def test_by_a_signal(self, either_place: Place, number: signal.Signals) -> None:
        driver = either_place.run("common.py")
        either_place.until_marked("hanging-0")
        driver.signal_group(number)
        assert driver.finish() == 1, driver.output
        check_cancelled(either_place, driver, "Ctrl-C" if number is signal.SIGINT else "SIGTERM")

    @SIGNALS
    def test_async_flow(self, either_place: Place, number: signal.Signals) -> None:
        either_place.write(FLOWS)
        driver = either_place.run("flows.py:sleeping")
        either_place.until_marked("hanging-0")
        driver.signal_group(number)
        assert driver.finish() == 1, driver.output
        if number is signal.SIGTERM:
            check_cancelled(either_place, driver, "SIGTERM")
        else:
            # Where asyncio waits, it turns Ctrl-C into a cancellation.
            check_cancelled(either_place, driver, "Ctrl-C", "the flow's cancellation")

    def test_script_ends_with_the_code_of_sigterm(self, either_place: Place) -> None:
        either_place.write(FLOWS)
        driver = either_place.start("flows.py")
        either_place.until_marked("hanging-0")
        driver.process.terminate()
        assert driver.finish() == 128 + signal.SIGTERM, driver.output
        check_cancelled(either_place, driver, "SIGTERM")

    def test_script_with_a_handler_of_its_own(self, place: Place) -> None:
        place.write(
            "import signal, sys\nfrom common import hanging\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nhanging()\n"
        )
        place.environment["RAYSCHED_DRAIN_GRACE_SECONDS"] = "0.1"
        driver = place.start("flows.py")
        place.until_marked("hanging-0")
        driver.process.terminate()
        assert driver.finish() == 7, driver.output
        run = place.show()
        assert (run["state"], run["message"]) == ("FAILED", "SystemExit: 7")
        assert set(place.states().values()) <= {"COMPLETED", "CANCELLED", "UPSTREAM_FAILED"}

    def test_twice_does_not_wait_for_tasks_that_swallow_it(self, ray_place: Place) -> None:
        ray_place.write(FLOWS)
        driver = ray_place.run("flows.py:stubborn")
        worker = int(ray_place.until_marked("swallowing"))
        driver.signal_group(signal.SIGINT)
        ray_place.until_marked("swallowed")
        driver.signal_group(signal.SIGINT)
        assert driver.finish() == 1, driver.output
        assert "Stopping at once" in driver.output
        assert ray_place.show()["state"] == "CANCELLED"
        until(lambda: not is_alive(worker), "the end of its worker")


def test_long_hold_of_the_gil_is_not_death(place: Place) -> None:
    place.write(FLOWS)
    driver = place.run("flows.py:computing")
    # Imports what the next ones need, which have to be quicker than it computes.
    place.look("runs")
    place.until_marked("computing")
    seen = set()
    while True:
        (listed,) = place.look("runs")
        if (place.path / "computed").exists():
            break
        seen.add(listed["state"])
    assert seen == {"RUNNING"}
    assert driver.finish() == 0, driver.output
    assert place.show()["state"] == "COMPLETED"
