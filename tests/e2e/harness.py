"""A trading floor for tests: real broker processes, scripted providers, the books."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import openai

from broker.embedded.child import Child, Command
from broker.flows.authenticate import Caller
from broker.flows.open_account import open_account
from broker.flows.sweep import release_orphans
from broker.flows.topup import top_up
from broker.store import keys
from broker.store.accounts import Role
from broker.store.database import create_engine, create_pool
from broker.store.keys import IssuedKey, KeyTerms
from provider_sdk.agent import Agent
from provider_sdk.client import BrokerClient
from provider_sdk.deployment import Deployment
from provider_sdk.protocol import EndpointOffer, TokenBand
from provider_sdk.testing.scripted import Script, ScriptedProvider

PATIENCE_S = 20.0
"""Nothing that must come takes so long; only a test that fails waits for it."""
FUNDS_NANOS = 1_000 * 10**9
_OPERATOR = Caller(uuid4(), "test", Role.OPERATOR)


async def until(holds: Callable[[], Awaitable[bool]], limit_s: float = PATIENCE_S) -> None:
    """Wait for something that must come; TimeoutError when it does not."""
    async with asyncio.timeout(limit_s):
        while not await holds():  # noqa: ASYNC110 - the state is another process's
            await asyncio.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class BrokerProcess:
    """One `broker serve` on a port that it keeps over restarts."""

    def __init__(self, env: Mapping[str, str], log: Path, port: int) -> None:
        listening = ("--host", "127.0.0.1", "--port", str(port))
        argv = [sys.executable, "-m", "broker.cli.main", "serve", *listening]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = Command("broker", argv, log, env=env)
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The process; there must have been a start."""
        assert self._child is not None
        return self._child

    async def start(self) -> None:
        """Start it, again after a stop; returns when it is ready."""
        self._child = await Child.start(self._command)
        async with httpx.AsyncClient() as http:

            async def ready() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await http.get(f"{self.url}/health/ready")).is_success
                return False

            await self._child.ready(ready, limit_s=PATIENCE_S)

    def ask_to_stop(self) -> None:
        """Send SIGTERM, and do not wait."""
        os.kill(self.child.pid, signal.SIGTERM)

    async def stop(self) -> None:
        """Stop it gracefully; a process that had to be killed fails the test."""
        if self._child is None or self._child.returncode is not None:
            return
        self.ask_to_stop()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._child.wait()
        finally:
            await self._child.stop(limit_s=0.1)

    async def kill(self) -> None:
        """`kill -9`."""
        os.kill(self.child.pid, signal.SIGKILL)
        await self.child.wait()


@dataclass(eq=False)
class Stall:
    """A scripted provider's deployment with one chat endpoint; `family` is what callers ask for.

    `price` is USD per million tokens, in and out, and the list price; the band reaches from a
    tenth of it to ten times as much. Each provider account has any number of stalls.
    """

    provider: str
    family: str
    price: str = "10"
    capacity: int = 64
    script: Script = field(default_factory=lambda: Script(output_tokens=8))
    server: ScriptedProvider = field(init=False)

    def __post_init__(self) -> None:
        self.server = ScriptedProvider(self.script)

    @property
    def name(self) -> str:
        """What the broker calls the endpoint."""
        return f"{self.provider}/{self.family}"

    def behave(self, **changes: Any) -> None:
        """Be as at first but for these fields of the script."""
        self.server.script = msgspec.structs.replace(self.script, **changes)

    def deployment(self) -> Deployment:
        """What the provider's agent is told."""
        low, high = float(self.price) / 10, float(self.price) * 10
        band = {"floor": f"{low:f}", "list": self.price, "ceiling": f"{high:f}"}
        prices = {f"{at}_{way}": usd for at, usd in band.items() for way in ("in", "out")}
        chat = EndpointOffer(
            name=self.family,
            model=self.family,
            upstream_model="scripted",
            tasks=["chat"],
            price=TokenBand(**prices),
        )
        return Deployment(
            name=self.family,
            url=self.server.url,
            server=self.server.url,
            kind="openai",
            capacity=self.capacity,
            endpoints=[chat],
        )


class Floor:
    """One database and Valkey, accounts, brokers and providers; everything ends with the block."""

    def __init__(self, database_url: str, valkey_url: str, folder: Path) -> None:
        self.database_url = database_url
        self.engine = create_engine(database_url, connections_max=2)
        self.brokers: list[BrokerProcess] = []
        self.keys: dict[str, IssuedKey] = {}
        self._env = {
            "DATABASE_URL": database_url,
            "VALKEY_URL": valkey_url,
            "BROKER_SECRET_KEY": "ab" * 32,
            "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        self._folder = folder
        self._clients = contextlib.AsyncExitStack()
        self._desks: dict[str, httpx.AsyncClient] = {}
        self._stalls = contextlib.AsyncExitStack()
        self._agents: list[tuple[Agent, asyncio.Task[None]]] = []

    async def __aenter__(self) -> Self:
        await self._become_a_market()
        await self.account(Role.CONSUMER, "shop", FUNDS_NANOS)
        await self.account(Role.OPERATOR, "desk")
        return self

    async def _become_a_market(self) -> None:
        """Draw an id of its own: a copied database has that of its template, and Valkey is one."""
        async with self.engine.begin() as connection:
            await connection.exec_driver_sql(
                "WITH old AS (DELETE FROM balances b USING ledger_accounts a"
                " WHERE a.id = b.ledger_account_id AND a.kind = 'world' RETURNING a.id)"
                " UPDATE ledger_accounts a SET id = uuidv7() FROM old WHERE a.id = old.id"
            )
            await connection.exec_driver_sql(
                "INSERT INTO balances (ledger_account_id, may_overdraw)"
                " SELECT id, true FROM ledger_accounts WHERE kind = 'world'"
            )

    async def __aexit__(self, *_: object) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            stack.push_async_callback(self._stalls.aclose)
            for broker in self.brokers:
                stack.push_async_callback(broker.stop)
            stack.push_async_callback(self._end_agents)
            stack.push_async_callback(self._clients.aclose)
        for log in self._folder.glob("broker-*.log"):
            text = log.read_text()
            assert "Traceback" not in text, text[-4_000:]

    async def _end_agents(self) -> None:
        for agent, _ in self._agents:
            agent.stop()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(task for _, task in self._agents))

    async def account(self, role: Role, name: str, funds_nanos: int = 0) -> IssuedKey:
        """Open an account with a key, and with funds."""
        now = datetime.now(UTC)
        account = await open_account(self.engine, name, role, author="test", now=now)
        async with self.engine.begin() as connection:
            self.keys[name] = await keys.issue(connection, account.id, KeyTerms(), now)
        if funds_nanos:
            await top_up(self.engine, _OPERATOR, name, funds_nanos, "test", now)
        return self.keys[name]

    async def open_broker(self, **settings: str) -> BrokerProcess:
        """Start a broker, beside those there are."""
        log = self._folder / f"broker-{len(self.brokers)}.log"
        broker = BrokerProcess(os.environ | self._env | settings, log, free_port())
        self.brokers.append(broker)
        await broker.start()
        return broker

    async def list_stalls(self, *stalls: Stall) -> None:
        """Have the stalls' agents enrol them, and wait until every broker offers them all."""
        by_provider: dict[str, list[Stall]] = {}
        for stall in stalls:
            await self._stalls.enter_async_context(stall.server)
            by_provider.setdefault(stall.provider, []).append(stall)
        for provider, its in by_provider.items():
            await self._enrol(provider, its)
        wanted = {stall.name: "ready" for stall in stalls}
        seen: dict[str, str] = {}

        async def listed(broker: BrokerProcess) -> bool:
            nonlocal seen
            seen = {name: each["health"] for name, each in (await self.market(broker)).items()}
            return wanted.items() <= seen.items()

        for broker in self.brokers:
            try:
                await until(lambda broker=broker: listed(broker))  # type: ignore[misc]
            except TimeoutError:
                raise AssertionError(f"{seen}\n{broker.log.read_text()}") from None

    async def _enrol(self, provider: str, stalls: list[Stall]) -> None:
        if provider not in self.keys:
            await self.account(Role.PROVIDER, provider)
        url, key = self.brokers[0].url, self.keys[provider].text
        deployments = [stall.deployment() for stall in stalls]
        async with BrokerClient(url, key) as client:
            for stall, deployment in zip(stalls, deployments, strict=True):
                # Known beforehand, so that the server itself answers for its origin.
                nonce = (await client.register(deployment.offer())).nonce
                stall.script = msgspec.structs.replace(stall.script, nonce=nonce)
                stall.behave()
        agent = Agent(deployments, broker=url, key=key, retry_s=(0.05, 0.5), drain_s=1)
        self._agents.append((agent, asyncio.create_task(agent.run())))

    def http(self, broker: BrokerProcess | None = None, key: str = "desk") -> httpx.AsyncClient:
        """A bare client with the key of an account, by name, or a key's own text."""
        known = self.keys.get(key)
        client = httpx.AsyncClient(
            base_url=(broker or self.brokers[0]).url,
            headers={"authorization": f"Bearer {known.text if known else key}"},
            timeout=PATIENCE_S,
        )
        self._clients.push_async_callback(client.aclose)
        return client

    def client(
        self, broker: BrokerProcess | None = None, key: str = "shop", **more: Any
    ) -> openai.AsyncOpenAI:
        """The unmodified client of a consumer."""
        url = f"{(broker or self.brokers[0]).url}/v1"
        client = openai.AsyncOpenAI(
            base_url=url, api_key=self.keys[key].text, timeout=PATIENCE_S, **more
        )
        self._clients.push_async_callback(client.close)
        return client

    async def market(self, broker: BrokerProcess | None = None) -> dict[str, dict[str, Any]]:
        """`GET /api/prices` by endpoint name."""
        told = (await self._desk(broker).get("/api/prices")).raise_for_status().json()
        return {each["name"]: each | {"version": told["version"]} for each in told["endpoints"]}

    async def story(self, call_id: UUID) -> dict[str, Any]:
        """`GET /api/calls/{id}`, as soon as the call is there."""
        answer = await self._desk().get(f"/api/calls/{call_id}")
        return cast("dict[str, Any]", answer.raise_for_status().json())

    def _desk(self, broker: BrokerProcess | None = None) -> httpx.AsyncClient:
        broker = broker or self.brokers[0]
        if broker.url not in self._desks:
            self._desks[broker.url] = self.http(broker)
        return self._desks[broker.url]

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Look into the books."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def lines(self, call_id: UUID | None = None) -> list[asyncpg.Record]:
        """The lines of all settlements, or of one call's, with `endpoint` by name."""
        return await self.rows(
            "SELECT l.*, p.name || '/' || e.name AS endpoint FROM settlement_lines l"
            " JOIN endpoints e ON e.id = l.endpoint_id JOIN accounts p ON p.id = e.provider_id"
            " WHERE $1::uuid IS NULL OR l.call_id = $1 ORDER BY l.call_id, l.attempt",
            call_id,
        )

    async def settlements(self) -> dict[UUID, asyncpg.Record]:
        """The settlement of every call; there is one each."""
        rows = await self.rows("SELECT * FROM settlements")
        by_call = {row["call_id"]: row for row in rows}
        assert len(by_call) == len(rows), "a call was settled twice"
        return by_call

    async def settlement(self, call_id: UUID) -> asyncpg.Record:
        """Wait for one call's settlement."""

        async def settled() -> bool:
            return call_id in await self.settlements()

        await until(settled)
        return (await self.settlements())[call_id]

    async def held(self) -> int:
        """How many holds are open."""
        return len(await self.rows("SELECT 1 FROM open_holds"))

    async def release_orphans(self) -> None:
        """Sweep until nothing is held for a dead process."""
        pool = await create_pool(self.database_url, connections_max=1)

        async def swept() -> bool:
            await release_orphans(pool, grace_s=0.0)
            return await self.held() == 0

        try:
            await until(swept)
        finally:
            await pool.close()
