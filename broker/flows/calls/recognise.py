"""Says what a call is about where its caller does not, for a specialist of that domain to have it.

How sure its answer is counts, and what is said of the answer is learned, by domain as well.
"""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.call import Call, OpenAiBody
from broker.core.cascade import Cascade
from broker.core.columns import AUTO
from broker.core.quality.lessons import NOTHING
from broker.core.requirements import Prompt, Requirements
from broker.flows.runtime import Runtime


def goes_by_prompt(wanted: Requirements, cascade: Cascade | None) -> bool:
    """True of calls to `auto` and of those in stages; who names an endpoint or family has that,
    whatever the prompt is about."""
    return wanted.model == AUTO or cascade is not None


def recognise(call: Call, runtime: Runtime) -> Call:
    """Return the call with its prompt's cells, and with its domain where its caller names none.

    It stays as it is where nothing is learned, and without a domain where none is likelier than
    not. A key that is kept to some domains is not led into others.
    """
    if isinstance(call.body, OpenAiBody):
        told = look_into(call.body, call.wanted, runtime)
    else:
        told = unread(_of_its_task(call, runtime), runtime)
    return call if told is call.wanted else msgspec.structs.replace(call, wanted=told)


def look_into(body: OpenAiBody, wanted: Requirements, runtime: Runtime) -> Requirements:
    """Return what is asked for with what the body's prompt tells, as `recognise` does.

    The prompt's vector ends here: its words could be read back from it.
    """
    market, encoder = runtime.market, runtime.encoder
    recogniser = market.recogniser
    if recogniser is None or encoder is None:
        return wanted
    text = body.opening_text()
    if not text:
        return unread(wanted, runtime)
    vector, lessons = encoder.encode(text).astype(np.float64), market.lessons
    look = recogniser.look(vector)
    mix = NOTHING if lessons is None else lessons.mix(vector, wanted.domain, look)
    groups = None if lessons is None else lessons.groups_of(mix)
    explore = wanted.explore and wanted.model == AUTO
    told = msgspec.structs.replace(wanted, prompt=Prompt(*mix), groups=groups, explore=explore)
    if wanted.domain is not None:
        return told
    found = recogniser.recognise(look)
    allowed = wanted.domains_only is None or found.domain in wanted.domains_only
    if found.domain is None or not allowed:
        return told
    confidence = round(found.confidence, 4)
    return msgspec.structs.replace(told, domain=found.domain, domain_confidence=confidence)


def unread(wanted: Requirements, runtime: Runtime) -> Requirements:
    """Return what is asked for where there is no text to look into: it is judged by what was
    learned of the domain that its caller names, or of all."""
    lessons = runtime.market.lessons
    if lessons is None:
        return wanted
    place = lessons.places.get(wanted.domain or "", len(lessons.places))
    explore = wanted.explore and wanted.model == AUTO
    return msgspec.structs.replace(wanted, prompt=Prompt((place,), (1.0,)), explore=explore)


def _of_its_task(call: Call, runtime: Runtime) -> Requirements:
    """Return what is asked for of tensors, which nobody recognises: they are of the domain that the
    caller names, or of the one that its task is called by."""
    wanted, lessons, name = call.wanted, runtime.market.lessons, call.task_label
    allowed = wanted.domains_only is None or name in wanted.domains_only
    if lessons is None or wanted.domain is not None or name not in lessons.places or not allowed:
        return wanted
    # Told and not recognised, but as an aside: no money goes by it.
    return msgspec.structs.replace(wanted, domain=name, domain_confidence=1.0)
