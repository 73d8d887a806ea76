"""What models said that they take and give is kept with their endpoints."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0031"
down_revision: str | Sequence[str] | None = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0031_signatures")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0031 cannot be undone; restore a backup instead.")
