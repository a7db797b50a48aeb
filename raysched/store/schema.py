"""The schema's version: looked up when a database is opened, brought up to date where needed."""

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from raysched.errors import StoreError, StoreVersionError
from raysched.store.database import Database
from raysched.store.tables import METADATA

HEAD = "0005"
"""The newest revision in `migrations/versions/`."""

MIGRATIONS = Path(__file__).with_name("migrations")

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def upgrade(database: Database, *, head: str = HEAD, migrations: Path = MIGRATIONS) -> None:
    """Bring the schema up to date, whichever process comes first.

    Args:
        database: The database.
        head: The newest revision.
        migrations: Directory of the revisions.

    Raises:
        StoreVersionError: The schema is newer than this raysched.
        StoreError: The database holds something else.
    """
    with database.writing() as connection:
        if _version(connection) == head:
            return
        database.lock_schema(connection)
        found = _version(connection)
        if found is None and not inspect(connection).get_table_names():
            METADATA.create_all(connection)
            _VERSION.create(connection)
            connection.execute(insert(_VERSION).values(version_num=head))
        elif found is None:
            raise _foreign(database)
        elif found != head:
            _migrate(database, connection, found, migrations)


def revision(database: Database) -> str:
    """Return the revision of a database's schema, "" where there is none yet."""
    with database.writing() as connection:
        return _version(connection) or ""


def check(database: Database, connection: Connection) -> bool:
    """Return whether the database has our schema, False if it is still empty.

    Raises:
        StoreVersionError: The schema is newer or older than this raysched.
        StoreError: The database holds something else.
    """
    found = _version(connection)
    if found == HEAD:
        return True
    if found is None:
        if inspect(connection).get_table_names():
            raise _foreign(database)
        return False
    if _is_known(found, MIGRATIONS):
        raise StoreVersionError(
            f"{database.name}: its schema is {found or 'empty'}, this raysched reads {HEAD}; "
            "`raysched db upgrade` or the next `raysched run` upgrades it"
        )
    raise _newer(database, found)


def _version(connection: Connection) -> str | None:
    """Return the revision, "" before the first one, None without a table of versions."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none() or ""


def _is_known(revision: str, migrations: Path) -> bool:
    return not revision or any(migrations.glob(f"versions/{revision}_*.py"))


def _migrate(database: Database, connection: Connection, found: str, migrations: Path) -> None:
    if not _is_known(found, migrations):
        raise _newer(database, found)
    # 0.36 s that only a database of another version costs.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")


def _newer(database: Database, found: str) -> StoreVersionError:
    return StoreVersionError(
        f"{database.name}: its schema is {found}, newer than {HEAD}, the newest that this raysched "
        "knows; upgrade raysched, or set RAYSCHED_DATABASE_URL to another database"
    )


def _foreign(database: Database) -> StoreError:
    return StoreError(
        f"{database.name}: has tables that are not raysched's; set RAYSCHED_DATABASE_URL to a "
        "database of its own"
    )
