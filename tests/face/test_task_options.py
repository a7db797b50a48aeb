from collections.abc import Callable
from typing import Any

import pytest

from raysched import (
    InvalidOption,
    RayTaskRunner,
    ThreadPoolTaskRunner,
    exponential_backoff,
    flow,
    task,
)
from raysched.define.options import RAY_OPTIONS


def work(path: str = "", n: int = 0) -> None:
    """Say what it does."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry": 3}, r"'retry'; did you mean 'retry_on' or 'retries'\?"),
        (
            {"num_cpu": 1},
            r"'num_cpu'; did you mean 'num_cpus' or 'num_gpus'\?.*The options are accelerator_type",
        ),
        ({"asset_deps": 1}, r"there is no option 'asset_deps'"),
        ({"max_retries": 3}, r"max_retries is Ray's.*use crash_retries"),
        ({"num_returns": 2}, r"num_returns is Ray's.*return a tuple"),
        ({"retry_exceptions": True}, r"retry_exceptions is Ray's.*retry_on"),
        ({"enable_task_events": True}, r"enable_task_events is Ray's"),
        ({"name": ""}, r"name='': must be a text"),
        ({"name": 3}, r"name=3: must be a text"),
        ({"version": 3}, r"version=3: must be a text"),
        ({"retries": -1}, r"retries=-1: must be an integer, 0 or more"),
        ({"retries": 1.5}, r"retries=1.5: must be an integer"),
        ({"retries": True}, r"retries=True: must be an integer"),
        ({"crash_retries": -1}, r"crash_retries=-1"),
        ({"retry_delay_seconds": -1}, r"retry_delay_seconds=-1: must be seconds"),
        ({"retry_delay_seconds": [1, "x"]}, r"retry_delay_seconds=\[1, 'x'\]: must be seconds"),
        ({"retry_delay_seconds": "fast"}, r"retry_delay_seconds='fast': must be seconds"),
        ({"retry_delay_seconds": [0] * 51}, r"51 delays, more than 50"),
        ({"retry_delay_seconds": lambda _: 1 / 0}, r"raised ZeroDivisionError"),
        ({"retry_jitter_factor": -0.1}, r"retry_jitter_factor=-0.1: must be a number, 0 or more"),
        ({"retry_jitter_factor": float("nan")}, r"retry_jitter_factor=nan"),
        ({"retry_condition_fn": 3}, r"retry_condition_fn=3: must be a function, not int"),
        ({"timeout_seconds": 0}, r"timeout_seconds=0: must be a number of seconds, more than 0"),
        ({"timeout_seconds": "1"}, r"timeout_seconds='1'"),
        ({"max_concurrency": 0}, r"max_concurrency=0: must be an integer, 1 or more"),
        ({"max_parallel": 0}, r"max_parallel=0: must be an integer, 1 or more"),
        ({"batch": 0}, r"batch=0: must be True or False"),
        ({"batch_size": 0}, r"batch_size=0: must be an integer, 1 or more"),
        ({"batch": False, "batch_size": 2}, r"batch_size=2: batch=False has every task run alone"),
        ({"log_prints": 1}, r"log_prints=1: must be True or False"),
        ({"persist_result": "no"}, r"persist_result='no': must be True or False"),
        ({"tags": "one"}, r"tags='one': must be a set of strings: \{'one'\}"),
        ({"tags": 3}, r"tags=3: must be a set of strings"),
        ({"tags": [3]}, r"tags=\[3\]: must be strings"),
        ({"task_run_name": 3}, r"task_run_name=3: must be a template"),
        ({"task_run_name": "{file}"}, r"'\{file\}' names 'file', which is no parameter.*path, n"),
        ({"task_run_name": "{"}, r"'\{' is no template"),
        ({"on_failure": print}, r"on_failure=.*put it in brackets"),
        ({"on_failure": [3]}, r"on_failure=\[3\]: must be a list of functions"),
        ({"on_failure": 3}, r"on_failure=3: must be a list of functions"),
        ({"num_cpus": -1}, r"num_cpus=-1: must be a number of devices, 0 or more"),
        ({"num_gpus": "1"}, r"num_gpus='1'"),
        ({"memory": "2 GXB"}, r"memory='2 GXB': must be bytes.*'2GiB'"),
        ({"memory": "lots"}, r"memory='lots'"),
        ({"memory": 0}, r"memory=0: must be bytes, more than 0"),
        ({"resources": ["a"]}, r"resources=\['a'\]: must be a dict, not list"),
        ({"resources": {"a": -1}}, r"must map names to amounts, 0 or more"),
        ({"resources": {"CPU": 1}}, r"has 'CPU': use num_cpus"),
        ({"label_selector": {"a": 1}}, r"label_selector=.*must map labels to texts"),
        ({"fallback_strategy": {}}, r"fallback_strategy=\{\}: must be a list of dicts"),
        ({"scheduling_strategy": "PACK"}, r"scheduling_strategy='PACK'.*'DEFAULT' or 'SPREAD'"),
        ({"runtime_env": "pip"}, r"runtime_env='pip': must be a dict"),
        ({"accelerator_type": 3}, r"accelerator_type=3: must be a text"),
        ({"max_calls": -1}, r"max_calls=-1: must be an integer"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_mistakes_are_found_at_decoration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        task(**options)(work)


def test_unknown_options_are_found_before_the_function_is_there() -> None:
    with pytest.raises(InvalidOption, match="retries"):
        task(retrys=1)  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="timeout_seconds"):
        flow(timeout=1)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cpus": 1}, r"flow 'work': there is no option 'num_cpus'"),
        ({"retry_condition_fn": print}, r"there is no option 'retry_condition_fn'"),
        ({"task_runner": 3}, r"task_runner=3: must be RayTaskRunner"),
        ({"timeout_seconds": -1}, r"timeout_seconds=-1"),
        ({"validate_parameters": "no"}, r"validate_parameters='no'"),
        ({"flow_run_name": ""}, r"flow_run_name=''"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_mistakes_of_flows(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        flow(work, **options)


@pytest.mark.parametrize("decorate", [task, flow], ids=["task", "flow"])
@pytest.mark.parametrize("thing", [3, int, task(work), flow(work)], ids=repr)
def test_only_functions(decorate: Callable[..., Any], thing: Any) -> None:
    with pytest.raises(InvalidOption, match="needs a function"):
        decorate(thing)


def test_defaults() -> None:
    spec = task(work).spec
    assert (spec.name, spec.description, spec.tags, spec.ray) == (
        "work",
        "Say what it does.",
        (),
        {},
    )
    assert (spec.retry.retries, spec.retry.crash_retries, spec.timeout_seconds) == (0, 3, None)


def test_none_is_the_default() -> None:
    every: Any = dict.fromkeys(
        [*RAY_OPTIONS, "retries", "tags", "name", "timeout_seconds", "on_failure"]
    )
    assert task(**every)(work).spec.ray == {}


def test_everything_at_once() -> None:
    def condition(*_: Any) -> bool:
        return True

    spec = task(
        name="n",
        description="d",
        version="v",
        tags=["b", "a", "b"],
        task_run_name="{path}-{n!r:>3}",
        retries=3,
        retry_delay_seconds=[1, 2],
        retry_jitter_factor=0.5,
        retry_condition_fn=condition,
        crash_retries=0,
        timeout_seconds=5,
        max_concurrency=4,
        log_prints=True,
        persist_result=False,
        num_cpus=0.5,
        memory="2GiB",
        resources={"disk": 1},
        label_selector={"zone": "!a"},
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": {}},
    )(work).spec
    assert (spec.name, spec.description, spec.version, spec.tags) == ("n", "d", "v", ("a", "b"))
    assert spec.retry.delays == (1.0, 2.0)
    assert (spec.retry.retries, spec.retry.jitter_factor, spec.retry.crash_retries) == (3, 0.5, 0)
    assert spec.retry.condition is condition
    assert (spec.timeout_seconds, spec.max_concurrency) == (5.0, 4)
    assert (spec.log_prints, spec.persist_result) == (True, False)
    assert spec.ray == {
        "num_cpus": 0.5,
        "memory": 2 * 1024**3,
        "resources": {"disk": 1},
        "label_selector": {"zone": "!a"},
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": {}},
    }


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        (1000, 1000),
        ("500 MB", 500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("64", 64),
        (2e9, 2 * 10**9),
    ],
)
def test_memory(memory: Any, size: int) -> None:
    assert task(work, memory=memory).spec.ray == {"memory": size}


@pytest.mark.parametrize(
    ("given", "delays"),
    [
        (2, (2.0,)),
        ([1, 2, 3], (1.0, 2.0, 3.0)),
        ((1, 2), (1.0, 2.0)),
        (exponential_backoff(10), (10.0, 20.0, 40.0)),
        (range, (0.0, 1.0, 2.0)),
    ],
    ids=["number", "list", "tuple", "backoff", "function"],
)
def test_delays(given: Any, delays: tuple[float, ...]) -> None:
    assert task(work, retries=3, retry_delay_seconds=given).spec.retry.delays == delays


def test_backoff_stops_at_fifty() -> None:
    assert len(exponential_backoff(1)(100)) == 50


class TestWithOptions:
    def test_changes_some(self) -> None:
        base = task(work, retries=2, name="base", num_cpus=2)
        changed = base.with_options(retries=5, num_cpus=None)
        assert (changed.spec.retry.retries, changed.name) == (5, "base")
        assert changed.spec.ray == {"num_cpus": 2}
        assert base.spec.retry.retries == 2

    def test_checks(self) -> None:
        with pytest.raises(InvalidOption, match=r"task 'work': retries=-1"):
            task(work).with_options(retries=-1)

    def test_of_flows(self) -> None:
        changed = flow(work, timeout_seconds=3).with_options(retries=1)
        assert (changed.spec.timeout_seconds, changed.spec.retry.retries) == (3.0, 1)


class TestTaskRunners:
    def test_limit(self) -> None:
        assert flow(work, task_runner=ThreadPoolTaskRunner(3)).spec.max_parallel == 3
        assert flow(work, task_runner=ThreadPoolTaskRunner).spec.max_parallel is None
        assert flow(work, max_parallel=3).spec.max_parallel == 3

    @pytest.mark.parametrize(("own", "of_runner"), [(2, 5), (5, 2)])
    def test_limits_of_flow_and_runner_hold_both(self, own: int, of_runner: int) -> None:
        limited = flow(work, max_parallel=own, task_runner=ThreadPoolTaskRunner(of_runner))
        assert limited.spec.max_parallel == 2

    def test_impossible_limit_of_a_flow(self) -> None:
        with pytest.raises(InvalidOption, match=r"flow 'work': max_parallel=0: must be an integer"):
            flow(work, max_parallel=0)

    def test_address(self) -> None:
        runner = RayTaskRunner("auto", {"namespace": "n"})
        spec = flow(work, task_runner=runner).spec
        assert (spec.address, spec.init_kwargs) == ("auto", {"namespace": "n"})

    @pytest.mark.parametrize("workers", [0, -1, 1.5, True])
    def test_impossible_limit(self, workers: Any) -> None:
        with pytest.raises(InvalidOption, match="max_workers="):
            ThreadPoolTaskRunner(max_workers=workers)

    def test_impossible_address(self) -> None:
        with pytest.raises(InvalidOption, match="address=''"):
            RayTaskRunner("")
        with pytest.raises(InvalidOption, match="init_kwargs=3"):
            RayTaskRunner(init_kwargs=3)  # type: ignore[arg-type]


def test_reserved_parameter_names() -> None:
    with pytest.raises(InvalidOption, match=r"cannot be named 'return_state'"):
        task(lambda return_state: return_state)


def test_methods_that_are_not_here() -> None:
    some: Any = task(work)
    with pytest.raises(AttributeError, match=r"no \.delay: use \.submit"):
        some.delay()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = some.nonsense


@pytest.mark.parametrize("given", ["json", "compressed/parquet", None])
def test_result_serializers(given: Any) -> None:
    assert task(result_serializer=given)(work).spec.result_serializer == (given or "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("jsn", "did you mean 'json'"),
        ("compressed/arow", "did you mean 'compressed/arrow'"),
        ("compressed", "The serializers are pickle, json, arrow, parquet, compressed/pickle"),
        (3, "result_serializer=3: there is no such serializer"),
    ],
)
def test_unknown_result_serializers(given: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        task(result_serializer=given)(work)
