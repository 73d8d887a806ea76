"""Builds a broker process out of its parts, and takes it down again in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from random import Random, SystemRandom

import asyncpg

from broker.core.candidates.view import RoutingLimits
from broker.core.health.pulse import Pulse
from broker.core.health.throttle import Throttle
from broker.core.hedging import HedgeBudget, Tails
from broker.core.market import build_market
from broker.core.retries import RetryBudget
from broker.encoding.tokens import TokenCounter
from broker.errors import Unavailable
from broker.flows.access.keyring import Keyring
from broker.flows.background import Background
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.flows.market.heartbeat import HeartbeatDesk
from broker.flows.market.origins import Origins
from broker.flows.market.targets import Targets
from broker.flows.process.lease import Lease
from broker.flows.process.leave import Leave
from broker.flows.process.tell_traces import open_told_traces, send_last_spans
from broker.flows.runtime import Runtime
from broker.live.room import Live
from broker.settings import Limits, Settings
from broker.store.away import is_database_away
from broker.store.database import create_engine, create_pool
from broker.store.ledger import take_account
from broker.store.market.market_id import market_id
from broker.store.revision import require_newest
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import Limits as UpstreamLimits
from broker.upstream.client import UpstreamClient
from broker.upstream.names import Names
from pricing.book import PriceBook

_DRAIN_POLL_S = 0.05


@contextlib.asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Build everything and run it until the block ends; then drain and close in reverse.

    Raises Unavailable where the database is away at the start, SchemaUnfit where it is of another
    version.
    """
    leave = Leave()
    async with contextlib.AsyncExitStack() as stack:
        try:
            runtime = await _build(settings, stack, leave)
            await stack.enter_async_context(Background(runtime).running(leave))
        except Exception as error:
            if not is_database_away(error):
                raise
            raise Unavailable(f"The database cannot be reached: {error}.") from None
        yield runtime
        runtime.stopping = True
        await leave.finish(_drain, runtime)


async def _build(settings: Settings, stack: contextlib.AsyncExitStack, leave: Leave) -> Runtime:
    engine = create_engine(settings.database_url)
    stack.push_async_callback(leave.within, engine.dispose)
    pool = await create_pool(settings.database_url, connections_max=12)
    stack.push_async_callback(leave.within, pool.close)
    async with engine.connect() as connection:
        await require_newest(connection)
        live = Live.connect(settings.valkey_url, await market_id(connection))
    stack.push_async_callback(leave.within, live.close)
    sealer = Sealer(settings.secret_key, settings.secret_keys_old)
    addresses = AddressPolicy(settings.allowed_networks)
    origins = Origins()
    upstream = UpstreamClient(
        addresses,
        UpstreamLimits(
            head_bytes=settings.limits.head_bytes_max,
            wholes_bytes=settings.limits.answers_bytes_max,
        ),
        names=Names(owner_of=origins.owner_of),
    )
    stack.push_async_callback(leave.within, upstream.aclose)
    traces = open_told_traces(settings.traces_share, SystemRandom().random)
    if traces is not None:
        stack.push_async_callback(leave.within, send_last_spans, traces)
    pulse, routing = Pulse(), _routing_limits(settings.limits)
    return Runtime(
        settings=settings,
        engine=engine,
        pool=pool,
        live=live,
        sealer=sealer,
        addresses=addresses,
        ledger=await _open_ledger(settings, pool, stack, leave),
        heartbeats=HeartbeatDesk(engine, sealer, live.beats, settings.heartbeat_interval_ms),
        upstream=upstream,
        market=build_market((), PriceBook.empty(), {}),
        keyring=Keyring(),
        targets=Targets(),
        tokens=TokenCounter(),
        pulse=pulse,
        throttle=Throttle(pulse, routing.queue_factor),
        hedges=HedgeBudget(),
        tails=Tails(),
        retries=RetryBudget(time.monotonic()),
        random=Random(SystemRandom().getrandbits(64)),  # noqa: S311 - spreads load, keeps no secret
        routing=routing,
        origins=origins,
        traces=traces,
    )


def _routing_limits(limits: Limits) -> RoutingLimits:
    return RoutingLimits(
        attempts_max=limits.attempts_max,
        queue_factor=limits.queue_factor,
        tokens_out_default=limits.tokens_out_default,
    )


async def _open_ledger(
    settings: Settings, pool: asyncpg.Pool, stack: contextlib.AsyncExitStack, leave: Leave
) -> LedgerBatcher:
    lease = Lease(pool)
    process_id = await lease.acquire()
    stack.push_async_callback(leave.within, lease.release)
    async with pool.acquire() as connection:
        take = await take_account(connection, process_id)
    limits = settings.limits
    ahead_s = limits.deadline_s + limits.hold_margin_s
    terms = HoldTerms(process_id, limits.batch_rows_max, ahead_s=ahead_s)
    ledger = LedgerBatcher(pool, take, terms)
    ledger.start()
    stack.push_async_callback(leave.settle, ledger.drain)
    return ledger


async def _drain(runtime: Runtime) -> None:
    """Wait for the calls and settlements under way."""
    while runtime.calls_in_flight or runtime.running:  # noqa: ASYNC110 - only at the end, and bounded
        await asyncio.sleep(_DRAIN_POLL_S)
