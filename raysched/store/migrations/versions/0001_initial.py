"""Initial tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Initial tables."""
    _create_driver()
    _create_flow_run()
    _create_task_group()
    _create_task_run()
    _create_attempt()
    _create_log()


def _create_driver() -> None:
    op.create_table(
        "driver",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_driver"),
        sa.UniqueConstraint("id", name="uq_driver_id"),
    )


def _create_flow_run() -> None:
    op.create_table(
        "flow_run",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.Column("parameters", sa.String(), nullable=False),
        sa.Column("pickled_parameters", sa.LargeBinary()),
        sa.Column("tags", sa.String(), nullable=False),
        sa.Column("parent", sa.String(), nullable=False),
        sa.Column("parent_key", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("versions", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("driver", sa.Integer(), nullable=False),
        sa.Column("counts", sa.String()),
        sa.Column("error_type", sa.String()),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("error_traceback", sa.String(), nullable=False),
        sa.Column("error_class", sa.String(), nullable=False),
        sa.Column("error_kind", sa.String(), nullable=False),
        sa.Column("error_exception", sa.LargeBinary()),
        sa.ForeignKeyConstraint(["driver"], ["driver.number"], name="fk_flow_run_driver"),
        sa.PrimaryKeyConstraint("number", name="pk_flow_run"),
        sa.UniqueConstraint("id", name="uq_flow_run_id"),
    )
    op.create_index("ix_flow_run_parent", "flow_run", ["parent"], unique=False)


def _create_task_group() -> None:
    op.create_table(
        "task_group",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("mapped", sa.Boolean(), nullable=False),
        sa.Column("edges", sa.String(), nullable=False),
        sa.Column("tags", sa.String(), nullable=False),
        sa.Column("options", sa.String(), nullable=False),
        sa.Column("parent_key", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["flow_run.number"], name="fk_task_group_run"),
        sa.PrimaryKeyConstraint("run", "id", name="pk_task_group"),
        sqlite_with_rowid=False,
    )


def _create_task_run() -> None:
    op.create_table(
        "task_run",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger()),
        sa.Column("identity", sa.LargeBinary()),
        sa.Column("size", sa.BigInteger()),
        sa.Column("handled", sa.Boolean()),
        sa.Column("name", sa.String()),
        sa.Column("roots", sa.String()),
        sa.Column("value", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run", "grp", "idx", name="pk_task_run"),
        sqlite_with_rowid=False,
    )


def _create_attempt() -> None:
    op.create_table(
        "attempt",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.Column("stop_reason", sa.String(), nullable=False),
        sa.Column("error_type", sa.String()),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("error_traceback", sa.String(), nullable=False),
        sa.Column("error_class", sa.String(), nullable=False),
        sa.Column("error_kind", sa.String(), nullable=False),
        sa.Column("error_exception", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run", "grp", "idx", "attempt", name="pk_attempt"),
    )


def _create_log() -> None:
    op.create_table(
        "log",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("logger", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "id", name="pk_log"),
        sqlite_with_rowid=False,
    )
