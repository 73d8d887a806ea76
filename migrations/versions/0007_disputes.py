"""Refunds, credit notes, disputes and credits for broken promises."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0007_disputes")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0007 cannot be undone; restore a backup instead.")
