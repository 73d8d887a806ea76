"""Calls tell how long one of their answers was."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0021"
down_revision: str | Sequence[str] | None = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0021_answer_lengths")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0021 cannot be undone; restore a backup instead.")
