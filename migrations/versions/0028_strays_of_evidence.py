"""Old evidence goes, wherever it is kept."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0028"
down_revision: str | Sequence[str] | None = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0028_strays_of_evidence")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0028 cannot be undone; restore a backup instead.")
