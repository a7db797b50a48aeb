"""How a group was planned, and how many units it took."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """How a group was planned, and how many units it took."""
    op.add_column("task_group", sa.Column("plan", sa.String()))
    op.add_column("task_group", sa.Column("units", sa.Integer()))
