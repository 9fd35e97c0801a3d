"""What a job needs of a worker's memory, and what a worker has."""

from __future__ import annotations

from alembic import op

revision = "0007_memory"
down_revision = "0006_trouble"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The release before fills in neither: its workers take any job, and its jobs go to any worker."""
    op.execute("ALTER TABLE worker ADD COLUMN memory_bytes bigint")
    op.execute("ALTER TABLE job ADD COLUMN memory_bytes bigint")
