"""What an answer in tensors shows of itself before any of it goes to its caller.

Only its JSON is looked at, for each inference: an answer that no client could read is the
provider's fault, and another may answer. Inputs are left to the server, which knows what it takes
better than what was seen of it (inputs that may be left out, say) and tells it in the words that
Triton's users know. But where it answers with a failure of its own to what contradicts what all who
could answer declared, the request was at fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from broker.core.call import TensorBody
from broker.core.catalog import Endpoint
from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome
from broker.core.wire.tensor_form import HEAD_BYTES_MAX, asked_outputs, find_fault
from broker.errors import RequestMalformed
from broker.upstream.client import Response
from broker.upstream.faults import AttemptFailed, malformed
from broker.upstream.kserve import HEADER_LENGTH, read_infer, request_id

DELIVERED: Final = Delivered(claimed_in=0, claimed_out=0, text_bytes=0, generates=False)
"""An inference has one price, whatever it brings."""
_ENCODING: Final = b"content-encoding"
_TEXT: Final = "BYTES"


def inferred(body: TensorBody, response: Response, answer: bytes) -> Delivered:
    """Return what a whole answer delivers. Raises AttemptFailed: malformed, an error."""
    if response.header(_ENCODING) is not None:  # it passes as it is, for its caller to unpack
        if not answer:
            raise malformed("an empty answer", 200)
        return DELIVERED
    facts = read_infer(response.header(HEADER_LENGTH), answer, _asked_id(body))
    if facts.error is not None:
        raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200, said=facts.error))
    json_bytes = facts.json_bytes
    told = answer if json_bytes == len(answer) else answer[:json_bytes]
    _require_sound(body, told, len(answer) - json_bytes)
    return DELIVERED


def check_opening(body: TensorBody, response: Response, opening: bytes) -> None:
    """Look at the first bytes of a long answer. Raises AttemptFailed."""
    length, size = response.header(HEADER_LENGTH), response.header(b"content-length")
    if length is None or response.header(_ENCODING) is not None:
        return
    if not length.isdigit() or len(length) > len(str(HEAD_BYTES_MAX)):
        return
    json_bytes = int(length)
    if json_bytes <= len(opening):
        tail_bytes = None if size is None else int(size) - json_bytes
        _require_sound(body, opening[:json_bytes], tail_bytes)


def require_numbers(classified: Iterable[str], endpoint: Endpoint) -> None:
    """Refuse to ask for the likeliest classes of an output of texts: Triton divides by the bytes of
    an element, which it takes for none there, and ends. Raises RequestMalformed."""
    if endpoint.signature is None:
        return
    for name in classified:
        declared = endpoint.signature.output(name)
        if declared is not None and declared.datatype == _TEXT:
            raise RequestMalformed(
                f"Output '{name}' of {endpoint.name} is of texts (BYTES): there are no classes to "
                "rank. Ask for it without 'classification'."
            )


def blamed(
    outcome: Outcome, body: TensorBody, endpoint: Endpoint, others: Iterable[Endpoint]
) -> Outcome:
    """Return a refusal or failure as it is, or as the caller's fault where the server failed at a
    request that contradicts what its model takes, and what those of all `others` take."""
    if outcome.fault is not Fault.SERVER_ERROR:
        return outcome
    request = _json_of(body)
    objection = None if request is None else _objection(endpoint, request)
    if request is None or objection is None:
        return outcome
    if not all(_objection(each, request) for each in others):
        return outcome
    said = f"{objection}; it said: {outcome.said}" if outcome.said else objection
    return msgspec.structs.replace(outcome, fault=Fault.CALLER_FAULT, status=400, said=said)


def _objection(endpoint: Endpoint, request: bytes) -> str | None:
    return None if endpoint.signature is None else endpoint.signature.objection(request)


def _require_sound(body: TensorBody, told: bytes, tail_bytes: int | None) -> None:
    request = _json_of(body)
    fault = find_fault(told, tail_bytes, () if request is None else asked_outputs(request))
    if fault is not None:
        raise malformed(fault, 200)


def _json_of(body: TensorBody) -> bytes | None:
    """Return the JSON of a request; None where it is long, or compressed."""
    told = dict(body.headers)
    length = int(told.get(HEADER_LENGTH, body.size_bytes))
    if _ENCODING in told or length > HEAD_BYTES_MAX:
        return None
    return body.begin(length)[:length]


def _asked_id(body: TensorBody) -> str | None:
    """Return the id that an inference was given, where it can be read."""
    told = dict(body.headers)
    if _ENCODING in told:
        return None
    length = told.get(HEADER_LENGTH)
    return request_id(length, body.begin(None if length is None else int(length)))
