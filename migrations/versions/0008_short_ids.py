"""An index for the ends of ids, by which people name jobs."""

from __future__ import annotations

from alembic import op

revision = "0008_short_ids"
down_revision = "0007_memory"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The release before does not know it, and loses nothing."""
    op.execute("CREATE INDEX ix_job_id_reversed ON job (reverse(replace(id::text, '-', '')) text_pattern_ops)")
