"""`raysched bench`: the benchmarks of the checkout that this raysched runs from."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from raysched.errors import UsageError

ROOT = Path(__file__).parents[2]


def run_benchmarks(arguments: Sequence[str]) -> NoReturn:
    """Become the process of the benchmarks.

    Raises:
        UsageError: raysched was installed without them.
    """
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        raise UsageError(
            "the benchmarks do not come with the installed package: clone the repository, "
            'and in it run `pip install -e ".[bench]"` and again `raysched bench`'
        )
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # -P: a directory of that name where the user stands is not meant.
    command = [sys.executable, "-P", "-m", "benchmarks", *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606 - needs no shell
