"""Whether this process lives, and whether calls can be sent to it."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from litestar import Response, get
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.api.callers import OPEN
from broker.api.parts import GivenParts, Parts
from broker.api.wire import Reply
from broker.store.away import is_database_away

DATABASE_WITHIN_S = 2.0


class Alive(Reply):
    """The process answers."""

    status: str


class Readiness(Reply):
    """What a load balancer wants to know; each check is `ok` or says what is wrong."""

    ready: bool
    database: str
    market: str
    process: str


@get("/health", summary="Is the process alive?", tags=["Health"], opt={OPEN: True})
async def alive() -> Alive:
    """Answer, whatever the database does."""
    return Alive(status="ok")


@get("/health/ready", summary="Can it serve calls?", tags=["Health"], opt={OPEN: True})
async def ready(parts: GivenParts) -> Response[Readiness]:
    """200 when the database takes writes and the market has prices for what is listed, else 503."""
    database = await _database(parts.engine)
    if database == "ok" and not parts.settles:
        database = "takes no writes"
    market = _market(parts)
    process = "stopping" if parts.stopping or parts.leaving else "ok"
    fine = database == market == process == "ok"
    told = Readiness(ready=fine, database=database, market=market, process=process)
    return Response(told, status_code=200 if fine else 503)


def _market(parts: Parts) -> str:
    market = parts.market
    return "no prices yet" if market.by_name and not len(market.book) else "ok"


async def _database(engine: AsyncEngine) -> str:
    try:
        async with asyncio.timeout(DATABASE_WITHIN_S), engine.connect() as connection:
            # One that was demoted to a replica still answers, but no call can be held on it.
            reads_only = await connection.scalar(sa.text("SHOW transaction_read_only"))
    except Exception as error:
        if isinstance(error, TimeoutError) or is_database_away(error):
            return "cannot be reached"
        raise
    return "ok" if reads_only == "off" else "takes no writes"
