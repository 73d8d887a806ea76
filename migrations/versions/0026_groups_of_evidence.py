"""Feedback teaches the groups of prompts that its call was of."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0026"
down_revision: str | Sequence[str] | None = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0026_groups_of_evidence")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0026 cannot be undone; restore a backup instead.")
