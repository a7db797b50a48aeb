import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect

from raysched.errors import StoreError, StoreVersionError
from raysched.model.rows import Batch
from raysched.model.states import StateType
from raysched.store import open_reader, open_store, schema
from raysched.store.database import database
from store.samples import NOON, execute, flow_run, resumed, task_runs

NEXT = f"{int(schema.HEAD) + 1:04}"
"""Revision of a raysched to come."""

EMPTY_VERSIONS = "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"


def describe(url: str) -> dict[str, object]:
    """Everything that can be told about the tables, whatever made them.

    But for the order of columns: an upgraded table has new ones last, and everything names them.
    """
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    found = inspect(engine)
    tables: dict[str, object] = {}
    for table in found.get_table_names():
        columns = sorted(
            (column["name"], str(column["type"]), column["nullable"], column.get("default"))
            for column in found.get_columns(table)
            if table != "alembic_version"
        )
        options = found.get_table_options(table) if engine.name == "sqlite" else {}
        tables[table] = (
            columns,
            found.get_pk_constraint(table) if table != "alembic_version" else None,
            found.get_foreign_keys(table),
            found.get_unique_constraints(table),
            [_plain(index) for index in found.get_indexes(table)],
            options,
        )
    engine.dispose()
    return tables


def _plain(index: Mapping[str, Any]) -> dict[str, Any]:
    # The condition of a partial index is an object without equality.
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return {**index, "dialect_options": options}


def version(url: str) -> str:
    ((found,),) = execute(url, "SELECT version_num FROM alembic_version")
    return str(found)


def test_newest_revision_is_the_one_that_the_code_expects() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == schema.HEAD


def test_revisions_and_tables_agree(url: str, tmp_path: Path) -> None:
    execute(url, EMPTY_VERSIONS)
    open_store(url).close()
    upgraded = describe(url)
    assert version(url) == schema.HEAD
    if url.startswith("sqlite"):
        fresh = f"sqlite:///{tmp_path / 'fresh.db'}"
    else:
        execute(url, "CREATE SCHEMA fresh")
        fresh = url.rpartition("test_")[0] + "fresh"
    open_store(fresh).close()
    assert describe(fresh).keys() == upgraded.keys()
    for table, description in describe(fresh).items():
        assert (table, description) == (table, upgraded[table])
    if not url.startswith("sqlite"):
        execute(url, "DROP SCHEMA fresh CASCADE")


@pytest.fixture
def next_revision(tmp_path: Path) -> Path:
    """The revisions of a raysched to come, which adds a column to a table that has rows."""
    migrations = tmp_path / "100% of the migrations"
    shutil.copytree(schema.MIGRATIONS, migrations)
    text = (
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        f"revision = '{NEXT}'\ndown_revision = '{schema.HEAD}'\n\n\n"
        "def upgrade():\n"
        "    column = sa.Column('note', sa.String(), nullable=False, server_default='old')\n"
        "    with op.batch_alter_table('flow_run') as table:\n"
        "        table.add_column(column)\n"
    )
    (migrations / "versions" / f"{NEXT}_note.py").write_text(text, encoding="utf-8")
    return migrations


def test_older_database_is_upgraded_with_its_rows_by_whoever_comes_first(
    url: str, next_revision: Path
) -> None:
    store = open_store(url)
    row = flow_run()
    store.open_run(row)
    store.close()
    problems: list[BaseException] = []

    def upgrade() -> None:
        opened = database(url)
        try:
            schema.upgrade(opened, head=NEXT, migrations=next_revision)
        except BaseException as problem:  # noqa: BLE001  # looked at below
            problems.append(problem)
        finally:
            opened.close()

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert version(url) == NEXT
    assert execute(url, "SELECT id, note FROM flow_run") == [(row.id, "old")]


def test_runs_of_the_second_revision_are_read_and_written_after_its_upgrade(url: str) -> None:
    execute(url, EMPTY_VERSIONS)
    _upgrade_to(url, "0002")
    for statement in SECOND_REVISION:
        execute(url, statement if url.startswith("sqlite") else statement.replace("BLOB", "BYTEA"))
    reader = open_reader(url)
    with pytest.raises(StoreVersionError, match="the next `raysched run` upgrades it"):
        reader.runs()
    store = open_store(url)
    run = reader.find_run("ab")
    failed, completed = reader.task_runs(run)
    assert (run.state, run.late) == (StateType.FAILED, 0)
    assert run.error is not None
    assert (run.error.fingerprint, run.error.evidence) == ("", {})
    assert (failed.key, failed.reason, failed.rolled_back) == ("load[0]", "", False)
    assert failed.error is not None
    assert (failed.error.message, failed.error.evidence) == ("no price", {})
    assert reader.value(run, "load", completed.index) == b"kept"
    again = task_runs(0, [1])
    again.rolled_back = frozenset({0})
    store.commit(Batch(run.number, task_runs=[again]))
    assert [view.rolled_back for view in reader.task_runs(run)] == [False, True]
    assert store.requests(run.number, 0) == []
    reader.close()
    store.close()


def test_identities_of_the_third_revision_are_gathered(url: str) -> None:
    execute(url, EMPTY_VERSIONS)
    _upgrade_to(url, "0003")
    for statement in THIRD_REVISION:
        execute(url, statement if url.startswith("sqlite") else statement.replace("BLOB", "BYTEA"))
    store = open_store(url)
    store.close()
    found = execute(url, "SELECT run, id, identities FROM task_group ORDER BY run, id")
    a, b, c = (letter * 16 for letter in (b"a", b"b", b"c"))
    none = bytes(16)
    assert [(run, group, blob and bytes(blob)) for run, group, blob in found] == [
        (1, 0, none + a + none + b),
        (1, 1, None),
        (2, 0, c),
    ]


def test_runs_of_the_fourth_revision_tell_of_no_traces(url: str) -> None:
    execute(url, EMPTY_VERSIONS)
    _upgrade_to(url, "0004")
    for statement in FOURTH_REVISION:
        execute(url, statement if url.startswith("sqlite") else statement.replace("BLOB", "BYTEA"))
    store, reader = open_store(url), open_reader(url)
    run = reader.find_run("abc1")
    assert (run.executions, run.traced, reader.places(run), reader.events(run)) == ((), 0, {}, [])
    (group,) = reader.groups(run)
    assert (group.task, group.created) == ("load", 0)
    assert store.records(run.number).groups[0].identities == b"a" * 16
    (task_run,), (attempt,) = reader.task_runs(run), reader.attempts(run)
    assert (task_run.place, attempt.place) == (0, 0)
    assert reader.undelivered(0, limit=9) == []
    taken = store.take_over(run.id, resumed)
    assert [each.started for each in taken.row.executions] == [NOON]
    reader.close()
    store.close()


def test_identities_stay_the_last_column_in_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    execute(url, EMPTY_VERSIONS)
    open_store(url).close()
    names = [name for _, name, *_ in execute(url, "PRAGMA table_info(task_group)")]
    assert names[-1] == "identities"


THIRD_REVISION = (
    "INSERT INTO driver (number, id, host, pid, started) VALUES (1, '0', 'here', 1, 1)",
    *(
        "INSERT INTO flow_run (number, id, flow, name, state, message, started, ended, "  # noqa: S608
        "parameters, tags, parent, parent_key, target, backend, versions, epoch, attempts, driver, "
        "error_message, error_traceback, error_class, error_kind) "
        f"VALUES ({number}, 'abc{number}', 'nightly', 'owl', 16, '', 1, 2, '{{}}', '[]', '', '', "
        "'', '', '{}', 1, 1, 1, '', '', '', '')"
        for number in (1, 2)
    ),
    (
        "INSERT INTO task_group (run, id, task, first, size, mapped, edges, tags, options, "
        "parent_key) VALUES (1, 0, 'load', 0, 4, true, '[]', '[]', '{}', ''), "
        "(1, 1, 'load', 4, 1, true, '[]', '[]', '{}', ''), "
        "(2, 0, 'load', 0, 1, true, '[]', '[]', '{}', '')"
    ),
    (
        "INSERT INTO task_run (run, grp, idx, state, attempts, started, identity) VALUES "
        "(1, 0, 1, 16, 1, 5, CAST('aaaaaaaaaaaaaaaa' AS BLOB)), "
        "(1, 0, 3, 16, 1, 5, CAST('bbbbbbbbbbbbbbbb' AS BLOB)), "
        "(1, 1, 0, 16, 1, 5, NULL), "
        "(2, 0, 0, 16, 1, 5, CAST('cccccccccccccccc' AS BLOB))"
    ),
)
"""Runs as the third revision kept them: each task run with its own identity, or with none."""

FOURTH_REVISION = (
    "INSERT INTO driver (id, host, pid, started) VALUES ('0', 'here', 1, 1)",
    THIRD_REVISION[1],
    (
        "INSERT INTO task_group (run, id, task, first, size, mapped, edges, tags, options, "
        "parent_key, source, identities) VALUES (1, 0, 'load', 0, 1, true, '[]', '[]', '{}', '', "
        "'', CAST('aaaaaaaaaaaaaaaa' AS BLOB))"
    ),
    (
        "INSERT INTO task_run (run, grp, idx, state, attempts, started, duration) "
        "VALUES (1, 0, 0, 19, 1, 5, 1)"
    ),
    (
        "INSERT INTO attempt (run, grp, idx, attempt, state, started, ended, stop_reason, "
        "error_message, error_traceback, error_class, error_kind) "
        "VALUES (1, 0, 0, 1, 19, 5, 6, '', '', '', '', '')"
    ),
)
"""A run as the fourth revision kept it, before anything was traced."""

SECOND_REVISION = (
    "INSERT INTO driver (number, id, host, pid, started) VALUES (1, '0', 'here', 1, 1)",
    (
        "INSERT INTO flow_run (number, id, flow, name, state, message, started, ended, parameters, "
        "tags, parent, parent_key, target, backend, versions, epoch, attempts, driver, counts, "
        "error_type, error_message, error_traceback, error_class, error_kind) VALUES (1, 'abc', "
        "'nightly', 'owl', 19, '', 1, 2, '{}', '[]', '', '', '', '', '{}', 1, 1, 1, NULL, "
        "'builtins.KeyError', '', '', 'user', '')"
    ),
    (
        "INSERT INTO task_group (run, id, task, first, size, mapped, edges, tags, options, "
        "parent_key) VALUES (1, 0, 'load', 0, 2, true, '[]', '[]', '{}', '')"
    ),
    (
        "INSERT INTO task_run (run, grp, idx, state, attempts, started, duration, value) "
        "VALUES (1, 0, 0, 19, 1, 5, 1, NULL), (1, 0, 1, 16, 1, 5, 1, CAST('kept' AS BLOB))"
    ),
    (
        "INSERT INTO attempt (run, grp, idx, attempt, state, started, ended, stop_reason, "
        "error_type, error_message, error_traceback, error_class, error_kind) "
        "VALUES (1, 0, 0, 1, 19, 5, 6, '', "
        "'builtins.KeyError', 'no price', '', 'user', '')"
    ),
)
"""A run as the second revision kept it, with a failed and a completed task run."""


def _upgrade_to(url: str, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    opened = database(url)
    with opened.writing() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, revision)
    opened.close()


def test_newer_database_is_refused_and_left_alone(url: str) -> None:
    open_store(url).close()
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    before = describe(url)
    expected = rf"schema is 9999, newer than {schema.HEAD}.*upgrade raysched"
    with pytest.raises(StoreVersionError, match=expected):
        open_store(url)
    reader = open_reader(url)
    with pytest.raises(StoreVersionError, match=expected):
        reader.runs()
    reader.close()
    assert describe(url) == before
    assert version(url) == "9999"


def test_reader_does_not_upgrade(url: str) -> None:
    execute(url, EMPTY_VERSIONS)
    reader = open_reader(url)
    with pytest.raises(StoreVersionError, match="the next `raysched run` upgrades it"):
        reader.runs()
    assert list(describe(url)) == ["alembic_version"]
    open_store(url).close()
    assert reader.runs() == []
    reader.close()


def test_database_of_something_else_is_refused(url: str) -> None:
    execute(url, "CREATE TABLE customer (id INTEGER PRIMARY KEY)")
    with pytest.raises(StoreError, match="tables that are not raysched's"):
        open_store(url)
    reader = open_reader(url)
    with pytest.raises(StoreError, match="tables that are not raysched's"):
        reader.runs()
    reader.close()
    assert list(describe(url)) == ["customer"]
