"""Takes heartbeats: the signature of each is its proof, so no key is asked for."""

from __future__ import annotations

from litestar import post
from litestar.params import JSONBody

from broker.api.callers import OPEN
from broker.api.parts import GivenParts
from provider_sdk.protocol import HeartbeatBatch, HeartbeatReply

BATCH_BYTES_MAX = 8 << 20
"""Ten thousand heartbeats, the most that a batch may hold, are some five megabytes."""


@post(
    "/api/provider/heartbeats",
    summary="Take a batch of signed heartbeats",
    tags=["Providers"],
    status_code=200,
    request_max_body_size=BATCH_BYTES_MAX,
    opt={OPEN: True},
)
async def heartbeats(data: JSONBody[HeartbeatBatch], parts: GivenParts) -> HeartbeatReply:
    """Believe each heartbeat on its own; the reply says which, and when to come again."""
    return await parts.heartbeats.receive(data)
