"""Commission plans and webhooks."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0010_plans_and_webhooks")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0010 cannot be undone; restore a backup instead.")
