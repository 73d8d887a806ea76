"""Domains are taught by examples."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0016"
down_revision: str | Sequence[str] | None = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0016_domains")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0016 cannot be undone; restore a backup instead.")
