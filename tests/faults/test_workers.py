"""Workers that die in the middle of a task."""

import os
import signal

import psutil

from faults.drivers import Place, is_alive, until

DYING = """
from common import *

# In a unit with what needs it, the first crash would not be charged to it.
@task(crash_retries=1, batch=False)
def die_once(how):
    get_run_logger().warning("last words before %s", how)
    if not (HERE / how).exists():
        mark(how)
        if how == "exit":
            os._exit(0)
        if how == "segfault":
            import ctypes
            ctypes.string_at(0)
        time.sleep(600)
    return how

@task(crash_retries=0)
def die():
    get_run_logger().warning("last words")
    mark("dying")
    time.sleep(600)

@flow
def surviving():
    return [double.submit(how).result() for how in die_once.map(["kill", "exit", "segfault"])]

@flow
def dying():
    end = double.submit(die.submit(), wait_for=[double.submit(1)])
    double.submit(2).wait()
    end.wait()
"""


COUNTING = """
from common import *

@task(retries=5, crash_retries=1)
def die(how):
    mark(f"{how}-{time.monotonic_ns()}")
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        import ctypes
        ctypes.string_at(0)

@flow
def counting():
    die.map(["exit", "kill", "segfault"]).wait()
"""

FAMILY = """
from common import *
import subprocess

@task(batch=False)
def family(how):
    script = f"echo $$ > {HERE}/child-{how}; sleep 600 & echo $! > {HERE}/grandchild-{how}; wait"
    subprocess.Popen(["/bin/sh", "-c", script])
    wait_for(f"grandchild-{how}")
    mark(f"family-{how}")
    if how == "deaf":
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            if how == "polite":
                raise

@flow
def families():
    family.map(["polite", "stubborn", "deaf"]).wait()
"""


def test_attempts_are_as_many_as_declared(ray_place: Place) -> None:
    ray_place.write(COUNTING)
    driver = ray_place.run("flows.py:counting")
    assert driver.finish() == 1, driver.output
    found = {each["key"]: each for each in ray_place.show()["task_runs"]}
    assert {(each["state"], each["attempts"]) for each in found.values()} == {("CRASHED", 2)}
    evidence = [found[f"die[{index}]"]["error"]["evidence"] for index in range(3)]
    assert evidence[0]["exit_code"] == 3
    assert "signal" not in evidence[1]
    assert evidence[2]["signal"] == "SIGSEGV"
    assert "string_at" in evidence[2]["fatal_error"]
    # Each of the three died alone twice, and at most once with others.
    for how in ("exit", "kill", "segfault"):
        assert len(list(ray_place.path.glob(f"{how}-*"))) in {2, 3}


def test_nothing_is_left_after_cancellation(ray_place: Place) -> None:
    """Neither what task runs have started, nor the workers of those that did not react."""
    ray_place.environment["RAYSCHED_TERMINATION_GRACE_SECONDS"] = "1"
    ray_place.write(FAMILY)
    driver = ray_place.run("flows.py:families")
    names = ["polite", "stubborn", "deaf"]
    workers = [int(ray_place.until_marked(f"family-{name}")) for name in names]
    kin = [
        int((ray_place.path / f"{kind}-{name}").read_text())
        for kind in ("child", "grandchild")
        for name in names
    ]
    driver.signal_group(signal.SIGINT)
    assert driver.finish() == 1, driver.output
    assert set(ray_place.states().values()) == {"CANCELLED"}
    until(lambda: not any(is_alive(pid) for pid in (*kin, *workers[1:])), "the end of all")
    assert not [each for each in workers_of(os.getpid()) if each.name() == "ray::family"]


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the processes of the Ray of this session."""
    return psutil.Process(pid).children(recursive=True)


def test_another_attempt_completes_whatever_ended_the_worker(ray_place: Place) -> None:
    ray_place.write(DYING)
    driver = ray_place.run("flows.py:surviving")
    ray_place.kill("kill")
    assert driver.finish() == 0, driver.output
    run = ray_place.show()
    assert run["state"] == "COMPLETED"
    attempts = [each["attempts"] for each in run["task_runs"] if each["name"] == "die_once"]
    assert attempts == [2, 2, 2]
    words = [each for each in ray_place.look("logs", "last") if "last words" in each["message"]]
    assert sorted((each["key"], each["attempt"]) for each in words) == [
        (f"die_once[{index}]", attempt) for index in range(3) for attempt in (1, 2)
    ]
    events = ray_place.look("events", "last")
    assert [each["kind"] for each in events] == ["worker died"] * 3
    # Each in the words that its attempt has, too.
    for how in ("by os._exit(0)", "of SIGSEGV", "without a word, as after SIGKILL"):
        assert len([each for each in events if f"died {how}" in each["message"]]) == 1
    assert len({each["attributes"]["worker_id"] for each in events}) == 3


def test_without_another_attempt_it_is_crashed_and_the_rest_only_followed(ray_place: Place) -> None:
    ray_place.write(DYING)
    driver = ray_place.run("flows.py:dying")
    ray_place.kill("dying")
    assert driver.finish() == 1, driver.output
    run = ray_place.show()
    assert run["state"] == "FAILED"
    assert "Traceback" not in driver.output
    states = ray_place.states()
    assert states == {
        "double[0]": "COMPLETED",
        "die[0]": "CRASHED",
        "double[1]": "UPSTREAM_FAILED",
        "double[2]": "COMPLETED",
    }
    (error,) = [each["error"] for each in run["task_runs"] if each["name"] == "die"]
    assert "the worker process died" in error["message"]
    assert "last words" in ray_place.messages()
