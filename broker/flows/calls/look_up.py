"""Asks a KServe provider about a model of its own: metadata or configuration, for nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from broker.core.catalog import Endpoint
from broker.errors import NotFound, ProviderFailed
from broker.flows.calls.exchange import model_path
from broker.flows.market.targets import make_target
from broker.flows.runtime import Runtime
from broker.upstream.client import Timeouts, sized
from broker.upstream.faults import AttemptFailed

_ANSWER_BYTES_MAX = 1 << 20
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def look_up_model(endpoint: Endpoint, verb: str, runtime: Runtime) -> dict[str, Any]:
    """Return the members of the provider's answer, raw. Raises NotFound, ProviderFailed.

    `verb` is `config`, or empty for the metadata.
    """
    path = model_path(endpoint) + (f"/{verb}".encode() if verb else b"")
    target = make_target(endpoint.deployment, b"GET", path, ())
    limits = runtime.settings.limits
    timeouts = Timeouts(limits.connect_s, limits.connect_s, limits.connect_s, limits.connect_s)
    try:
        response = await runtime.upstream.send(
            target.origin, sized(target.prefix, None), b"", timeouts
        )
        body = await response.read(_ANSWER_BYTES_MAX)
    except AttemptFailed as failure:
        raise ProviderFailed(f"{endpoint.name} did not answer: {failure.outcome.detail}.") from None
    if response.status != 200:
        raise NotFound(f"{endpoint.name} does not tell that of itself.")
    try:
        return _members(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderFailed(f"{endpoint.name} answered with no JSON object.") from None
