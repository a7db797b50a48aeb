"""Writers that are killed in the middle of writing, many of them from one warm process.

`killed.py PATH KILLS SEED`: each writer opens the SQLite file, opens a run in it and commits as
fast as it can, and tells after each commit how many there were. After each kill the file has to be
whole, and to have all that was told. What is wrong is raised.
"""

import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from select import select

from raysched.model.ids import new_run_id
from raysched.model.rows import Batch
from raysched.model.states import StateType
from raysched.store import open_reader, open_store
from store.samples import flow_run, group, task_runs

ROWS = 20
"""Task runs of one commit; with their values so many bytes that the WAL is soon full, and killed
writers are often moving it into the database."""

LONGEST_SECONDS = 0.05
"""How long a writer lives at most, from its start or from its first commit (seconds)."""


def write(url: str, run_id: str, told: int) -> None:
    """Write until this process is killed."""
    store = open_store(url)
    number = store.open_run(flow_run(id=run_id))
    store.commit(Batch(number, groups=[group(size=2**31 - 1)]))
    for commits in count(1):
        columns = task_runs(0, range((commits - 1) * ROWS, commits * ROWS))
        columns.values = [b"x" * 2000] * ROWS
        columns.sizes = [2000] * ROWS
        store.commit(Batch(number, task_runs=[columns]))
        os.write(told, commits.to_bytes(4))


def fork(url: str, run_id: str) -> tuple[int, int]:
    """Start a writer; return its process id and where to read what it tells."""
    heard, told = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            write(url, run_id, told)
        finally:
            os._exit(1)
    os.close(told)
    return process, heard


def kill_one(url: str, seconds: float, *, writing: bool) -> tuple[str, int]:
    """Start a writer and kill it; return its run and how many commits it has told.

    Args:
        url: The database.
        seconds: When.
        writing: Whether that is from its first commit, not from its start.
    """
    run_id = new_run_id()
    process, heard = fork(url, run_id)
    if writing:
        select([heard], [], [])
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), f"a writer ended by itself: {status}"
    with os.fdopen(heard, "rb") as pipe:
        return run_id, len(pipe.read()) // 4


def check(path: Path, run_id: str, told: int) -> int:
    """Look at the file after a kill; return the commits of the run that are there."""
    with closing(sqlite3.connect(path)) as connection:
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert whole == "ok", whole
        if not told:
            return 0
        (rows,) = connection.execute(
            "SELECT count(*) FROM task_run JOIN flow_run ON run = number WHERE flow_run.id = ?",
            (run_id,),
        ).fetchone()
    # The last one may have been done, but not yet told.
    assert rows in {told * ROWS, (told + 1) * ROWS}, f"{rows} rows after {told} commits"
    return int(rows) // ROWS


def main(path: Path, kills: int, seed: int) -> None:
    """Kill writers; print how many, and how many commits they have made."""
    chance = random.Random(seed)
    url = f"sqlite:///{path}"
    open_store(url).close()
    commits = 0
    for number in range(kills):
        if number % 20 == 0:
            # Also in the middle of making the tables; and the file stays small.
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        seconds = chance.uniform(0, LONGEST_SECONDS)
        run_id, told = kill_one(url, seconds, writing=number % 4 != 0)
        commits += check(path, run_id, told)
    reader = open_reader(url)
    runs = reader.runs(limit=kills)
    assert {(run.state, run.message) for run in runs} == {(StateType.CRASHED, "driver lost")}
    reader.close()
    sys.stdout.write(f"{kills} kills, {commits} commits\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
