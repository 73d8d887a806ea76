"""More kinds of ledger accounts and transfers, and the events that tell of money."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0002_books")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0002 cannot be undone; restore a backup instead.")
