"""Whole processes, from nothing to their end."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parent


def ours(size: int) -> int:
    return sum(_result(str(SCRIPTS / "one_task.py")) for _ in range(size))


def bare_ray(size: int) -> int:
    return sum(_result(str(SCRIPTS / "bare_ray.py")) for _ in range(size))


def bare_ray_running(size: int) -> int:
    return sum(_result(str(SCRIPTS / "bare_ray_running.py")) for _ in range(size))


def importing(size: int) -> int:
    return sum(_result("-c", "import raysched; print(0)") for _ in range(size))


def nothing(size: int) -> int:
    return sum(_result("-c", "print(0)") for _ in range(size))


def _result(*arguments: str) -> int:
    done = subprocess.run(  # noqa: S603 - scripts of this directory
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return int(done.stdout.splitlines()[-1])
