"""Says what a call to `auto` is about where its caller does not, for a specialist to have it."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.call import Call, OpenAiBody
from broker.flows.runtime import Runtime


def recognise(call: Call, runtime: Runtime) -> Call:
    """Return the call with the domain of its prompt, or as it is where none is likelier than not.

    A key that is kept to some domains is not led into others.
    """
    wanted, recogniser, encoder = call.wanted, runtime.market.recogniser, runtime.encoder
    if recogniser is None or encoder is None or wanted.domain is not None:
        return call
    text = call.body.opening_text() if isinstance(call.body, OpenAiBody) else ""
    if not text:
        return call
    found = recogniser.recognise(encoder.encode(text).astype(np.float64))
    allowed = wanted.domains_only is None or found.domain in wanted.domains_only
    if found.domain is None or not allowed:
        return call
    told = msgspec.structs.replace(
        wanted, domain=found.domain, domain_confidence=round(found.confidence, 4)
    )
    return msgspec.structs.replace(call, wanted=told)
