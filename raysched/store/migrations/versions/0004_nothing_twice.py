"""What resume, rerun and caching go by: identities by group, locations, deliveries, claims."""

from itertools import groupby

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_IDENTITY_BYTES = 16


def upgrade() -> None:
    """What resume, rerun and caching go by: identities by group, locations, deliveries, claims."""
    op.add_column("flow_run", sa.Column("key", sa.String()))
    op.create_index("ix_flow_run_key", "flow_run", ["key"], unique=True)
    op.add_column("flow_run", sa.Column("identity", sa.LargeBinary()))
    op.add_column("flow_run", sa.Column("result", sa.LargeBinary()))
    op.add_column(
        "flow_run", sa.Column("rerun_of", sa.String(), nullable=False, server_default=sa.text("''"))
    )
    op.add_column("flow_run", sa.Column("removed", sa.Boolean()))
    _widen_task_group()
    _gather_identities(op.get_bind())
    op.drop_column("task_run", "identity")
    op.add_column("task_run", sa.Column("location", sa.String()))
    _create_delivery()
    _create_cache_entry()


def _widen_task_group() -> None:
    """Add columns; in SQLite, with rowids from now on.

    Without them rows are in the index itself, which then reads a row's megabytes of identities
    for each key that it compares.
    """
    sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table(
        "task_group",
        recreate="always" if sqlite else "never",
        table_kwargs={"sqlite_with_rowid": True},
    ) as table:
        table.add_column(
            sa.Column("source", sa.String(), nullable=False, server_default=sa.text("''"))
        )
        table.add_column(sa.Column("identities", sa.LargeBinary()))


def _gather_identities(connection: sa.Connection) -> None:
    """Move the identities of task runs to the rows of their groups.

    Members without one have zeros, which no digest is.
    """
    groups = connection.execute(sa.text("SELECT run, id, size FROM task_group")).all()
    sizes = {(run, group): size for run, group, size in groups}
    rows = connection.execute(
        sa.text(
            "SELECT run, grp, idx, identity FROM task_run WHERE identity IS NOT NULL "
            "ORDER BY run, grp, idx"
        ),
        execution_options={"yield_per": 10_000},
    )
    gathered = sa.text(
        "UPDATE task_group SET identities = :identities WHERE run = :run AND id = :id"
    )
    for (run, group), members in groupby(rows, key=lambda row: (row.run, row.grp)):
        identities = bytearray(_IDENTITY_BYTES * sizes.get((run, group), 0))
        for member in members:
            start = member.idx * _IDENTITY_BYTES
            if start < len(identities):
                identities[start : start + _IDENTITY_BYTES] = member.identity
        values = {"identities": bytes(identities), "run": run, "id": group}
        connection.execute(gathered, values)


def _create_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run", "id", name="pk_delivery"),
        sqlite_with_rowid=False,
    )


def _create_cache_entry() -> None:
    op.create_table(
        "cache_entry",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("lifetime", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_cache_entry"),
    )
    op.create_index("ix_cache_entry_run", "cache_entry", ["run"], unique=False)
