"""What operators asked of the simulator, and what came of it."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0012_simulations")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0012 cannot be undone; restore a backup instead.")
