"""Earnings that mature, and payouts with their items."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0008_payouts")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0008 cannot be undone; restore a backup instead.")
