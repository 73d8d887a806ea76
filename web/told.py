"""Turns calls and stories into what a viewer is told; a provider hears of its own attempts only."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.story import FORGOTTEN, Story, decode
from broker.flows.access.authenticate import Caller
from broker.flows.calls.read_call import newest_calls
from broker.store.access.accounts import Role
from web import reads, words
from web.reads import Named

SERVED = "served"
"""The code of a call that was answered whole."""
_REMEMBERED_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Gist:
    """A story in brief; it never changes, so it is remembered."""

    attempts: tuple[Mapping[str, Any], ...]
    why: str

    @property
    def numbers(self) -> set[int]:
        return {each["endpoint_number"] for each in self.attempts}


@dataclass(frozen=True, slots=True)
class Hop:
    """One attempt in the line of a call."""

    name: str
    outcome: str

    @property
    def delivered(self) -> bool:
        return self.outcome == "delivered"


@dataclass(frozen=True, slots=True)
class CallLine:
    """One call in a list. For a provider, the amount is what it earned."""

    call: Row[Any]
    hops: tuple[Hop, ...]
    why: str
    amount_nanos: int
    ttft_ms: float | None
    duration_ms: float
    tokens_in: int
    tokens_out: int
    own_only: bool

    @property
    def served(self) -> bool:
        if self.own_only:
            # Where the hops are forgotten, what was earned tells it.
            forgotten = not self.hops and self.amount_nanos > 0
            return forgotten or any(hop.delivered for hop in self.hops)
        return bool(self.call.code == SERVED)

    @property
    def verdict(self) -> str:
        """In a word or two, how it ended."""
        if self.served:
            return "served"
        if self.own_only:
            return words.phrase(self.hops[-1].outcome) if self.hops else "not served"
        # Some codes are called as reasons are, which begin a line elsewhere.
        return words.phrase(self.call.code or str(self.call.status)).lower()


class Teller:
    """Tells calls, and remembers what it read of stories and names."""

    def __init__(self) -> None:
        self._gists: OrderedDict[UUID, Gist] = OrderedDict()
        self._names: dict[int, Named] = {}

    async def last_calls(
        self, connection: AsyncConnection, caller: Caller, limit: int
    ) -> list[CallLine]:
        """Return the newest calls that concern the caller, newest first."""
        ids = await newest_calls(connection, caller, limit)
        return await self.lines(connection, caller, await reads.calls(connection, ids))

    async def lines(
        self, connection: AsyncConnection, caller: Caller, calls: Sequence[Row[Any]]
    ) -> list[CallLine]:
        """Return these calls as lines."""
        gists = await self._brief(connection, [each.id for each in calls])
        names = await self.names(connection, {n for gist in gists.values() for n in gist.numbers})
        if caller.role is not Role.PROVIDER:
            return [_line(each, gists[each.id], names) for each in calls]
        earned = await self._earned(connection, caller, [each.id for each in calls])
        return [
            _own_line(each, gists[each.id], names, caller, earned.get(each.id, ()))
            for each in calls
        ]

    async def names(self, connection: AsyncConnection, numbers: Iterable[int]) -> dict[int, Named]:
        """Return what endpoint numbers stand for; a number never changes its meaning."""
        missing = [number for number in numbers if number not in self._names]
        if missing:
            self._names.update(await reads.names(connection, missing))
        return self._names

    async def _brief(self, connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Gist]:
        missing = [each for each in ids if each not in self._gists]
        if missing:
            packed = await reads.stories(connection, missing)
            # A large market's stories take milliseconds each; calls under way should not wait.
            self._gists.update(await asyncio.to_thread(_gists, packed))
        found = {each: self._gists[each] for each in ids}
        while len(self._gists) > _REMEMBERED_MAX:
            self._gists.popitem(last=False)
        return found

    async def _earned(
        self, connection: AsyncConnection, caller: Caller, ids: Sequence[UUID]
    ) -> dict[UUID, list[Row[Any]]]:
        earned: dict[UUID, list[Row[Any]]] = {}
        for line in await reads.charges(connection, ids):
            if line.provider_id == caller.account_id:
                earned.setdefault(line.call_id, []).append(line)
        return earned


def own_attempts(
    attempts: Iterable[Mapping[str, Any]], names: Mapping[int, Named], caller: Caller
) -> list[Mapping[str, Any]]:
    """Return the attempts that were at the caller's endpoints."""
    return [
        each
        for each in attempts
        if each["endpoint_number"] in names
        and names[each["endpoint_number"]].provider_id == caller.account_id
    ]


def name_of(names: Mapping[int, Named], number: int) -> str:
    """Return the name of an endpoint number; one that nothing is known of keeps its number."""
    return names[number].name if number in names else f"endpoint {number}"


def _gists(packed: Mapping[UUID, bytes]) -> dict[UUID, Gist]:
    return {each: _gist(decode(story)) for each, story in packed.items()}


def _gist(story: Story) -> Gist:
    return Gist(tuple(story.attempts), why(story))


def why(story: Story) -> str:
    """Say in one line why the call went where it went."""
    if story.end == FORGOTTEN:
        return "forgotten"
    rejected = len(story.rejected)
    beside = f", {rejected} rejected" if rejected else ""
    if not story.candidates:
        reasons = sorted({words.phrase(each.reason).lower() for each in story.rejected})
        return ", ".join(reasons)
    first = story.candidates[0]
    if len(story.candidates) == 1:
        return f"the only fit, score {first.score:.2f}{beside}"
    return f"{_place(story)} of {len(story.candidates)}, score {first.score:.2f}{beside}"


def _place(story: Story) -> str:
    """Say what made the first candidate the first."""
    if any(each.get("judged") is not None for each in story.attempts):
        return "first in the chain"
    if story.candidates[0].score >= max(each.score for each in story.candidates):
        return "best"
    if story.requirements.get("providers_order"):
        return "first as ordered"
    return "drawn among the best"


def _hops(attempts: Iterable[Mapping[str, Any]], names: Mapping[int, Named]) -> tuple[Hop, ...]:
    return tuple(Hop(name_of(names, each["endpoint_number"]), each["outcome"]) for each in attempts)


def _line(call: Row[Any], gist: Gist, names: Mapping[int, Named]) -> CallLine:
    return CallLine(
        call=call,
        hops=_hops(gist.attempts, names),
        why=gist.why,
        amount_nanos=call.charge_nanos,
        ttft_ms=call.ttft_ms,
        duration_ms=call.duration_ms,
        tokens_in=call.tokens_in,
        tokens_out=call.tokens_out,
        own_only=False,
    )


def _own_line(
    call: Row[Any],
    gist: Gist,
    names: Mapping[int, Named],
    caller: Caller,
    earned: Sequence[Row[Any]],
) -> CallLine:
    own = own_attempts(gist.attempts, names, caller)
    counts = own or [
        {"tokens_in": each.tokens_in, "tokens_out": each.tokens_out} for each in earned
    ]
    return CallLine(
        call=call,
        hops=_hops(own, names),
        why="",
        amount_nanos=sum(each.earnings_nanos for each in earned),
        ttft_ms=next((each["ttft_ms"] for each in own if each["ttft_ms"] is not None), None),
        duration_ms=sum(each["duration_ms"] for each in own),
        tokens_in=sum(each["tokens_in"] for each in counts),
        tokens_out=sum(each["tokens_out"] for each in counts),
        own_only=True,
    )
