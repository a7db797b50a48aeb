"""A process that writes one run: what the tests of many processes start, stop and kill.

`writer.py URL RUN_ID COMMITS ROWS`: commits so many batches of so many rows, a line on standard
output after each, closes the run and ends; with 0 commits it goes on until it is killed.
"""

import sys
from itertools import count

from raysched.model.rows import Batch
from raysched.store import open_store
from store.samples import closing, flow_run, group, log, task_runs


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(url: str, run_id: str, commits: int, rows: int) -> None:
    store = open_store(url)
    number = store.open_run(flow_run(id=run_id))
    store.commit(Batch(number, groups=[group(size=2**31 - 1)]))
    say("open")
    for done in range(commits) if commits else count():
        columns = task_runs(0, range(done * rows, (done + 1) * rows))
        store.commit(Batch(number, task_runs=[columns], logs=[log(str(done))]))
        say(str(done + 1))
    store.commit(closing(number))
    store.close()


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
