"""Which controller moves whose prices, and what tiers an offer prices."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0011_pricing")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0011 cannot be undone; restore a backup instead.")
