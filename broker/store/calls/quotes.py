"""Firm quotes: kept with their offers, and used by one call at most; PostgreSQL's clock judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.quote import Offer, Promise, Stages
from broker.core.requirements import Requirements
from broker.errors import TooManyCalls
from broker.store.ledger import Connection
from broker.store.tables import accounts, table
from pricing.book import Rate

quotes = table(
    "quotes",
    """
    id uuid, account_id uuid, created_at timestamptz, expires_at timestamptz, price_version bigint,
    demands bytea, tokens_in bigint, choices integer, ceiling_nanos bigint, used_by uuid,
    used_at timestamptz, used_process integer, stages bytea
    """,
)
quote_offers = table(
    "quote_offers",
    """
    quote_id uuid, place smallint, endpoint_id uuid, endpoint_number integer, rate_in_micros bigint,
    rate_out_micros bigint, rate_call_nanos bigint, tokens_out_max bigint, expected_nanos bigint,
    ceiling_nanos bigint, score double, parts jsonb
    """,
)

KEPT: Final = timedelta(days=90)
"""So long after its end a quote that was used can be looked up."""
_UNUSED_KEPT: Final = timedelta(days=1)
_DELETED_MAX: Final = 10_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Requirements).decode
_decode_stages = msgspec.msgpack.Decoder(Stages).decode
_now = sa.func.statement_timestamp()


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote, and what has become of it as of the moment of reading."""

    id: UUID
    account_id: UUID
    promise: Promise
    created_at: datetime
    expires_at: datetime
    has_expired: bool
    used_by: UUID | None
    """The call that was made on it."""


async def insert(
    connection: AsyncConnection, promised: Promise, ttl_s: int, open_max: int
) -> Quote:
    """Keep a quote that is firm for `ttl_s` seconds from now on.

    Raises TooManyCalls with code `quotes_open_max` when the account has so many open ones.
    """
    account_id = promised.wanted.account_id
    await _require_room(connection, account_id, open_max)
    quote_id = uuid7()
    made = await connection.execute(
        sa.insert(quotes)
        .values(
            id=quote_id,
            account_id=account_id,
            created_at=_now,
            expires_at=_now + timedelta(seconds=ttl_s),
            price_version=promised.price_version,
            demands=_encode(promised.wanted),
            tokens_in=promised.tokens_in,
            choices=promised.wanted.choices,
            ceiling_nanos=promised.ceiling_nanos,
            stages=None if promised.stages is None else _encode(promised.stages),
        )
        .returning(quotes.c.created_at, quotes.c.expires_at)
    )
    row = made.one()
    offers = [_offer_row(quote_id, at, each) for at, each in enumerate(promised.offers)]
    await connection.execute(sa.insert(quote_offers), offers)
    return Quote(quote_id, account_id, promised, row.created_at, row.expires_at, False, None)


async def find(connection: AsyncConnection, quote_id: UUID, account_id: UUID) -> Quote | None:
    """Return an account's quote; None for one that is not, or is another's."""
    query = sa.select(quotes, (quotes.c.expires_at <= _now).label("has_expired"))
    query = query.where(quotes.c.id == quote_id, quotes.c.account_id == account_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    offered = await connection.execute(
        sa.select(quote_offers)
        .where(quote_offers.c.quote_id == quote_id)
        .order_by(quote_offers.c.place)
    )
    promised = Promise(
        _decode(row.demands),
        row.price_version,
        tuple(map(_offer, offered)),
        None if row.stages is None else _decode_stages(row.stages),
    )
    return Quote(
        row.id,
        row.account_id,
        promised,
        row.created_at,
        row.expires_at,
        row.has_expired,
        row.used_by,
    )


async def use(connection: AsyncConnection, quote_id: UUID, call_id: UUID, process_id: int) -> bool:
    """Use a quote up for a call of a process, at the commit; False when another has, or its time is
    over."""
    used = await connection.execute(
        sa.update(quotes)
        .where(quotes.c.id == quote_id, quotes.c.used_by.is_(None), quotes.c.expires_at > _now)
        .values(used_by=call_id, used_at=_now, used_process=process_id)
    )
    return used.rowcount == 1


async def give_back(connection: AsyncConnection, quote_id: UUID, call_id: UUID) -> None:
    """Open a quote again that a call has used and was then refused; again without effect."""
    await connection.execute(
        sa.update(quotes)
        .where(quotes.c.id == quote_id, quotes.c.used_by == call_id)
        .values(used_by=None, used_at=None, used_process=None)
    )


async def stands(connection: AsyncConnection, quote_id: UUID, call_id: UUID) -> bool:
    """Whether a quote is this call's still, asked once its hold is open; from then on it stays."""
    query = sa.select(quotes.c.id).where(quotes.c.id == quote_id, quotes.c.used_by == call_id)
    return await connection.scalar(query.with_for_update(key_share=True)) is not None


async def open_again(connection: Connection) -> int:
    """Open the quotes that dead processes have used for calls without a hold; return how many.

    To be called in a transaction. They are locked before the books are read: a call that `stands`
    first has its hold seen here, and one that comes later finds its quote gone.
    """
    rows = await connection.fetch(
        "SELECT id FROM quotes WHERE used_by IS NOT NULL AND expires_at > now()"
        " AND NOT EXISTS (SELECT FROM broker_processes p WHERE p.id = used_process)"
        " AND used_process IS NOT NULL FOR UPDATE SKIP LOCKED"
    )
    done = await connection.execute(
        "UPDATE quotes SET used_by = NULL, used_at = NULL, used_process = NULL"
        " WHERE id = ANY($1::uuid[])"
        " AND NOT EXISTS (SELECT FROM holds h WHERE h.call_id = used_by)",
        [row["id"] for row in rows],
    )
    return int(done.rpartition(" ")[2])


async def delete_old(connection: AsyncConnection, now: datetime) -> int:
    """Delete quotes that ended long ago; return how many."""
    unused = quotes.c.used_by.is_(None) & (quotes.c.expires_at < now - _UNUSED_KEPT)
    old = sa.select(quotes.c.id).where(unused | (quotes.c.expires_at < now - KEPT))
    deleted = await connection.execute(
        sa.delete(quotes).where(quotes.c.id.in_(old.limit(_DELETED_MAX)))
    )
    return deleted.rowcount


async def _require_room(connection: AsyncConnection, account_id: UUID, open_max: int) -> None:
    # One by one for each account, so that no two take its last place; it stops nothing else.
    await connection.execute(
        sa.select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True)
    )
    still_open = (
        quotes.c.account_id == account_id,
        quotes.c.used_by.is_(None),
        quotes.c.expires_at > _now,
    )
    standing = sa.select(
        sa.func.count(), sa.func.extract("epoch", sa.func.min(quotes.c.expires_at) - _now)
    ).where(*still_open)
    count, first_ends_s = (await connection.execute(standing)).one()
    if count >= open_max:
        raise TooManyCalls(
            f"An account may have {open_max} open quotes.",
            code="quotes_open_max",
            retry_after_s=max(float(first_ends_s), 1.0),
        )


def _offer_row(quote_id: UUID, place: int, offer: Offer) -> Mapping[str, Any]:
    return {
        "quote_id": quote_id,
        "place": place,
        "endpoint_id": offer.endpoint_id,
        "endpoint_number": offer.number,
        "rate_in_micros": offer.rate.rate_in_micros,
        "rate_out_micros": offer.rate.rate_out_micros,
        "rate_call_nanos": offer.rate.rate_call_nanos,
        "tokens_out_max": offer.tokens_out_max,
        "expected_nanos": offer.expected_nanos,
        "ceiling_nanos": offer.ceiling_nanos,
        "score": offer.score,
        "parts": offer.parts,
    }


def _offer(row: Row[Any]) -> Offer:
    return Offer(
        endpoint_id=row.endpoint_id,
        number=row.endpoint_number,
        rate=Rate(row.rate_in_micros, row.rate_out_micros, row.rate_call_nanos),
        tokens_out_max=row.tokens_out_max,
        expected_nanos=row.expected_nanos,
        ceiling_nanos=row.ceiling_nanos,
        score=row.score,
        parts=row.parts,
    )
