"""Keys with scopes, limits, allow-lists and rotation."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0003_keys")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0003 cannot be undone; restore a backup instead.")
