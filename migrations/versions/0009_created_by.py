"""Which API key made a job or a check."""

from __future__ import annotations

from alembic import op

revision = "0009_created_by"
down_revision = "0008_short_ids"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Null for what was made before, and for what the release before makes."""
    op.execute("ALTER TABLE job ADD COLUMN created_by jsonb")
