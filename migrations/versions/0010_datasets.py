"""Which dataset a job reads, and which of them a worker's machine lacks."""

from __future__ import annotations

from alembic import op

revision = "0010_datasets"
down_revision = "0009_created_by"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The release before fills in neither: its workers take any job, and its jobs go to any worker."""
    op.execute("ALTER TABLE worker ADD COLUMN lacks jsonb NOT NULL DEFAULT '{}'::jsonb")
    op.execute("ALTER TABLE job ADD COLUMN dataset text")
