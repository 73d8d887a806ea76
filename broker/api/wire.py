"""What all messages of the control plane have in common: strict bodies, times in UTC, cursors."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from broker.errors import RequestMalformed

LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000

Limit = Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX, description="How many at most.")]
Since = Annotated[datetime | None, QueryParameter(name="from", description="From this time on.")]
Until = Annotated[datetime | None, QueryParameter(name="to", description="Before this time.")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=200, description="The last page's cursor.")
]
After = Annotated[UUID | None, QueryParameter(name="cursor", description="The last page's cursor.")]


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The base of what callers send: an unknown field is refused by name."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The time asked for, in UTC: `since` included, `until` not; None where it is open."""

    since: datetime | None
    until: datetime | None


def asked_stretch(since: Since = None, until: Until = None) -> Stretch:
    """Read `from` and `to`; a dependency of the handlers that take them. Raises RequestMalformed
    where there is no time between them."""
    stretch = Stretch(in_utc(since), in_utc(until))
    if stretch.since and stretch.until and stretch.since >= stretch.until:
        fields = [{"field": "to", "in": "query", "problem": "not after 'from'"}]
        raise RequestMalformed("to: not after 'from'.", facts={"fields": fields})
    return stretch


GivenStretch = NamedDependency[Stretch]
STRETCH = {"stretch": Provide(asked_stretch, sync_to_thread=False)}


class Reply(msgspec.Struct, kw_only=True):
    """The base of what the broker answers."""


def in_utc(moment: datetime | None) -> datetime | None:
    """Return `moment` with a time zone; one without is taken for UTC."""
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)


def to_cursor(at: datetime, row_id: UUID) -> str:
    """Return the opaque place of a row in a list that is ordered by time and id."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def from_cursor(cursor: str | None) -> tuple[datetime, UUID] | None:
    """Return the place that `to_cursor` wrote. Raises RequestMalformed."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, row_id = text.partition(" ")
        moment, identity = datetime.fromisoformat(at), UUID(row_id)
    except (ValueError, binascii.Error):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise RequestMalformed("cursor: not one that a former page gave.", facts=_CURSOR_FIELD)
    return moment, identity


_CURSOR_FIELD = {"fields": [{"field": "cursor", "in": "query", "problem": "malformed"}]}
