"""More calls than the providers can serve: those that are served are served well."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

SLOTS = 4
SERVICE_MS = 150.0
CAPACITY_PER_S = SLOTS * 1_000 / SERVICE_MS
DEADLINE_S = 1.5
SETTLES_S = 4.0
LASTS_S = 9.0
HELD_UP_S_MAX = 0.5
ROUNDS_MAX = 4
PATH = "/v1/chat/completions"
ASKED = {"model": "acme/narrow", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}


async def call(shop: Consumer) -> httpx.Response:
    headers = {"x-broker-deadline-s": str(DEADLINE_S)}
    while True:
        # A kept connection may have idled for too long just then, and a caller who could not be
        # told in time, for want of a CPU, is let go without a word.
        with contextlib.suppress(httpx.RemoteProtocolError):
            return await shop.http.post(PATH, json=ASKED, headers=headers)


async def peak_per_s(shop: Consumer, lasts_s: float) -> float:
    """Return the goodput with just as many callers as there are slots, and one."""
    ends_s, served = time.monotonic() + lasts_s, 0

    async def ask_on() -> None:
        nonlocal served
        while time.monotonic() < ends_s:
            served += (await call(shop)).status_code == 200

    await asyncio.gather(*(ask_on() for _ in range(SLOTS + 1)))
    return served / lasts_s


@dataclass
class Rush:
    """What came of three times as many calls as can be served."""

    peak: float
    answers: list[tuple[float, httpx.Response]] = field(default_factory=list)
    prices: Counter[int] = field(default_factory=Counter)
    held_up_s: float = 0.0
    """So long at most was this process kept from running, which the broker shares."""

    @property
    def goodput(self) -> float:
        """Calls a second that were served once all had settled."""
        times = (at_s for at_s, each in self.answers if each.status_code == 200)
        return sum(SETTLES_S <= at_s < LASTS_S for at_s in times) / (LASTS_S - SETTLES_S)


async def rush(house: House, shop: Consumer) -> Rush:
    found = Rush(await peak_per_s(shop, 2.0))
    begun_s = time.monotonic()

    async def note() -> None:
        answer = await call(shop)
        found.answers.append((time.monotonic() - begun_s, answer))

    async with asyncio.TaskGroup() as group:
        count = 0
        while (now_s := time.monotonic() - begun_s) < LASTS_S:
            while count < 3 * CAPACITY_PER_S * now_s:
                group.create_task(note())
                count += 1
                if count % 50 == 0:
                    found.prices[(await house.operator.get("/api/prices")).status_code] += 1
            slept_s = time.monotonic()
            await asyncio.sleep(0.01)
            found.held_up_s = max(found.held_up_s, time.monotonic() - slept_s)
    return found


async def test_at_three_times_the_capacity_the_goodput_stays(house: House) -> None:
    # It declares 2,500 times what it can serve at once.
    script = Script(latency_ms=SERVICE_MS, capacity=SLOTS)
    await house.enrol(Stall(name="acme/narrow", capacity=2_500 * SLOTS, script=script))
    shop = await house.consumer("shop")
    for _ in range(ROUNDS_MAX):
        found = await rush(house, shop)
        if found.held_up_s < HELD_UP_S_MAX:
            break  # else it says nothing of the broker, but of the machine
    statuses = Counter(answer.status_code for _, answer in found.answers)
    told = (found.goodput, found.peak, found.held_up_s, statuses)
    assert found.goodput >= 0.9 * min(found.peak, CAPACITY_PER_S), told
    assert statuses[429] > 0
    for _, answer in found.answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "providers_full"
    assert set(found.prices) == {200}, "the control plane answers all the while"
    assert set(statuses) <= {200, 429, 504}, statuses


async def test_who_comes_again_when_it_is_told_to_is_served(house: House) -> None:
    script = Script(latency_ms=500.0, capacity=1)
    await house.enrol(Stall(name="acme/rare", capacity=1, script=script))
    shop = await house.consumer("patient")
    asked = ASKED | {"model": "acme/rare"}
    for _ in range(3):  # it is learned how long its calls take
        assert (await shop.http.post(PATH, json=asked)).status_code == 200
    calls = [asyncio.create_task(shop.http.post(PATH, json=asked)) for _ in range(3)]
    answers = await asyncio.gather(*calls)
    [refused] = [each for each in answers if each.status_code == 429]
    assert refused.json()["error"]["code"] == "providers_full"

    # With nobody else there it need not be told again; and it was not put off for ever.
    taken = [asyncio.create_task(shop.http.post(PATH, json=asked)) for _ in range(2)]
    await until(lambda: house.providers["acme/rare"].in_flight == 2)
    again = await shop.http.post(PATH, json=asked)
    assert again.status_code == 429
    wait_s = int(again.headers["retry-after"])
    assert wait_s <= 5
    await asyncio.sleep(wait_s)
    assert (await shop.http.post(PATH, json=asked)).status_code == 200
    assert {each.status_code for each in await asyncio.gather(*taken)} == {200}
