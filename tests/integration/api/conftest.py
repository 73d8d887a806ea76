"""The control plane over a real database, with a market that tests can swap."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import httpx
import pytest
from litestar import Litestar
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.api.app import create_api
from broker.core.health.pulse import Pulse
from broker.core.market import Market, build_market
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.flows.access.keyring import Keyring
from broker.flows.calls.quote import QuoteDesk
from broker.flows.market.heartbeat import HeartbeatDesk
from broker.gateway.quoting import read_demands
from broker.live.room import Live
from broker.settings import Settings
from broker.store.access import accounts, keys
from broker.store.access.accounts import Account, Role
from broker.store.access.keys import KeyTerms
from broker.store.database import create_engine
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy
from pricing.book import PriceBook
from tests.conftest import fresh_database


@dataclass
class SmallBroker:
    """The share of the runtime that the control plane uses."""

    settings: Settings
    engine: AsyncEngine
    market: Market = field(default_factory=lambda: build_market([], PriceBook.empty(), {}))
    pulse: Pulse = field(default_factory=Pulse)
    keyring: Keyring = field(default_factory=Keyring)
    settles: bool = True
    leaving: bool = False
    stopping: bool = False
    calls_in_flight: int = 0
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    sealer: Sealer = field(init=False)
    addresses: AddressPolicy = field(init=False)
    heartbeats: HeartbeatDesk = field(init=False)
    live: Live = field(init=False)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    now_s: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Person:
    """An account with a key, and a client that sends the key."""

    account: Account
    key: str
    http: httpx.AsyncClient


@dataclass(frozen=True)
class Standing:
    """A broker that stands for all tests which it refuses: it has a market, people and no calls."""

    broker: SmallBroker
    operator: Person
    consumer: Person
    provider: Person


@pytest.fixture
async def broker(
    database_url: str, valkey_url: str, engine: AsyncEngine
) -> AsyncIterator[SmallBroker]:
    async with small_broker(database_url, valkey_url, engine) as broker:
        yield broker


@contextlib.asynccontextmanager
async def small_broker(
    database_url: str, valkey_url: str, engine: AsyncEngine
) -> AsyncIterator[SmallBroker]:
    """The parts of a broker on these servers, until the block ends."""
    loopback = ipaddress.ip_network("127.0.0.0/8")
    settings = Settings(
        database_url, valkey_url, secret_key="ab" * 32, allowed_networks=(loopback,)
    )
    live = Live.connect(valkey_url)
    broker = SmallBroker(settings, engine)
    broker.live = live
    broker.sealer = Sealer(settings.secret_key)
    broker.addresses = AddressPolicy(settings.allowed_networks)
    broker.heartbeats = HeartbeatDesk(engine, broker.sealer, live.beats, 1_000)
    yield broker
    await live.close()


class Stage:
    """The parts of whichever broker is on; a control plane takes half a second to be built."""

    def __init__(self) -> None:
        self.broker: SmallBroker | None = None
        self.api = create_api(cast("Any", self), quotes=QuoteDesk(cast("Any", self), read_demands))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)


@pytest.fixture(scope="session")
def stage() -> Stage:
    """One control plane for all tests, which keeps nothing of any but its count of answers."""
    return Stage()


@pytest.fixture
def api(stage: Stage, broker: SmallBroker) -> Litestar:
    stage.broker = broker
    return stage.api


@pytest.fixture(scope="session")
async def long_standing(
    postgres_server: EmbeddedPostgres,
    migrated_template: str,
    database_office: asyncpg.Connection,
    valkey_server: EmbeddedValkey,
    stage: Stage,
) -> AsyncIterator[Standing]:
    """One such broker, whose books must be sound when all has been refused."""
    from tests.integration.api.listing import list_endpoints, publish  # which needs this module

    async with contextlib.AsyncExitStack() as stack:
        fresh = fresh_database(postgres_server.url, migrated_template, database_office)
        url = await stack.enter_async_context(fresh)
        engine = create_engine(url)
        stack.push_async_callback(engine.dispose)
        small = small_broker(url, valkey_server.url, engine)
        broker = await stack.enter_async_context(small)
        people = [
            await _person(broker, await stack.enter_async_context(client_of(stage.api)), role, name)
            for role, name in (
                (Role.OPERATOR, "ops"),
                (Role.CONSUMER, "shop"),
                (Role.PROVIDER, "acme"),
            )
        ]
        await list_endpoints(broker, people[2].account)
        await publish(broker, 1, 200_000)
        yield Standing(broker, *people)


@pytest.fixture
def standing(stage: Stage, long_standing: Standing) -> Standing:
    """For tests that leave nothing behind."""
    stage.broker = long_standing.broker
    return long_standing


@pytest.fixture
async def stranger(api: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with client_of(api) as client:
        yield client


@pytest.fixture
async def operator(broker: SmallBroker, api: Litestar) -> AsyncIterator[Person]:
    async with client_of(api) as client:
        yield await _person(broker, client, Role.OPERATOR, "ops")


@pytest.fixture
async def consumer(broker: SmallBroker, api: Litestar) -> AsyncIterator[Person]:
    async with client_of(api) as client:
        yield await _person(broker, client, Role.CONSUMER, "shop")


@pytest.fixture
async def other_consumer(broker: SmallBroker, api: Litestar) -> AsyncIterator[Person]:
    async with client_of(api) as client:
        yield await _person(broker, client, Role.CONSUMER, "rival")


@pytest.fixture
async def provider(broker: SmallBroker, api: Litestar) -> AsyncIterator[Person]:
    async with client_of(api) as client:
        yield await _person(broker, client, Role.PROVIDER, "acme")


@pytest.fixture
async def other_provider(broker: SmallBroker, api: Litestar) -> AsyncIterator[Person]:
    async with client_of(api) as client:
        yield await _person(broker, client, Role.PROVIDER, "globex")


def client_of(api: Litestar) -> httpx.AsyncClient:
    """A client without a key, straight into the application."""
    # The application answers errors itself; one that got out would be a fault to see.
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(cast("Any", api)), base_url="http://broker"
    )


async def _person(broker: SmallBroker, client: httpx.AsyncClient, role: Role, name: str) -> Person:
    async with broker.engine.begin() as connection:
        account = await accounts.create(connection, role, name, broker.clock())
        issued = await keys.issue(connection, account.id, KeyTerms(), broker.clock())
    client.headers["authorization"] = f"Bearer {issued.text}"
    return Person(account, issued.text, client)
