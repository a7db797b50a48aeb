"""Whole processes, from nothing to their end."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent


def ours(size: int) -> int:
    return _run("one_task.py", size)


def bare_ray(size: int) -> int:
    return _run("bare_ray.py", size)


def _run(script: str, size: int) -> int:
    environment = {key: os.environ[key] for key in os.environ if key != "RAY_ADDRESS"}
    return sum(_result(script, environment) for _ in range(size))


def _result(script: str, environment: dict[str, str]) -> int:
    done = subprocess.run(  # noqa: S603 - scripts of this directory
        [sys.executable, SCRIPTS / script],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return int(done.stdout.splitlines()[-1])
