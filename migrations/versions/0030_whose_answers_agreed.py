"""Evidence tells whose answer another agreed with; that of before goes by the stories of its calls.

Stories are packed: the eighth member of one is its attempts, of each of which the first is the
number of its endpoint, the eleventh its notes, and the twelfth what was thought of its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from alembic import op
from sqlalchemy import text

from migrations.scripts import run

revision = "0030"
down_revision: str | Sequence[str] | None = "0029"
branch_labels = None
depends_on = None

_COMPARED = """
SELECT e.id, n.number, c.story FROM evidence e
  JOIN endpoints n ON n.id = e.endpoint_id
  JOIN calls c ON c.id = e.call_id
 WHERE e.agreement IS NOT NULL
"""
_ATTEMPTS, _NUMBER, _NOTES, _JUDGED = 7, 0, 10, 11


def upgrade() -> None:
    """Find out what was compared with what, then run the script and write it down."""
    connection = op.get_bind()
    rows = connection.execute(text(_COMPARED)).all()
    endpoints = connection.execute(text("SELECT number, model FROM endpoints"))
    models = {row.number: row.model for row in endpoints}
    told = [(row.id, _other(row.story, row.number, models)) for row in rows]
    run("0030_whose_answers_agreed")
    known = [{"id": each, "other": other} for each, other in told if other is not None]
    if known:
        # Rows are only ever added to; that this one column is filled in is what they were.
        op.execute("ALTER TABLE evidence DISABLE TRIGGER immutable")
        connection.execute(text("UPDATE evidence SET compared = :other WHERE id = :id"), known)
        op.execute("ALTER TABLE evidence ENABLE TRIGGER immutable")


def _other(story: bytes, number: int, models: Mapping[int, str]) -> str | None:
    """Return whose answer that of an endpoint was compared with; None where it is not told."""
    attempts = msgspec.msgpack.decode(story)[_ATTEMPTS]
    own = [at for at, each in enumerate(attempts) if each[_NUMBER] == number and each[_JUDGED]]
    if not own or own[-1] + 1 == len(attempts):
        return None
    beside = attempts[own[-1] + 1]
    if "asked to compare" not in beside[_NOTES]:
        return None
    return "sample" if models.get(beside[_NUMBER]) == models.get(number) else "model"


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0030 cannot be undone; restore a backup instead.")
