"""`raysched up`, `down` and `status`: the Ray that is kept running between runs."""

import os
from datetime import UTC, datetime
from typing import Any

from raysched.cli.jaeger import jaeger_record
from raysched.cli.jaeger import tell_status as tell_of_jaeger
from raysched.cli.output import console, duration, noun, print_json, say
from raysched.cli.records import iso
from raysched.client.jaeger import look_at_jaeger
from raysched.client.kept_ray import Look, end_ray, look_at_ray, start_ray

FAILURE = 1

GIBIBYTE = 1024**3

ADDRESSES = ("RAYSCHED_ADDRESS", "RAY_ADDRESS")
"""Variables that lead runs elsewhere."""


def bring_up(
    num_cpus: int | None,
    num_gpus: int | None,
    object_store_memory: str | None,
    *,
    dashboard: bool,
    as_json: bool,
) -> None:
    """Start a Ray that is kept, and tell where it is.

    Raises:
        InvalidOption: An option has an impossible value.
        BackendError: It does not start, or another one is there.
    """
    with console(stderr=True).status("Starting Ray"):
        fresh = start_ray(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            object_store_memory=object_store_memory,
            dashboard=dashboard,
        )
        seen = look_at_ray()
    if as_json:
        print_json(_record(seen))
        return
    say(("✔ ", "green"), "Ray is up" if fresh else "Ray is up already")
    if seen is not None:
        _print(seen)
    say()
    say("Runs without an address use it from now on; raysched down ends it.")
    _warn_of_addresses()


def take_down(*, force: bool, as_json: bool) -> None:
    """End the Ray that is kept, and tell so.

    Raises:
        BackendError: Programs are connected, or its record cannot be read or removed.
    """
    with console(stderr=True).status("Ending Ray"):
        seen = end_ray(force=force)
    if as_json:
        print_json({"ended": seen is not None})
    elif seen is None:
        say("There is no Ray to end: none was started by raysched up.")
    elif seen.problem:
        say(("✔ ", "green"), f"Cleared up the Ray at {seen.kept.address}: {seen.problem}")
    else:
        under = f" under {noun(len(seen.drivers), 'program')}" if seen.drivers else ""
        say(("✔ ", "green"), f"Ended the Ray at {seen.kept.address}{under}")


def tell_status(*, as_json: bool) -> int:
    """Print what there is to be seen of what is kept: Ray, and Jaeger where it was started.

    Returns:
        The exit code, which is about Ray.

    Raises:
        BackendError: The record of the Ray cannot be read.
        TelemetryError: The record of the Jaeger cannot be read.
    """
    seen = look_at_ray()
    is_up = seen is not None and not seen.problem
    if as_json:
        print_json({**_record(seen), "jaeger": jaeger_record(look_at_jaeger())})
    elif seen is None:
        say("No Ray is kept, each run starts one of its own.")
        say("raysched up starts one that later runs find by themselves.")
    elif seen.problem:
        say(("✘ ", "bold red"), f"The Ray at {seen.kept.address} is not used: {seen.problem}")
        say("raysched down clears up, and raysched up then starts a fresh one.")
    else:
        say(("✔ ", "green"), "Ray is up")
        _print(seen)
        _warn_of_addresses()
    if not as_json:
        tell_of_jaeger()
    return 0 if is_up else FAILURE


def _print(seen: Look) -> None:
    kept = seen.kept
    rows = {
        "address": f"{kept.address}, for this user on this machine only",
        "version": f"Ray {kept.ray_version} in {kept.prefix}",
        "up for": duration(datetime.now(UTC).timestamp() - kept.created),
        "nodes": f"{len(seen.nodes):,}",
        "in use": ", ".join(_uses(seen)),
        "memory": f"{seen.held / GIBIBYTE:.1f} GiB held by its processes",
        "programs": "\n".join(f"{each.pid}  {each.command}" for each in seen.drivers) or "none",
        "dashboard": seen.dashboard,
    }
    for name, text in rows.items():
        for position, line in enumerate(text.splitlines()):
            say((f"  {name if position == 0 else '':10}", "dim"), line)


def _uses(seen: Look) -> list[str]:
    """Return `1 of 2 CPUs`, `0 of 1 GPU`, `0.5 of 16.0 GiB`: what tasks have asked for."""
    total, used = _resources(seen)
    uses = [
        f"{used[name]:g} of {noun(round(total[name]), name)}"
        for name in ("CPU", "GPU")
        if total.get(name)
    ]
    memory, asked = total.get("memory", 0), used.get("memory", 0)
    return [*uses, f"{asked / GIBIBYTE:.1f} of {memory / GIBIBYTE:.1f} GiB asked for by tasks"]


def _resources(seen: Look) -> tuple[dict[str, float], dict[str, float]]:
    """Return what all nodes have, and how much of it tasks hold, by resource."""
    total: dict[str, float] = {}
    used: dict[str, float] = {}
    for node in seen.nodes:
        for name, amount in node.total.items():
            # Ray's mark of one node, of which every node has 1.
            if not name.startswith("node:"):
                total[name] = total.get(name, 0) + amount
                used[name] = used.get(name, 0) + amount - node.available.get(name, 0)
    return total, used


def _warn_of_addresses() -> None:
    for name in ADDRESSES:
        if os.environ.get(name):
            say((f"{name} is set: runs go there, unless it is unset.", "yellow"))


def _record(seen: Look | None) -> dict[str, Any]:
    if seen is None:
        return {"up": False, "problem": "none was started", "address": None}
    total, used = _resources(seen)
    return {
        "up": not seen.problem,
        "problem": seen.problem,
        "address": seen.kept.address,
        "started": iso(_moment(seen.kept.created)),
        "ray_version": seen.kept.ray_version,
        "python_prefix": seen.kept.prefix,
        "auth_token_path": str(seen.kept.token_path),
        "dashboard": seen.dashboard or None,
        "nodes": len(seen.nodes),
        "resources": {name: {"total": total[name], "used": used[name]} for name in sorted(total)},
        "memory_held": seen.held,
        "programs": [
            {"pid": each.pid, "command": each.command, "started": iso(_moment(each.started))}
            for each in seen.drivers
        ],
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
