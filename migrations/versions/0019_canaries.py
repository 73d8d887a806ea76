"""Endpoints are tried now and then without their knowing."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0019"
down_revision: str | Sequence[str] | None = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0019_canaries")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0019 cannot be undone; restore a backup instead.")
