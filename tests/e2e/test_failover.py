"""What a caller gets when providers fail before they have answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import openai
import pytest

from broker.store.access.accounts import Role
from provider_sdk.testing.scripted import Script
from tests.e2e.harness import Floor
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, ask, chat
from tests.waiting import until

pytestmark = pytest.mark.e2e

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "refused": ({"refuse": True}, "connect_failed"),
    "reset": ({"reset": True}, "reset"),
    "unavailable": ({"status": 503}, "overloaded"),
    "busy": ({"status": 429, "retry_after_s": 7.0}, "overloaded"),
    "broken": ({"status": 500}, "server_error"),
    "locked": ({"status": 401}, "credential"),
    "gone": ({"status": 404}, "not_found"),
    "malformed": ({"malformed_json": True}, "malformed"),
    "wrong-type": ({"wrong_content_type": True}, "malformed"),
    "empty": ({"empty": True}, "malformed"),
    "cut": ({"cut_after_bytes": 40}, "reset"),
    "stalled": ({"stall": True}, "first_byte_timeout"),
}
"""What a provider does, and what the broker calls it."""

FIRST_SHAKY = {"providers": {"order": ["shaky", "solid"]}}


@pytest.fixture(scope="module")
async def stalls(common_floor: Floor) -> dict[str, Stall]:
    """For each family a stall that will fail and one that serves."""
    families = [*FAULTS, "choosy", "liar", "hopeless", "stuck", "crowded"]
    both = [Stall(provider, family) for family in families for provider in ("shaky", "solid")]
    for each in both:
        each.capacity = 2 if each.family == "crowded" else each.capacity
    await common_floor.list_stalls(*both)
    return {stall.name: stall for stall in both}


@pytest.mark.parametrize("family", FAULTS)
async def test_a_fault_before_the_answer_is_served_by_another_provider(
    common_floor: Floor, stalls: dict[str, Stall], family: str
) -> None:
    shaky, solid = stalls[f"shaky/{family}"], stalls[f"solid/{family}"]
    script, fault = FAULTS[family]
    shaky.behave(**script)
    told = await ask(common_floor.client(max_retries=0), Told(), **chat(family, FIRST_SHAKY))
    assert (told.endpoint, told.tokens_out) == (solid.name, 8)
    assert told.call_id is not None
    story = await common_floor.story(told.call_id)
    attempts = [(each["endpoint"], each["outcome"]) for each in story["attempts"]]
    assert attempts == [(shaky.name, fault), (solid.name, "delivered")]
    lines = await common_floor.lines(told.call_id)
    assert [(line["endpoint"], line["attempt"]) for line in lines] == [(solid.name, 1)]
    assert lines[0]["charge_nanos"] == told.cost_nanos
    assert (await common_floor.settlement(told.call_id))["charge_nanos"] == told.cost_nanos


async def test_a_provider_s_400_is_passed_on_and_held_against_nobody(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    shaky, solid = stalls["shaky/choosy"], stalls["solid/choosy"]
    calls_before = solid.server.calls
    shaky.behave(status=400)
    client = common_floor.client()
    for _ in range(3):  # as many as it takes to be ejected; of more, its peer is asked too
        with pytest.raises(openai.BadRequestError, match="scripted failure") as refused:
            await ask(client, Told(), **chat("choosy", FIRST_SHAKY))
        assert refused.value.code == "provider_refused"
    assert solid.server.calls == calls_before
    assert (await common_floor.market())[shaky.name]["health"] == "ready"
    shaky.behave()
    told = await ask(client, Told(), **chat("choosy", FIRST_SHAKY))
    assert told.endpoint == shaky.name
    assert told.call_id is not None
    [served] = (await common_floor.story(told.call_id))["candidates"][:1]
    assert served["parts"]["availability"] == pytest.approx(1.0)


async def test_usage_that_is_a_lie_is_cut_to_what_the_bytes_allow(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    stalls["shaky/liar"].behave(usage_factor=10.0)
    told = await ask(common_floor.client(), Told(), **chat("liar", FIRST_SHAKY))
    assert (told.endpoint, told.tokens_out) == ("shaky/liar", 80), "the answer passes untouched"
    assert told.call_id is not None
    [line] = await common_floor.lines(told.call_id)
    assert line["tokens_out"] <= len(told.text.encode()) + 8
    assert line["tokens_out"] < 80
    [attempt] = (await common_floor.story(told.call_id))["attempts"]
    assert "tokens_out_cut_from_80" in attempt["notes"]
    assert line["charge_nanos"] == told.cost_nanos


async def test_when_all_fail_the_caller_hears_of_each_attempt_and_does_not_call_again(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    for provider in ("shaky", "solid"):
        stalls[f"{provider}/hopeless"].behave(status=500)
    client = common_floor.client()
    assert client.max_retries > 0, "it would call again if it were not told"
    with pytest.raises(openai.InternalServerError) as failed:
        await ask(client, Told(), **chat("hopeless", FIRST_SHAKY))
    assert failed.value.status_code == 502
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert failed.value.code == "all_providers_failed"
    told = failed.value.body["broker"]["attempts"]  # type: ignore[index]
    assert {each["endpoint"] for each in told} == {"shaky/hopeless", "solid/hopeless"}
    assert {each["outcome"] for each in told} == {"server_error"}
    rows = await common_floor.rows("SELECT * FROM calls WHERE model = 'hopeless'")
    assert [(row["status"], row["charge_nanos"]) for row in rows] == [(502, 0)]
    assert (await common_floor.settlement(rows[0]["id"]))["kind"] == "released"


async def test_a_deadline_ends_the_call_and_cancels_the_work(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    stuck = stalls["shaky/stuck"]
    stuck.behave(stall=True)
    wishes = FIRST_SHAKY | {"deadline_s": 0.2}
    with pytest.raises(openai.InternalServerError) as late:
        await ask(common_floor.client(), Told(), **chat("stuck", wishes))
    assert (late.value.status_code, late.value.code) == (504, "deadline_passed")
    assert late.value.response.headers["x-should-retry"] == "false"

    async def cancelled() -> bool:
        return stuck.server.cancelled == 1

    await until(cancelled)
    [row] = await common_floor.rows("SELECT * FROM calls WHERE model = 'stuck'")
    assert (await common_floor.settlement(row["id"]))["kind"] == "released"
    assert (await common_floor.market())[stuck.name]["health"] == "ready"


async def test_a_caller_is_asked_to_come_again_when_all_providers_are_full(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    full = [stalls["shaky/crowded"], stalls["solid/crowded"]]
    for stall in full:
        stall.behave(ttft_ms=60_000)  # after the head of the answer
    client = common_floor.client(max_retries=0)
    waiting = [asyncio.create_task(ask(client, Told(), **chat("crowded"))) for _ in range(8)]

    async def taken() -> bool:
        return sum(stall.server.in_flight for stall in full) == 8

    await until(taken)
    with pytest.raises(openai.RateLimitError) as refused:
        await ask(client, Told(), **chat("crowded"))
    assert refused.value.code == "providers_full"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert "x-should-retry" not in refused.value.response.headers
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    async def free() -> bool:
        return sum(stall.server.in_flight for stall in full) == 0

    await until(free)


async def test_a_call_that_may_cost_more_than_there_is_does_not_begin(
    common_floor: Floor, stalls: dict[str, Stall]
) -> None:
    await common_floor.account(Role.CONSUMER, "poor", 1_000)
    calls_before = stalls["solid/liar"].server.calls
    with pytest.raises(openai.APIStatusError) as refused:
        await ask(common_floor.client(key="poor"), Told(), **chat("solid/liar"))
    assert (refused.value.status_code, refused.value.code) == (402, "insufficient_balance")
    assert stalls["solid/liar"].server.calls == calls_before


async def test_with_the_cheapest_of_three_killed_under_load_every_call_succeeds(
    floor: Floor,
) -> None:
    # One of its own: its budget of retries is whole, and who is slow has time on a busy machine.
    await floor.open_broker(BROKER_HEARTBEAT_INTERVAL_MS="60000")
    prices = {"lean": "1", "fair": "5", "grand": "9"}
    trio = [Stall(name, "trio", price) for name, price in prices.items()]
    for stall in trio:
        stall.script = Script(output_tokens=8, latency_ms=30)
    await floor.list_stalls(*trio)
    client = floor.client(max_retries=0)
    cheapest = trio[0]
    done = 0
    answers: list[Told] = []

    async def caller() -> None:
        nonlocal done
        while done < 500:
            done += 1
            if done == 200:
                cheapest.server.kill()
            answers.append(await ask(client, Told(), **chat("trio", {"weights": "cheap"})))

    before = {stall.name: stall.server.finished for stall in trio}  # the probes' calls
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(caller())
    await _check_trio(floor, trio, before, answers)


async def _check_trio(
    floor: Floor, trio: list[Stall], before: dict[str, int], answers: list[Told]
) -> None:
    assert len(answers) == len({told.call_id for told in answers}) == 500
    settlements = await floor.settlements()
    by_call: dict[Any, list[Any]] = {}
    for line in await floor.lines():
        by_call.setdefault(line["call_id"], []).append(line)
    for told in answers:
        assert told.call_id is not None
        [line] = by_call[told.call_id]
        assert (line["endpoint"], line["tokens_out"]) == (told.endpoint, 8)
        assert settlements[told.call_id]["charge_nanos"] == line["charge_nanos"] == told.cost_nanos
    paid = Counter(told.endpoint for told in answers)
    for stall in trio:
        assert paid[stall.name] <= stall.server.finished - before[stall.name]
    assert paid[trio[0].name] >= 100, "it had been the first choice"
    failed_over = await floor.rows(
        "SELECT 1 FROM calls c JOIN settlement_lines l ON l.call_id = c.id"
        " WHERE c.model = 'trio' AND l.attempt > 0"
    )
    assert failed_over, "somebody met the death"
