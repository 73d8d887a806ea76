"""`POST /v2/repository/index`: which models Triton's clients can ask, told by the broker of itself.

No provider is asked, and whatever else stands under `/v2/repository` is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import msgspec

from broker.core.catalog import Endpoint, Task
from broker.core.market import Market, Presence
from broker.errors import RequestMalformed
from broker.flows.runtime import Runtime
from broker.gateway.models import AT_ONCE_MAX, listed_for
from broker.server.request import Request
from broker.store.access.keys import StoredKey

_READY: Final = "READY"


class _Asked(msgspec.Struct):
    ready: bool = False


class Entry(msgspec.Struct, frozen=True):
    """One version of a model or an endpoint; `reason` says why it cannot be called now."""

    name: str
    version: str
    state: str
    reason: str


_asked = msgspec.json.Decoder(_Asked)


async def tell_index(request: Request, runtime: Runtime, key: StoredKey) -> None:
    """Answer with families and endpoints that infer; `{"ready": true}` leaves out who is away."""
    if request.trouble is not None:
        raise request.trouble
    try:
        ready = _asked.decode(request.body).ready if request.body else False
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestMalformed('The body is nothing, or {"ready": true}.') from None
    market, listed = runtime.market, listed_for(key, runtime.market)
    if len(listed) <= AT_ONCE_MAX:
        answer = index_of(market, listed, ready=ready)
    else:
        answer = await asyncio.to_thread(index_of, market, listed, ready=ready)
    request.answer(200, b"content-type: application/json\r\n", answer)


def index_of(market: Market, listed: list[Endpoint], *, ready: bool) -> bytes:
    """Return the index as JSON: families first, ready where any of them is, then endpoints."""
    endpoints = [_entry(market, each) for each in listed if Task.INFER in each.tasks]
    entries = sorted({*_families(market, listed), *endpoints}, key=_place)
    return msgspec.json.encode([each for each in entries if each.state == _READY or not ready])


def _families(market: Market, listed: list[Endpoint]) -> Iterator[Entry]:
    best: dict[tuple[str, str], Entry] = {}
    for each in listed:
        if Task.INFER in each.tasks:
            entry = _entry(market, each, each.model)
            found = best.setdefault((entry.name, entry.version), entry)
            if found.state != _READY:
                best[entry.name, entry.version] = entry
    yield from best.values()


def _entry(market: Market, endpoint: Endpoint, name: str | None = None) -> Entry:
    presence = market.presence.get(endpoint.deployment.number, Presence.READY)
    is_ready = presence is Presence.READY
    state, reason = (_READY, "") if is_ready else ("UNAVAILABLE", presence.name.lower())
    return Entry(name or endpoint.name, endpoint.version, state, reason)


def _place(entry: Entry) -> tuple[bool, str, str]:
    return "/" in entry.name, entry.name, entry.version
