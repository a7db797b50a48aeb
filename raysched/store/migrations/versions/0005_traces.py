"""What traces are built from: executions, when groups were recorded, places, events."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """What traces are built from: executions, when groups were recorded, places, events."""
    _widen_flow_run()
    _widen_task_group()
    op.add_column("task_run", sa.Column("place", sa.Integer()))
    op.add_column("attempt", sa.Column("place", sa.Integer()))
    _create_place()
    _create_event()


def _widen_flow_run() -> None:
    op.add_column(
        "flow_run",
        sa.Column("executions", sa.String(), nullable=False, server_default=sa.text("'[]'")),
    )
    op.add_column(
        "flow_run", sa.Column("traced", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("flow_run", sa.Column("untraced", sa.Boolean()))
    op.create_index(
        "ix_flow_run_untraced",
        "flow_run",
        ["untraced"],
        unique=False,
        sqlite_where=sa.text("untraced IS NOT NULL"),
        postgresql_where=sa.text("untraced IS NOT NULL"),
    )


def _widen_task_group() -> None:
    """Add a column; in SQLite before the identities, which would be read on the way to it."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    column = sa.Column("created", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    with op.batch_alter_table("task_group", recreate="always" if sqlite else "never") as table:
        if sqlite:
            table.add_column(column, insert_before="identities")
        else:
            table.add_column(column)


def _create_place() -> None:
    op.create_table(
        "place",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "id", name="pk_place"),
        sqlite_with_rowid=False,
    )


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("attributes", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "id", name="pk_event"),
        sqlite_with_rowid=False,
    )
