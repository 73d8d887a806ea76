"""A trading floor for tests: accounts, real broker processes, scripted providers, the books."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import openai

from broker.embedded.port import free_port
from broker.flows.access.authenticate import Caller
from broker.flows.access.open_account import open_account
from broker.flows.books.sweep import release_orphans
from broker.flows.money.topup import top_up
from broker.store.access import keys
from broker.store.access.accounts import Role
from broker.store.access.keys import IssuedKey, KeyTerms
from broker.store.database import create_engine, create_pool
from provider_sdk.agent import Agent
from provider_sdk.client import BrokerClient
from tests.e2e.process import BrokerProcess
from tests.e2e.stall import Stall
from tests.plain import TRUSTS_NOBODY
from tests.waiting import PATIENCE_S, until

FUNDS_NANOS = 1_000 * 10**9
_OPERATOR = Caller(uuid4(), "test", Role.OPERATOR)


class Floor:
    """One database and Valkey, accounts, brokers and providers; everything ends with the block."""

    def __init__(self, database_url: str, valkey_url: str, folder: Path) -> None:
        self.database_url = database_url
        self.engine = create_engine(database_url, connections_max=2)
        self.brokers: list[BrokerProcess] = []
        self.door: str | None = None
        """The URL at which agents find the brokers; None is that of the first."""
        self.keys: dict[str, IssuedKey] = {}
        self.env = {
            "DATABASE_URL": database_url,
            "VALKEY_URL": valkey_url,
            "BROKER_SECRET_KEY": "ab" * 32,
            "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        self._folder = folder
        self._clients = contextlib.AsyncExitStack()
        self._https: dict[tuple[str, str], httpx.AsyncClient] = {}
        self._buyers: dict[tuple[str, str, int], openai.AsyncOpenAI] = {}
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
        for broker in self.brokers:
            await until(lambda broker=broker: self._knows(broker, name))  # type: ignore[misc]
        return self.keys[name]

    async def _knows(self, broker: BrokerProcess, name: str) -> bool:
        """Has a broker that is up read the account's key? It does so within a second or two."""
        try:
            return (await self.http(broker, name).get("/v1/models")).status_code != 401
        except httpx.TransportError:
            return True

    async def open_broker(self, workers: int = 1, **settings: str) -> BrokerProcess:
        """Start a broker, beside those there are."""
        log = self._folder / f"broker-{len(self.brokers)}.log"
        broker = BrokerProcess(os.environ | self.env | settings, log, free_port(), workers)
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
        url, key = self.door or self.brokers[0].url, self.keys[provider].text
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
        """A bare client with the key of an account; one for all who ask for the same."""
        url = (broker or self.brokers[0]).url
        if (url, key) not in self._https:
            bearer = {"authorization": f"Bearer {self.keys[key].text}"}
            client = httpx.AsyncClient(
                base_url=url, headers=bearer, timeout=PATIENCE_S, verify=TRUSTS_NOBODY
            )
            self._clients.push_async_callback(client.aclose)
            self._https[url, key] = client
        return self._https[url, key]

    def client(
        self, broker: BrokerProcess | None = None, key: str = "shop", max_retries: int = 2
    ) -> openai.AsyncOpenAI:
        """The unmodified client of a consumer; one for all who ask for the same."""
        asked = ((broker or self.brokers[0]).url, key, max_retries)
        if asked not in self._buyers:
            client = openai.AsyncOpenAI(
                base_url=f"{asked[0]}/v1",
                api_key=self.keys[key].text,
                timeout=PATIENCE_S,
                max_retries=max_retries,
            )
            self._clients.push_async_callback(client.close)
            self._buyers[asked] = client
        return self._buyers[asked]

    async def market(self, broker: BrokerProcess | None = None) -> dict[str, dict[str, Any]]:
        """`GET /api/prices` by endpoint name."""
        told = (await self.http(broker).get("/api/prices")).raise_for_status().json()
        return {each["name"]: each | {"version": told["version"]} for each in told["endpoints"]}

    async def story(self, call_id: UUID) -> dict[str, Any]:
        """`GET /api/calls/{id}`, as soon as the call is there."""
        answer = await self.http().get(f"/api/calls/{call_id}")
        return cast("dict[str, Any]", answer.raise_for_status().json())

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
