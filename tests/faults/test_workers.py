"""Workers that die in the middle of a task."""

from faults.drivers import Place

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


def test_without_another_attempt_it_is_crashed_and_the_rest_only_followed(ray_place: Place) -> None:
    ray_place.write(DYING)
    driver = ray_place.run("flows.py:dying")
    ray_place.kill("dying")
    assert driver.finish() == 1
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
