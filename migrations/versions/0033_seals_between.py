"""Seals between those of days, and checks that read each record once."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0033"
down_revision: str | Sequence[str] | None = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0033_seals_between")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0033 cannot be undone; restore a backup instead.")
