"""What is known of how well endpoints answer."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0017"
down_revision: str | Sequence[str] | None = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0017_evidence")


def downgrade() -> None:
    """Refuse: evidence is not undone."""
    raise RuntimeError("Migration 0017 cannot be undone; restore a backup instead.")
