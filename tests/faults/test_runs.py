"""Runs that cannot go on, that raise in the middle, and many at once."""

import signal

import pytest

from faults.drivers import Place, until

FLOWS = """
from common import *

@task(num_gpus=1)
def compute(number):
    return number

@flow
def infeasible():
    double.map(range(2)).wait()
    return compute.submit(1).result()

@task
def linger(number):
    mark(f"lingering-{number}")
    wait_for("go")
    return number

@flow
def raising():
    linger.map(range(30))
    wait_for("lingering-0")
    raise ValueError("no more")

@flow
def busy(number: int):
    total = 0
    for step in range(10):
        total += sum(double.map(range(50)).result())
    return total

@flow
def around(number: int):
    return busy(number)
"""


def test_infeasible_resources_are_told_until_ctrl_c(ray_place: Place) -> None:
    ray_place.write(FLOWS)
    driver = ray_place.run("flows.py:infeasible")
    reason = "compute waits: it needs num_gpus=1; the cluster has 0"
    driver.until_said(reason)
    shown = ray_place.start("-m", "raysched", "show", "last")
    assert shown.finish() == 0, shown.output
    assert reason in " ".join(shown.output.split())
    driver.signal_group(signal.SIGINT)
    assert driver.finish() == 1, driver.output
    assert driver.output.count(reason) == 1
    assert ray_place.show()["state"] == "CANCELLED"
    assert ray_place.states()["compute[0]"] == "CANCELLED"


class TestRaising:
    def test_what_runs_may_end_and_what_waits_is_cancelled(self, ray_place: Place) -> None:
        ray_place.write(FLOWS)
        driver = ray_place.run("flows.py:raising")
        ray_place.until_marked("lingering-0")
        until(lambda: "CANCELLED" in ray_place.show()["tasks"], "the end of what waited")
        (ray_place.path / "go").touch()
        assert driver.finish() == 1, driver.output
        run = ray_place.show()
        assert (run["state"], run["message"]) == ("FAILED", "ValueError: no more")
        assert set(run["tasks"]) == {"COMPLETED", "CANCELLED"}
        assert ray_place.states()["linger[0]"] == "COMPLETED"
        assert "linger[29]" not in driver.output

    def test_what_does_not_end_within_the_grace_is_cancelled(self, ray_place: Place) -> None:
        ray_place.environment["RAYSCHED_DRAIN_GRACE_SECONDS"] = "0.1"
        ray_place.write(FLOWS)
        driver = ray_place.run("flows.py:raising")
        assert driver.finish() == 1, driver.output
        run = ray_place.show()
        assert (run["state"], run["message"]) == ("FAILED", "ValueError: no more")
        assert run["tasks"] == {"CANCELLED": 30}


def test_several_drivers_on_one_database(place: Place) -> None:
    place.write(FLOWS)
    drivers = [
        place.run(f"flows.py:{flow}", "-p", f"number={number}")
        for number, flow in enumerate(["busy", "around"] * 2)
    ]
    for driver in drivers:
        assert driver.finish() == 0, driver.output
        assert "locked" not in driver.output
        assert "Traceback" not in driver.output
    runs = place.look("runs")
    assert [run["state"] for run in runs] == ["COMPLETED"] * 4
    assert {run["parameters"]["number"] for run in runs} == {0, 1, 2, 3}


class TestHead:
    """The death of the Ray that a driver started, piece by piece."""

    @pytest.mark.parametrize(
        ("piece", "says", "kept"),
        [
            (
                "raylet",
                "error: the Ray node that this driver is connected to has died",
                "the Ray node that this driver is connected to has died",
            ),
            (
                "gcs_server",
                "does not answer. If it does not come back, Ray ends this program",
                "driver lost",
            ),
        ],
        ids=["raylet", "gcs_server"],
    )
    def test_does_not_hang_the_run(
        self, own_ray_place: Place, piece: str, says: str, kept: str
    ) -> None:
        own_ray_place.environment |= {
            # By default Ray takes 60 s to see the death of the head, and 15 s that of a node.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "2",
            "RAY_health_check_initial_delay_ms": "0",
            "RAY_health_check_period_ms": "300",
            "RAY_health_check_failure_threshold": "5",
        }
        driver = own_ray_place.run("common.py")
        own_ray_place.until_marked("hanging-0")
        own_ray_place.until_running("hang[0]")
        (process,) = [each for each in driver.descendants() if each.name() == piece]
        process.kill()
        assert driver.finish() == 1, driver.output
        assert says in driver.output
        (run,) = own_ray_place.look("runs")
        assert run["state"] == "CRASHED"
        assert run["message"].startswith(kept)
        states = own_ray_place.states()
        assert [states[f"double[{index}]"] for index in range(3)] == ["COMPLETED"] * 3
        assert "RUNNING" not in states.values()
