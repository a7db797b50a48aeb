"""What Ray is asked for, attempt by attempt."""

from collections.abc import Mapping
from typing import Any

from raysched.model.options import TaskSpec


def ray_options(spec: TaskSpec, attempt: int, memory_kills: int) -> Mapping[str, Any]:
    """Return Ray's options for an attempt.

    Args:
        spec: The task.
        attempt: Number of the attempt, from 1.
        memory_kills: How many attempts before it were killed for memory; `on_oom` multiplies
            `memory` (bytes) by its factor for each of them, up to its limit.
    """
    options = spec.ray
    if spec.ray_by_attempt:
        options = spec.ray_by_attempt[min(attempt, len(spec.ray_by_attempt)) - 1]
    escalation = spec.retry.on_oom
    if escalation is None or not memory_kills:
        return options
    memory = int(options["memory"] * escalation.factor**memory_kills)
    return {**options, "memory": max(options["memory"], min(memory, escalation.up_to))}
