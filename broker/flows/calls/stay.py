"""Lets a follow-up of a conversation stay with the endpoint that has its context cached."""

from __future__ import annotations

import msgspec

from broker.core.call import Call
from broker.flows.runtime import Runtime


async def stay(call: Call, session_id: str, runtime: Runtime) -> Call:
    """Return the call with the endpoint where its conversation was answered last, if it was; one
    that names its endpoint has no choice, and Valkey is not asked for it."""
    if call.wanted.model in runtime.market.by_name:
        return call
    home = await runtime.live.homes.of(call.payer.account_id, session_id)
    if home is None:
        return call
    return msgspec.structs.replace(call, wanted=msgspec.structs.replace(call.wanted, home=home))
