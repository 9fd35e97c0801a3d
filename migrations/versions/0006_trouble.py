"""A worker says what is wrong with its machine."""

from __future__ import annotations

from alembic import op

revision = "0006_trouble"
down_revision = "0005_tidying"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Workers of the release before never say so, and lose nothing."""
    op.execute("ALTER TABLE worker ADD COLUMN trouble text")
