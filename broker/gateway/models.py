"""`GET /v1/models`: what a caller can name as `model`."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from broker.core.allowance import may_name
from broker.core.catalog import Endpoint, Task
from broker.errors import ModelUnknown
from broker.flows.runtime import Runtime
from broker.server.request import Request
from broker.store.keys import StoredKey
from pricing.book import EndpointUnpriced
from pricing.money import format_rate, format_usd

_PREFIX = "/v1/models"


async def list_models(request: Request, runtime: Runtime, key: StoredKey) -> None:
    """Answer with `auto`, the families and the endpoints; or with the one that the path names."""
    wanted = unquote(request.path.removeprefix(_PREFIX)).strip("/")
    listed, allowed = runtime.market.visible(key.account_id), key.terms.allowance
    if allowed is not None:
        listed = [each for each in listed if may_name(allowed, each.model, each.name)]
    models = _models(runtime, listed)
    if wanted:
        if wanted not in models:
            raise ModelUnknown(f"There is no model '{wanted}' here.")
        answer: object = models[wanted]
    else:
        answer = {"object": "list", "data": list(models.values())}
    request.answer(200, b"content-type: application/json\r\n", msgspec.json.encode(answer))


def _models(runtime: Runtime, endpoints: list[Endpoint]) -> dict[str, dict[str, object]]:
    models: dict[str, dict[str, object]] = {}
    if endpoints:
        models["auto"] = _entry("auto", "model-broker", _tasks(endpoints))
    for family in sorted({each.model for each in endpoints}):
        members = [each for each in endpoints if each.model == family]
        models[family] = _entry(family, "model-broker", _tasks(members)) | {
            "endpoints": [each.name for each in members]
        }
    for endpoint in endpoints:
        models[endpoint.name] = _entry(
            endpoint.name, endpoint.deployment.provider, sorted(endpoint.tasks)
        ) | _terms(runtime, endpoint)
    return models


def _entry(name: str, owner: str, tasks: list[Task]) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": owner,
        "tasks": [task.value for task in tasks],
    }


def _tasks(endpoints: list[Endpoint]) -> list[Task]:
    return sorted({task for each in endpoints for task in each.tasks})


def _terms(runtime: Runtime, endpoint: Endpoint) -> dict[str, object]:
    try:
        rate = runtime.market.book.rate(endpoint.number)
    except EndpointUnpriced:
        return {"pricing": None}
    signature, tensors = endpoint.signature, {}
    if signature is not None:
        tensors = {"inputs": signature.inputs, "outputs": signature.outputs}
    return tensors | {
        "model": endpoint.model,
        "version": endpoint.version,
        "domains": sorted(endpoint.domains),
        "context_length": endpoint.context_length_tokens,
        "pricing": {
            "in_per_mtok_usd": format_rate(rate.rate_in_micros),
            "out_per_mtok_usd": format_rate(rate.rate_out_micros),
            "per_call_usd": format_usd(rate.rate_call_nanos),
        },
    }
