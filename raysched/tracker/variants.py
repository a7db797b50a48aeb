"""What an attempt runs with, where that is not what its group runs with."""

from dataclasses import replace

from raysched.model.options import TaskSpec
from raysched.policies.resources import ray_options
from raysched.tracker.run import Node, Run


def choose_variant(run: Run, node: Node, index: int) -> None:
    """Decide what the next attempt of a member asks Ray for."""
    spec = node.group.spec
    if index in node.fell_back or not (spec.ray_by_attempt or spec.retry.on_oom):
        return
    attempt = node.group.attempts[index] - node.group.spent(index) + 1
    kills = node.memory_kills.get(index, 0)
    options = ray_options(spec, attempt, kills)
    if options == spec.ray:
        node.variants.pop(index, None)
        return
    key = spec, repr(sorted(options.items()))
    if key not in run.variants:
        run.variants[key] = replace(spec, ray=options)
    node.variants[index] = run.variants[key]


def fallback_variant(run: Run, spec: TaskSpec) -> TaskSpec:
    """Return what the fallback of a task runs as: with its own options, under the task's name."""
    key = spec, "fallback"
    if key not in run.variants:
        assert spec.fallback is not None  # noqa: S101 - the caller has looked
        assert spec.fallback.spec is not None  # noqa: S101 - otherwise there is a value
        run.variants[key] = replace(
            spec.fallback.spec,
            name=spec.name,
            task_run_name=spec.task_run_name,
            tags=spec.tags,
            retry=replace(spec.fallback.spec.retry, retries=0, condition=None, retry_on=None),
        )
    return run.variants[key]
