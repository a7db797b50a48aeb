"""A process that takes a run over: what the tests of owners start, race and kill.

`taker.py URL RUN_ID`: opens the database and says `ready`; for each line on standard input it tries
to take the run over, and says `taken` with the epoch, or what was refused. It ends with its input.
"""

import sys

from raysched.errors import StoreError
from raysched.store import open_store
from store.samples import resumed


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(url: str, run_id: str) -> None:
    store = open_store(url)
    say("ready")
    for _ in sys.stdin:
        try:
            say(f"taken {store.take_over(run_id, resumed).row.epoch}")
        except StoreError as error:
            say(f"{type(error).__name__}: {error}")
    store.close()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
