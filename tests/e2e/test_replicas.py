"""Several brokers on one database and Valkey are one market."""

from __future__ import annotations

import asyncio

import openai
import pytest

from broker.store.access.accounts import Role
from tests.e2e.harness import Floor
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, ask, chat, listen
from tests.waiting import until

pytestmark = pytest.mark.e2e

TICK_LOCK = 0x7469636B
AT_ONCE_S = 15.0
"""For what is told to the other brokers at once; unprompted, they would look in 30 s."""


async def leaders(floor: Floor) -> list[int]:
    """The database sessions that lead the price tick."""
    rows = await floor.rows(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND objsubid = 1"
        " AND granted AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())",
        TICK_LOCK,
    )
    return [row["pid"] for row in rows]


async def test_two_brokers_are_one_market(floor: Floor) -> None:
    first = await floor.open_broker()
    second = await floor.open_broker()
    stall = Stall("acme", "common", capacity=2)
    await floor.list_stalls(stall)
    await _both_serve(floor)
    await _counts_are_shared(floor, stall)
    await _a_revoked_key_is_dead_everywhere(floor)
    [leader] = await leaders(floor)
    await first.kill()  # it came first, so it leads

    async def led_anew() -> bool:
        return [pid for pid in await leaders(floor) if pid != leader] != []

    await until(led_anew)
    assert len(await leaders(floor)) == 1
    served = await ask(floor.client(second), Told(), **chat("common"))
    assert served.whole
    changes = await floor.rows("SELECT version, endpoint_number FROM price_changes")
    assert len(set(changes)) == len(changes)
    await floor.release_orphans()


async def _both_serve(floor: Floor) -> None:
    told = [await ask(floor.client(broker), Told(), **chat("common")) for broker in floor.brokers]
    settlements = await floor.settlements()
    for each in told:
        assert each.call_id is not None
        assert settlements[each.call_id]["charge_nanos"] == each.cost_nanos
    assert len(await leaders(floor)) == 1


async def _counts_are_shared(floor: Floor, stall: Stall) -> None:
    first, second = floor.brokers

    async def at_rest() -> bool:
        markets = [await floor.market(broker) for broker in floor.brokers]
        return not any(market[stall.name]["load"] for market in markets)

    await until(at_rest)  # else one of four may be refused for a call that the other has just ended
    stall.behave(tokens_per_s=20.0, output_tokens=10_000)
    client = floor.client(first, max_retries=0)
    calls = [
        asyncio.create_task(listen(client, Told(), **chat("common", max_tokens=10_000)))
        for _ in range(4)
    ]

    async def seen_full() -> bool:
        return bool((await floor.market(second))[stall.name]["load"] == 2.0)

    await until(seen_full, AT_ONCE_S)
    with pytest.raises(openai.RateLimitError) as refused:
        await ask(floor.client(second, max_retries=0), Told(), **chat("common"))
    assert refused.value.code == "providers_full"
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    async def seen_free() -> bool:
        return bool((await floor.market(second))[stall.name]["load"] == 0.0)

    await until(seen_free, AT_ONCE_S)
    stall.behave()


async def _a_revoked_key_is_dead_everywhere(floor: Floor) -> None:
    first, second = floor.brokers
    issued = await floor.account(Role.CONSUMER, "leaver")
    theirs = floor.http(second, key="leaver")

    async def known() -> bool:
        return (await theirs.get("/v1/models")).status_code == 200

    await until(known, AT_ONCE_S)
    (await floor.http(first).delete(f"/api/keys/{issued.id}")).raise_for_status()

    async def refused() -> bool:
        return (await theirs.get("/v1/models")).status_code == 401

    await until(refused, AT_ONCE_S)
