"""Callers who note what they were told of each call: plain, streamed, keyed, quoted; and top-ups.

A call bears the number of its note as a label, so that every charge in the books is found in a
note, whether or not its caller has heard of the call.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import httpx

from pricing.money import parse_usd_nanos
from tests.plain import TRUSTS_NOBODY

Kind = Literal["plain", "stream", "keyed", "keyed stream", "quoted", "quoted stream"]
Outcome = Literal[
    "whole", "served before", "refused", "broken", "cut", "left", "unreached", "never asked"
]
"""`broken`: told that it broke off, and what that cost; `cut`: told nothing; `left`: went away."""

PATIENCE_S: Final = 60.0
TOPUP_NANOS: Final = 7
_AGAIN_S: Final = 0.1
_BODY: Final = {"model": "common", "messages": [{"role": "user", "content": "What is new?"}]}
_AGAIN: Final = frozenset({409, 429, 500, 502, 503, 504})
"""What may be different a moment later."""


@dataclass(eq=False)
class Note:
    """What one caller wanted and was told, with the times of it."""

    number: int
    kind: Kind
    begun_s: float
    key: str | None = None
    quote: str | None = None
    brokers: list[int] = field(default_factory=list)
    """Which were asked, in turn."""
    calls: list[UUID] = field(default_factory=list)
    words: int = 0
    """Of the answer, as far as it was heard."""
    outcome: Outcome = "never asked"
    status: int = 0
    code: str = ""
    told: dict[UUID, int] = field(default_factory=dict)
    """What each of its calls cost, as it was told; nano-dollars."""
    left: bool = False
    """Its caller was made to go away in the midst of it."""
    ended_s: float = 0.0
    story: list[str] = field(default_factory=list)

    def hear(self, outcome: Outcome, status: int = 0, code: str = "") -> None:
        self.outcome, self.status, self.code = outcome, status, code
        self.story.append(f"{outcome} {status or ''} {code}".strip())


class Caller:
    """One consumer that calls again and again until it is told to stop."""

    def __init__(self, urls: list[str], keys: dict[str, str], chance: Random) -> None:
        self._urls = urls
        self._keys = keys
        self._chance = chance
        self._http = httpx.AsyncClient(timeout=PATIENCE_S, verify=TRUSTS_NOBODY)
        self.under_way: dict[Note, asyncio.Task[None]] = {}
        self.stopping = False
        self.topups: list[str] = []
        """The keys of top-ups that were answered for."""

    async def live(self, note: Callable[[Kind], Note]) -> None:
        kinds: list[Kind] = ["plain", "stream", "stream", "keyed", "keyed stream"]
        kinds += ["quoted", "quoted stream"]
        async with self._http:
            while not self.stopping:
                if self._chance.random() < 0.1:
                    await self._top_up()
                made = note(self._chance.choice(kinds))
                task = asyncio.create_task(self._call(made))
                self.under_way[made] = task
                try:
                    await asyncio.wait([task])
                finally:
                    del self.under_way[made]
                    if not task.done():
                        task.cancel()
                if made.left:
                    made.hear("left")
                    if made.key is not None:
                        await self._insist(made)
                else:
                    task.result()
                made.ended_s = time.monotonic()
                await asyncio.sleep(self._chance.uniform(0.0, 0.1))

    def leave(self, note: Note) -> None:
        """Have the caller of a note hang up."""
        note.left = True
        self.under_way[note].cancel()

    async def _call(self, note: Note) -> None:
        if note.kind.startswith("keyed"):
            note.key = f"order-{uuid4()}"
            await self._insist(note)
        elif note.kind.startswith("quoted"):
            note.quote = await self._quote()
            if note.quote is not None:
                await self._ask(note)
        else:
            await self._ask(note)

    async def _insist(self, note: Note) -> None:
        """Send a call under its key until its end is known."""
        due_s = time.monotonic() + PATIENCE_S
        while True:
            await self._ask(note)
            known = note.outcome in ("whole", "served before")
            known |= note.outcome == "refused" and note.status not in _AGAIN
            if known or time.monotonic() > due_s:
                return
            await asyncio.sleep(_AGAIN_S)

    async def _ask(self, note: Note) -> None:
        """Ask some broker, and of those that nobody reaches another."""
        places = list(range(len(self._urls)))
        self._chance.shuffle(places)
        for place in places:
            await self._ask_at(note, place)
            if note.outcome != "unreached":
                return

    async def _ask_at(self, note: Note, place: int) -> None:
        note.brokers.append(place)
        note.words = 0
        headers = {"authorization": f"Bearer {self._keys['shop']}"}
        if note.key is not None:
            keeps = "keeper" if note.number % 2 else "shop"
            headers = {"authorization": f"Bearer {self._keys[keeps]}", "idempotency-key": note.key}
        url = f"{self._urls[place]}/v1/chat/completions"
        try:
            async with self._http.stream("POST", url, json=_body(note), headers=headers) as answer:
                await self._hear(note, answer)
        except httpx.ConnectError:
            note.hear("unreached")
        except httpx.HTTPError as error:
            note.hear("cut", code=type(error).__name__)

    async def _hear(self, note: Note, answer: httpx.Response) -> None:
        call_id = answer.headers.get("x-broker-call-id")
        if call_id is not None:
            note.calls.append(UUID(call_id))
        if answer.status_code != 200:
            told = json.loads(await answer.aread())["error"]
            served = told["code"] == "already_served"
            if served:
                note.told[note.calls[-1]] = parse_usd_nanos(answer.headers["x-broker-cost-usd"])
            note.hear("served before" if served else "refused", answer.status_code, told["code"])
        elif answer.headers["content-type"].startswith("text/event-stream"):
            await self._listen(note, answer.aiter_lines())
        else:
            told = json.loads(await answer.aread())
            note.words = len(told["choices"][0]["message"]["content"].split())
            note.told[note.calls[-1]] = parse_usd_nanos(answer.headers["x-broker-cost-usd"])
            note.hear("whole", 200)

    async def _listen(self, note: Note, lines: AsyncIterator[str]) -> None:
        cost_nanos = None
        async for line in lines:
            if line == "data: [DONE]":
                assert cost_nanos is not None, "a stream ends with its cost"
                note.told[note.calls[-1]] = cost_nanos
                note.hear("whole", 200)
                return
            event = json.loads(line.removeprefix("data: ")) if line else {}
            if "error" in event:
                self._hear_break(note, event["error"])
                return
            if "broker" in event:
                cost_nanos = parse_usd_nanos(event["broker"]["cost_usd"])
            for choice in event.get("choices", ()):
                note.words += len((choice["delta"].get("content") or "").split())
        note.hear("cut", code="no end")

    def _hear_break(self, note: Note, error: dict[str, Any]) -> None:
        cost_usd = error.get("broker", {}).get("cost_usd")
        if cost_usd is not None:
            note.told[note.calls[-1]] = parse_usd_nanos(cost_usd)
        note.hear("broken", 200, error["code"])

    async def _quote(self) -> str | None:
        """Have a firm quote; None where that does not succeed at once."""
        wanted = {"task": "chat", "model": "common", "tokens_in": 200, "tokens_out_max": 32}
        answer = await self._post("shop", "/api/quotes", wanted | {"ttl_s": 120})
        return answer.json()["quote_id"] if answer is not None else None

    async def _top_up(self) -> None:
        """Put some nano-dollars on the account, once."""
        order = {"amount_usd": f"0.{TOPUP_NANOS:09}", "reason": f"{uuid4()}"}
        if await self._post("desk", "/api/accounts/shop/topups", order) is not None:
            self.topups.append(order["reason"])

    async def _post(self, key: str, path: str, order: dict[str, Any]) -> httpx.Response | None:
        """Order something once, asking as often as it takes; None when patience is over."""
        headers = {"authorization": f"Bearer {self._keys[key]}", "idempotency-key": f"{uuid4()}"}
        due_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < due_s:
            url = self._chance.choice(self._urls) + path
            try:
                answer = await self._http.post(url, json=order, headers=headers)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                return answer
            assert answer is None or answer.status_code in _AGAIN, answer.text
            await asyncio.sleep(_AGAIN_S)
        return None


def _body(note: Note) -> dict[str, Any]:
    wishes: dict[str, Any] = {"labels": {"note": str(note.number)}, "deadline_s": 20}
    if note.quote is not None:
        wishes["quote_id"] = note.quote
    body = _BODY | {"max_tokens": 32, "broker": wishes}
    if note.kind.endswith("stream"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body
