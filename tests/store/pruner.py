"""A process that removes runs: what the tests of housekeeping kill in the middle of it.

`pruner.py URL BEFORE`: says `hidden` when the runs that ended before then (ns) are hidden, and
`deleted` when they are gone.
"""

import sys

from raysched.store import open_housekeeping


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def prune(url: str, before: int) -> None:
    keeper = open_housekeeping(url)
    runs = keeper.hide(keeper.expired(before), before)
    say("hidden")
    keeper.delete(runs)
    say("deleted")
    keeper.close()


if __name__ == "__main__":
    prune(sys.argv[1], int(sys.argv[2]))
