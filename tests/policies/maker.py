"""A process that needs the result of a cache key: what tests start several of, and kill.

`maker.py DIRECTORY`: writes a line to `began` when the result is being made, which takes until
there is a file `go`, and says what it got.
"""

import sys
import time
from pathlib import Path

from raysched import INPUTS, flow, task


@task(cache_policy=INPUTS)
def make(directory: str) -> str:
    with Path(directory, "began").open("a") as began:
        began.write("x\n")
    while not Path(directory, "go").exists():
        time.sleep(0.01)
    return "made"


@flow
def need(directory: str) -> str:
    return make(directory)


if __name__ == "__main__":
    sys.stdout.write(need(sys.argv[1]))
