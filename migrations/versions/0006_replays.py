"""Stored answers of calls under an idempotency key."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0006_replays")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0006 cannot be undone; restore a backup instead.")
