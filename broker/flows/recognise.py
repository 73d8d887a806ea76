"""Says what a call to `auto` is about where its caller does not, for a specialist to have it."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.call import Call, OpenAiBody
from broker.core.lessons import NOTHING
from broker.core.requirements import Prompt, Requirements
from broker.flows.runtime import Runtime


def recognise(call: Call, runtime: Runtime) -> Call:
    """Return the call with its prompt's cells, and with its domain where its caller names none.

    As it is where there is nothing to recognise, and without a domain where none is likelier than
    not. A key that is kept to some domains is not led into others.
    """
    if not isinstance(call.body, OpenAiBody):
        return msgspec.structs.replace(call, wanted=_as_declared(call, runtime))
    told = look_into(call.body, call.wanted, runtime)
    return call if told is call.wanted else msgspec.structs.replace(call, wanted=told)


def look_into(body: OpenAiBody, wanted: Requirements, runtime: Runtime) -> Requirements:
    """Return what is asked for with what the body's prompt tells, as above.

    The prompt's vector ends here: its words could be read back from it.
    """
    market, encoder = runtime.market, runtime.encoder
    recogniser = market.recogniser
    if recogniser is None or encoder is None:
        return wanted
    text = body.opening_text()
    if not text:
        return wanted
    vector = encoder.encode(text).astype(np.float64)
    lessons = market.lessons
    mix = NOTHING if lessons is None else lessons.mix(vector, wanted.domain)
    groups = None if lessons is None else lessons.groups_of(mix)
    told = msgspec.structs.replace(wanted, prompt=Prompt(*mix), groups=groups)
    if wanted.domain is not None:
        return told
    found = recogniser.recognise(vector)
    allowed = wanted.domains_only is None or found.domain in wanted.domains_only
    if found.domain is None or not allowed:
        return told
    confidence = round(found.confidence, 4)
    return msgspec.structs.replace(told, domain=found.domain, domain_confidence=confidence)


def _as_declared(call: Call, runtime: Runtime) -> Requirements:
    """Return what is asked for of tensors, which nobody recognises: they are of the domain that the
    caller names, or of the one that its task is called by; judged by what was learned of that."""
    wanted, lessons = call.wanted, runtime.market.lessons
    if lessons is None:
        return wanted
    name = call.task_label
    allowed = wanted.domains_only is None or name in wanted.domains_only
    if wanted.domain is None and name in lessons.places and allowed:
        # Told and not recognised, but as an aside: no money goes by it.
        wanted = msgspec.structs.replace(wanted, domain=name, domain_confidence=1.0)
    place = lessons.places.get(wanted.domain or "", len(lessons.places))
    return msgspec.structs.replace(wanted, prompt=Prompt((place,), (1.0,)))
