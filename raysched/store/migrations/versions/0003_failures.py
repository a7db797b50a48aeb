"""What is known about failures, why task runs ended, their arguments, and requests to drivers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """What is known about failures, why task runs ended, their arguments, requests to drivers."""
    for table in ("attempt", "flow_run"):
        op.add_column(table, sa.Column("error_fingerprint", sa.String()))
        op.add_column(table, sa.Column("error_evidence", sa.String()))
    op.create_index(
        "ix_attempt_error_fingerprint",
        "attempt",
        ["error_fingerprint", "started", "run"],
        unique=False,
        sqlite_where=sa.text("error_fingerprint IS NOT NULL"),
        postgresql_where=sa.text("error_fingerprint IS NOT NULL"),
    )
    op.add_column(
        "flow_run", sa.Column("late", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("task_run", sa.Column("reason", sa.String()))
    op.add_column("task_run", sa.Column("rolled_back", sa.Boolean()))
    _create_task_input()
    _create_request()


def _create_task_input() -> None:
    op.create_table(
        "task_input",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("slots", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run", "grp", "idx", name="pk_task_input"),
    )


def _create_request() -> None:
    op.create_table(
        "request",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("keys", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["flow_run.number"], name="fk_request_run"),
        sa.PrimaryKeyConstraint("run", "id", name="pk_request"),
    )
