"""Budgets of keys by day, month and in total."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0004_budgets")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0004 cannot be undone; restore a backup instead.")
