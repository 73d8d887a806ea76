"""Asks a KServe provider about a model of its own: metadata or configuration, for nothing."""

from __future__ import annotations

from broker.core.catalog import Endpoint
from broker.errors import NotFound, ProviderFailed
from broker.flows.exchange import model_path
from broker.flows.runtime import Runtime
from broker.flows.targets import make_target
from broker.upstream.client import Timeouts, sized
from broker.upstream.faults import AttemptFailed

_ANSWER_BYTES_MAX = 1 << 20


async def look_up_model(
    endpoint: Endpoint, verb: str, runtime: Runtime
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return (headers, body) of the provider's answer. Raises NotFound, ProviderFailed.

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
    return [(b"content-type", b"application/json")], body
