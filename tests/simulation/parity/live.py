"""The broker live: `serve` with a real ledger, the real client, scripted providers on sockets."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

import asyncpg

from broker import bootstrap
from broker.core import story
from broker.core.call import Payer
from broker.core.catalog import Endpoint
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.errors import BrokerError
from broker.flows.calls.serve import serve
from broker.flows.calls.stream import Stream
from broker.flows.process.leave import Leave
from broker.flows.runtime import Runtime
from broker.gateway.admit import admit
from broker.gateway.openai import parse
from broker.settings import Limits, Settings
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.fakes import endpoint, market
from tests.integration.ledger.entries import open_account
from tests.simulation.parity.failures import FIRST_BYTE_S, Failures
from tests.simulation.parity.stub import Ended, Told

PATH = "/v1/chat/completions"
FUNDS_NANOS = 10**12


@dataclass
class Clock:
    """Stands still but for the gaps between calls, so that both runs see the same moments."""

    now_s: float = 0.0


@dataclass
class LiveBroker:
    """A runtime without its background, whose market is the scripted providers."""

    runtime: Runtime
    connection: asyncpg.Connection
    payer: Payer
    clock: Clock
    gap_s: float
    wanted: list[Requirements] = field(default_factory=list)

    async def run(self, failures: Failures, deadline_s: float) -> list[Ended]:
        """Serve the calls one after the other; what was attempted is read from the call log."""
        return [await self._call(failures.streams, deadline_s) for _ in range(failures.calls)]

    async def _call(self, streams: bool, deadline_s: float) -> Ended:
        body = {
            "model": "small",
            "messages": [{"role": "user", "content": "Hello there"}],
            "max_tokens": 32,
            "stream": streams,
            "broker": {"weights": {"quality": 1}, "deadline_s": deadline_s},
        }
        asked = parse(PATH, [], json.dumps(body).encode())
        call = admit(asked, self.payer, self.runtime)
        self.wanted.append(call.wanted)
        with contextlib.suppress(BrokerError):
            _, answer = await serve(call, self.runtime)
            if isinstance(answer, Stream):
                async for _ in answer.pieces():
                    pass
        self.clock.now_s += self.gap_s
        return await self._logged(call.id)

    async def _logged(self, call_id: UUID) -> Ended:
        packed = await self.connection.fetchval("SELECT story FROM calls WHERE id = $1", call_id)
        told = story.decode(packed)
        attempts = tuple(
            Told(each["endpoint_number"], each["started_ms"], each["outcome"])
            for each in told.attempts
        )
        return Ended(attempts, told.end)


@contextlib.asynccontextmanager
async def providers(failures: Failures) -> AsyncIterator[list[ScriptedProvider]]:
    """A server for each endpoint of the story; after its acts it answers."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(ScriptedProvider(_script(failures, number)))
            for number in range(len(failures.acts))
        ]


def _script(failures: Failures, number: int) -> Script:
    acts = tuple(each.script for each in failures.behaviours(number))
    # Who refuses connections does so for good: there is no call to which an act could belong.
    return Script(refuse=True) if acts and acts[0].refuse else Script(sequence=acts)


@contextlib.asynccontextmanager
async def live_broker(
    database_url: str, valkey_url: str, servers: list[ScriptedProvider], seed: int, gap_s: float
) -> AsyncIterator[LiveBroker]:
    """Build a runtime out of its real parts and put the servers on its market, if there are any."""
    settings = Settings(
        database_url=database_url,
        valkey_url=valkey_url,
        secret_key="00" * 32,
        allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        limits=Limits(first_byte_s=FIRST_BYTE_S),
    )
    clock = Clock()
    async with contextlib.AsyncExitStack() as stack:
        runtime = await bootstrap._build(settings, stack, Leave())
        connection = await asyncpg.connect(database_url)
        stack.push_async_callback(connection.close)
        funds = await open_account(connection, "consumer", FUNDS_NANOS)
        runtime.now_s = lambda: clock.now_s
        runtime.random = Random(seed)
        runtime.retries = RetryBudget(0.0)
        if servers:
            runtime.market = market(await _endpoints(connection, servers))
        runtime.pulse.fit(len(servers), len(servers))
        yield LiveBroker(runtime, connection, Payer(funds, "key", funds), clock, gap_s)


async def _endpoints(
    connection: asyncpg.Connection, servers: list[ScriptedProvider]
) -> list[Endpoint]:
    return [
        endpoint(
            number,
            f"provider-{number}/small",
            quality=0.9 - number / 5,
            upstream_model="scripted",
            ledger_account=await open_account(connection, "provider"),
            deployment={"url": server.url},
        )
        for number, server in enumerate(servers)
    ]
