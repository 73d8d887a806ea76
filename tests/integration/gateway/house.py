"""A whole broker in this process, on a real socket, and those who trade through it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.app import serve
from broker.cli.local import OPERATOR
from broker.errors import Conflict
from broker.flows.access.issue_key import issue_key
from broker.flows.access.open_account import open_account
from broker.flows.money.topup import top_up
from broker.settings import Limits, Settings
from broker.store.access.accounts import Role
from broker.store.access.keys import KeyTerms
from broker.store.database import create_engine
from pricing.money import NANOS_PER_USD
from provider_sdk.client import BrokerClient
from provider_sdk.protocol import CallBand, DataPolicy, DeploymentOffer, EndpointOffer, TokenBand
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.plain import TRUSTS_NOBODY
from tests.waiting import until

BODY_BYTES_MAX = 2**20
BODY_S = 2.0
REPLAY_BYTES_MAX = 2**14
STALL_S = 1.0
_WITHIN_S = 20.0
_PAUSE_S = 0.02
_HONEST = Script()
_KEEPS_NOTHING = DataPolicy()


@dataclass(frozen=True)
class Consumer:
    """A buying account: its key, and a client that sends it."""

    name: str
    key: str
    http: httpx.AsyncClient


@dataclass
class House:
    """The broker under test."""

    url: str
    database_url: str
    engine: AsyncEngine
    database: asyncpg.Connection
    closing: contextlib.AsyncExitStack
    operator: httpx.AsyncClient = field(init=False)
    providers: dict[str, ScriptedProvider] = field(default_factory=dict)
    """By `provider/endpoint`."""

    @property
    def address(self) -> str:
        """Host and port, as tritonclient wants them."""
        return self.url.removeprefix("http://")

    async def key(self, name: str, role: Role, **terms: Any) -> str:
        """Open the account if it is not open, and return a new key of it."""
        with contextlib.suppress(Conflict):
            await open_account(self.engine, name, role, author="test", now=_now())
        issued = await issue_key(self.engine, OPERATOR, name, KeyTerms(**terms), _now())
        return issued.text

    async def consumer(self, name: str, usd: int = 5, **terms: Any) -> Consumer:
        """Open a consumer's account with money; returns once the broker knows its key."""
        key = await self.key(name, Role.CONSUMER, **terms)
        if usd:
            await top_up(self.engine, OPERATOR, name, usd * NANOS_PER_USD, "test", _now())
        http = self.client(key)
        await until(lambda: _knows(http))
        return Consumer(name, key, http)

    def client(self, key: str | None) -> httpx.AsyncClient:
        """A plain client, closed with the house."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        http = httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=20.0, verify=TRUSTS_NOBODY
        )
        self.closing.push_async_callback(http.aclose)
        return http

    async def enrol(self, *stalls: Stall) -> None:
        """Have scripted providers register, prove their origin and be probed, all side by side."""
        async with asyncio.TaskGroup() as group:
            for stall in stalls:
                group.create_task(self._enrol(stall))
        await self.priced(*(each.name for each in stalls))

    async def priced(self, *names: str) -> None:
        """Wait until all of these endpoints have a price."""
        await until(lambda: self._all_priced(set(names)))

    async def _enrol(self, stall: Stall) -> None:
        script = msgspec.structs.replace(
            stall.script, kind=stall.kind, models=(stall.upstream,), api_key=stall.credential
        )
        scripted = await self.closing.enter_async_context(ScriptedProvider(script))
        provider = stall.name.partition("/")[0]
        client = BrokerClient(self.url, await self.key(provider, Role.PROVIDER))
        async with client:
            registered = await client.register(stall.offer(scripted.url))
            scripted.script = msgspec.structs.replace(script, nonce=registered.nonce)
            verified = await client.verify(registered.deployment_id)
        assert verified.status == "listed", verified.reports
        scripted.received.clear()
        scripted.calls = 0
        self.providers[stall.name] = scripted

    async def _all_priced(self, names: set[str]) -> bool:
        answer = await self.operator.get("/api/prices")
        listed = answer.json()["endpoints"]
        if not answer.json()["version"]:
            return False  # the first book is still to come
        return names <= {each["name"] for each in listed if each["price"] is not None}

    async def let_go(self) -> None:
        """Wait until nothing is held. Holds that were opened ahead of calls, where these come
        densely, are released half a second later; one that is forgotten stays for minutes."""
        await until(self._holds_nothing)

    async def _holds_nothing(self) -> bool:
        return bool(await self.database.fetchval("SELECT NOT EXISTS (SELECT FROM open_holds)"))

    async def story(self, consumer: Consumer, call_id: str) -> dict[str, Any]:
        """What the broker tells of a call, as soon as its record is written."""
        answers: list[httpx.Response] = []

        async def told() -> bool:
            answers.append(await consumer.http.get(f"/api/calls/{call_id}"))
            return answers[-1].status_code == 200 and "attempts" in answers[-1].json()

        await until(told)
        story: dict[str, Any] = answers[-1].json()
        return story


@dataclass(frozen=True, kw_only=True)
class Stall:
    """What a scripted provider offers; prices never move, for floor and ceiling are the list."""

    name: str
    model: str = "small"
    kind: str = "openai"
    tasks: Sequence[str] = ("chat", "completion", "embedding")
    script: Script = _HONEST
    usd_in: str = "0.50"
    usd_out: str = "1.50"
    usd_call: str = "0.001"
    region: str = "eu"
    data_policy: DataPolicy = _KEEPS_NOTHING
    capacity: int = 50
    credential: str | None = None
    upstream: str = "upstream-name"
    endpoint: dict[str, Any] = field(default_factory=dict)

    def offer(self, url: str) -> DeploymentOffer:
        """The offer of a deployment at `url`."""
        name = self.name.partition("/")[2]
        by_call = self.kind == "kserve"
        endpoint = EndpointOffer(
            name=name,
            model=self.model,
            upstream_model=self.upstream,
            tasks=["infer"] if by_call else list(self.tasks),  # type: ignore[arg-type]
            price=_call_band(self.usd_call) if by_call else _token_band(self.usd_in, self.usd_out),
        )
        return DeploymentOffer(
            name=name,
            url=url,
            kind="kserve" if by_call else "openai",
            capacity=self.capacity,
            region=self.region,
            data_policy=self.data_policy,
            credential=self.credential,
            endpoints=[msgspec.structs.replace(endpoint, **self.endpoint)],
        )


def _token_band(usd_in: str, usd_out: str) -> TokenBand:
    return TokenBand(
        floor_in=usd_in,
        list_in=usd_in,
        ceiling_in=usd_in,
        floor_out=usd_out,
        list_out=usd_out,
        ceiling_out=usd_out,
    )


def _call_band(usd: str) -> CallBand:
    return CallBand(floor_call=usd, list_call=usd, ceiling_call=usd)


@contextlib.asynccontextmanager
async def open_house(
    database_url: str, valkey_url: str, traces_share: float = 0.0, **limits: Any
) -> AsyncIterator[House]:
    """Run a broker until the block ends; `limits` are those that a test wants otherwise."""
    loopback = ipaddress.ip_network("127.0.0.0/8")
    settings = Settings(
        database_url,
        valkey_url,
        secret_key="ab" * 32,
        allowed_networks=(loopback,),
        traces_share=traces_share,
        limits=Limits(
            body_bytes_max=BODY_BYTES_MAX,
            body_s=BODY_S,
            stall_s=STALL_S,
            replay_bytes_max=REPLAY_BYTES_MAX,
            **limits,
        ),
    )
    async with _serving(settings) as port, contextlib.AsyncExitStack() as stack:
        engine = create_engine(database_url, connections_max=4)
        stack.push_async_callback(engine.dispose)
        connection = await asyncpg.connect(database_url)
        stack.push_async_callback(connection.close)
        url = f"http://127.0.0.1:{port}"
        house = House(url, database_url, engine, connection, stack)
        house.operator = house.client(await house.key("operator", Role.OPERATOR))
        yield house


@contextlib.asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[int]:
    # In a task of its own: a fixture ends in another task than it began in.
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(("127.0.0.1", 0), settings, started))
    done, _ = await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        await task
    try:
        yield started.result()
    finally:
        task.cancel()
        async with asyncio.timeout(_WITHIN_S):
            await task


async def _knows(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 200


def _now() -> datetime:
    return datetime.now(UTC)
