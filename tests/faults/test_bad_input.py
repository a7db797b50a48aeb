"""Bad input from end to end: one message that names the thing and the way out.

| bad input | tested in |
|---|---|
| a target that does not exist, has no flow, or several | cli/test_target.py |
| a parameter missing, unknown, of the wrong type | cli/test_run.py, cli/test_parameters.py |
| an argument that cannot be pickled | face/test_task_calls.py, face/test_maps.py |
| a result or an exception that cannot be pickled | backends/test_contract.py |
| a future of another run | face/test_task_calls.py |
| a map over unequal lengths, or over nothing iterable | face/test_maps.py |
| `.submit` outside a flow | face/test_task_calls.py, face/test_maps.py |
| a database that is read-only | store/test_store_refusals.py |
| a database of a newer version | store/test_schema.py |
| a database that is full or locked | store/test_store_refusals.py, faults/test_store_away.py |
| Ray that cannot be reached | backends/test_ray.py |
| Ray that refuses the token; a misspelt Ray option | here; backends/test_ray.py |
| a result that is too large | here |
| a `.result()` whose timeout passes | face/test_task_futures.py |
| an impossible value of `RAYSCHED_*` | here; cli/test_doctor.py |
"""

import pytest

from faults.drivers import Place

FLOWS = """
from common import *

@task
def large(size):
    return bytes(size)

@flow
def enlarging():
    small = large.submit(10)
    return [small.result(), large.submit(10_000).result()]
"""

MISSPELT = """
from raysched import flow, task

@task(num_cpu=1)
def misspelt():
    pass
"""


def refused(place: Place, target: str, code: int, *says: str) -> None:
    """Check that a run ends with a code and a message."""
    driver = place.run(target)
    assert driver.finish() == code, driver.output
    said = " ".join(driver.output.split())
    for text in says:
        assert text in said


def test_result_that_is_too_large(either_place: Place) -> None:
    either_place.environment["RAYSCHED_RESULT_MAX_BYTES"] = "5000"
    either_place.write(FLOWS)
    message = "more than RAYSCHED_RESULT_MAX_BYTES=5,000: save it in the task and return its path"
    refused(either_place, "flows.py:enlarging", 1, "the result of task 'large' has 10,", message)
    assert either_place.states() == {"large[0]": "COMPLETED", "large[1]": "FAILED"}


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_ray_that_refuses_the_token(ray_place: Place, mode: str) -> None:
    ray_place.environment |= {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "wrong"}
    refused(ray_place, "common.py", 1, "refuses the authentication token: set RAY_AUTH_MODE=token")
    assert ray_place.look("runs") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAYSCHED_BACKEND", "dask"),
        ("RAYSCHED_STORE_PATIENCE_SECONDS", "-1"),
        ("RAYSCHED_RESULT_MAX_BYTES", "8GiB"),
    ],
)
def test_impossible_settings(place: Place, name: str, value: str) -> None:
    place.environment[name] = value
    refused(place, "common.py", 2, f"error: {name}: ", "change or unset the variable")


def test_misspelt_ray_option(place: Place) -> None:
    place.write(MISSPELT)
    refused(place, "flows.py", 2, "num_cpu", "did you mean 'num_cpus'", "@task(num_cpu=1)")
