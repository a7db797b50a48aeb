"""What carries task runs breaks: nodes, memory, the file system of the object store."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from faults.cluster import ENVIRONMENT, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.drivers import Place

NODES = """
from common import *

ELSEWHERE = {"resources": {"elsewhere": 1}}

@task(persist_result=False, **ELSEWHERE)
def make(number):
    mark(f"making-{number}-{time.monotonic_ns()}")
    return bytes([number]) * 5_000_000

@task(retries=0, crash_retries=1, **ELSEWHERE)
def linger():
    if not (HERE / "lingering").exists():
        mark("lingering")
        time.sleep(600)
    return "done"

@task(crash_retries=0, **ELSEWHERE)
def perish():
    mark("perishing")
    time.sleep(600)

@task(resources={"other": 1})
def total(parts):
    return [part[0] * len(part) for part in parts]

@flow
def nodes():
    made = make.map([1, 2])
    made.wait()
    lingering = linger.submit()
    perishing = perish.submit()
    mark("made")
    wait_for("go")
    totals = total.submit(made).result()
    perishing.result(raise_on_failure=False)
    (HERE / "total").write_text(f"{totals} {lingering.result()}")
"""

HOG = """
from common import *

@task(retries=5, crash_retries=0)
def hog():
    held = []
    # Bounded: more than the limit of this test's Ray, far less than the machine has.
    for _ in range(20):
        held.append(b"x" * (200 * 1024**2))
        time.sleep(0.05)
    time.sleep(5)

@flow
def hogging():
    hog.submit().wait()
"""

FULL = """
from common import *
from raysched import RayTaskRunner

DISK = str(HERE / "disk")

@task
def fill(size):
    return bytes(size)

@flow(task_runner=RayTaskRunner(
    init_kwargs={"_plasma_directory": DISK, "object_store_memory": 80 * 1024**2}
))
def filling():
    double.submit(1).result()
    with open(DISK + "/filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**20))
        except OSError:
            pass
    fill.submit(30_000_000).wait()
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    yield found
    found.close()


def only(place: Place, name: str) -> dict[str, Any]:
    """Return the only task run of a task."""
    (found,) = [each for each in place.show()["task_runs"] if each["name"] == name]
    return dict(found)


def test_death_of_a_node(place: Place, cluster: Cluster) -> None:
    """With an attempt that runs there, and with values that are needed later."""
    place.environment |= ENVIRONMENT | {
        "RAYSCHED_BACKEND": "ray",
        "RAYSCHED_ADDRESS": cluster.address,
    }
    cluster.add("other")
    node = cluster.add("elsewhere")
    place.write(NODES)
    driver = place.run("flows.py:nodes")
    place.until_marked("made")
    place.until_marked("lingering")
    place.until_running("linger[0]")
    place.until_running("perish[0]")
    cluster.kill(node)
    cluster.add("elsewhere")
    (place.path / "go").touch()
    assert driver.finish() == 0, driver.output
    assert (place.path / "total").read_text() == "[5000000, 10000000] done"
    run = place.show()
    assert run["state"] == "COMPLETED"
    assert only(place, "linger")["attempts"] == 2
    error = only(place, "perish")["error"]
    assert (error["class"], error["kind"]) == ("infrastructure", "node died")
    assert error["evidence"]["node_id"] in error["message"]
    # Made once more for whoever needed them, which is no failure of theirs.
    assert [each["state"] for each in run["task_runs"] if each["name"] == "make"] == [
        "COMPLETED"
    ] * 2
    assert len(list(place.path.glob("making-1-*"))) == 2
    assert only(place, "total")["state"] == "COMPLETED"
    assert ("node removed", error["evidence"]["node_id"]) in [
        (each["kind"], each["attributes"].get("node_id")) for each in place.look("events", "last")
    ]


def test_out_of_memory(own_ray_place: Place) -> None:
    memory = psutil.virtual_memory()
    limit = memory.total - memory.available + 1.5 * 1024**3
    own_ray_place.environment |= {
        "RAY_memory_usage_threshold": str(limit / memory.total),
        "RAY_memory_monitor_refresh_ms": "50",
    }
    own_ray_place.write(HOG)
    driver = own_ray_place.run("flows.py:hogging")
    assert driver.finish() == 1, driver.output
    hog = only(own_ray_place, "hog")
    assert (hog["state"], hog["attempts"]) == ("CRASHED", 1)
    error = hog["error"]
    assert (error["class"], error["kind"]) == ("infrastructure", "out of memory")
    evidence = error["evidence"]
    assert evidence["used_bytes"] > evidence["allowed_bytes"] > 1024**3
    assert len(evidence["worker_id"]) == len(evidence["node_id"])
    assert "ran out of memory" in error["message"]
    assert "ray::hog" in error["message"]
    (event,) = own_ray_place.look("events", "last")
    assert event["kind"] == "out of memory"
    for name in ("used_bytes", "allowed_bytes", "worker_id", "node_id", "pid"):
        assert event["attributes"][name] == evidence[name]


@pytest.fixture
def small_disk(own_ray_place: Place) -> Iterator[Path]:
    """A file system of 120 MiB for the object store."""
    disk = own_ray_place.path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield disk
    for driver in own_ray_place.drivers:
        driver.close()
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_file_system_of_the_object_store(own_ray_place: Place, small_disk: Path) -> None:
    """Ray's node dies of it: the run ends, whole, and what has ended it is said."""
    own_ray_place.environment |= {
        key: value for key, value in ENVIRONMENT.items() if "health" in key
    }
    own_ray_place.write(FULL)
    driver = own_ray_place.run("flows.py:filling")
    assert driver.finish() == 1, driver.output
    assert f"{small_disk}, where its object store lies, is full" in " ".join(driver.output.split())
    assert own_ray_place.look("runs")[0]["state"] == "CRASHED"
    assert own_ray_place.states()["double[0]"] == "COMPLETED"
    assert "RUNNING" not in own_ray_place.states().values()
