"""`GET /v1/models`: what a caller can name as `model`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

import msgspec

from broker.core.candidates.allowance import may_name
from broker.core.catalog import Endpoint, Task
from broker.core.columns import AUTO
from broker.core.market import Market
from broker.errors import ModelUnknown
from broker.flows.runtime import Runtime
from broker.server.request import Request
from broker.store.access.keys import StoredKey
from pricing.book import EndpointUnpriced
from pricing.money import format_rate, format_usd

_PREFIX: Final = "/v1/models"
AT_ONCE_MAX: Final = 500
"""Of a larger market calls should not wait while it is told: that is done in a thread."""


async def list_models(request: Request, runtime: Runtime, key: StoredKey) -> None:
    """Answer with `auto`, the families and the endpoints; or with the one that the path names."""
    wanted = unquote(request.path.removeprefix(_PREFIX)).strip("/")
    market, listed = runtime.market, listed_for(key, runtime.market)
    if wanted:
        answer = tell_one(market, listed, wanted)
    elif len(listed) <= AT_ONCE_MAX:
        answer = tell_all(market, listed)
    else:
        answer = await asyncio.to_thread(tell_all, market, listed)
    request.answer(200, b"content-type: application/json\r\n", answer)


def listed_for(key: StoredKey, market: Market) -> list[Endpoint]:
    """Return the endpoints that a key may ask for, by name."""
    listed, allowed = market.visible(key.account_id), key.terms.allowance
    if allowed is None:
        return listed
    return [each for each in listed if may_name(allowed, each.model, each.name)]


def tell_one(market: Market, listed: list[Endpoint], wanted: str) -> bytes:
    """Return one of them as JSON, an endpoint with the tensors that it takes and gives, where these
    are known. Raises ModelUnknown."""
    family = [each for each in listed if each.model == wanted or wanted == AUTO]
    found = _entry_of(wanted, family) if family else None
    for endpoint in listed:
        if endpoint.name == wanted:
            signature, found = endpoint.signature, _endpoint(market, endpoint)
            if signature is not None:
                found |= {"inputs": signature.inputs, "outputs": signature.outputs}
    if found is None:
        raise ModelUnknown(f"There is no model '{wanted}' here.")
    return msgspec.json.encode(found)


def tell_all(market: Market, listed: list[Endpoint]) -> bytes:
    """Return all that may be named, as JSON."""
    entries = list(entries_of(market, listed).values())
    return msgspec.json.encode({"object": "list", "data": entries})


def entries_of(market: Market, listed: list[Endpoint]) -> dict[str, dict[str, object]]:
    """Return what is told of `auto`, the families and the endpoints, by name."""
    families: dict[str, list[Endpoint]] = {}
    for each in listed:
        families.setdefault(each.model, []).append(each)
    models = {AUTO: _entry_of(AUTO, listed)} if listed else {}
    models |= {name: _entry_of(name, families[name]) for name in sorted(families)}
    return models | {each.name: _endpoint(market, each) for each in listed}


def _entry_of(name: str, members: list[Endpoint]) -> dict[str, object]:
    entry = _entry(name, "model-broker", {task for each in members for task in each.tasks})
    return entry if name == AUTO else entry | {"endpoints": [each.name for each in members]}


def _entry(name: str, owner: str, tasks: Iterable[Task]) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": owner,
        "tasks": sorted(task.value for task in tasks),
    }


def _endpoint(market: Market, endpoint: Endpoint) -> dict[str, object]:
    entry = _entry(endpoint.name, endpoint.deployment.provider, endpoint.tasks)
    try:
        rate = market.book.rate(endpoint.number)
    except EndpointUnpriced:
        return entry | {"price": None}
    return entry | {
        "model": endpoint.model,
        "version": endpoint.version,
        "domains": sorted(endpoint.domains),
        "context_length_tokens": endpoint.context_length_tokens,
        "price": {
            "price_in_usd": format_rate(rate.rate_in_micros),
            "price_out_usd": format_rate(rate.rate_out_micros),
            "price_call_usd": format_usd(rate.rate_call_nanos),
        },
    }
