"""Refuses large bodies that are made of next to nothing, before they are taken apart.

`[{},{},...` is three bytes an object and takes twenty times that: what a route must let in for the
sake of a few long texts would hold all calls up for seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from litestar import Request
from litestar.datastructures import State

from broker.core.wire.complaints import placed, plain
from broker.errors import RequestMalformed
from provider_sdk.protocol import DeploymentOffer

LARGE_BYTES: Final = 1 << 20
DRAFT_BYTES_MAX: Final = 16 << 20
"""As of a call."""
BESIDE_BYTES_MAX: Final = 320 << 10
"""Of a draft beside its `request`: more than the `broker` object may have."""
WHOLE_BYTES_MAX: Final = 1 << 16
"""A draft or an offer up to this is read whole: a few milliseconds, whatever is in it."""
TERMS_BYTES_MAX: Final = 2 << 20
"""Of an offer without its tokenizers: two kilobytes for each of a thousand endpoints."""
ENDPOINTS_MAX: Final = 1_000
MARKS_MAX: Final = 320_000
"""Commas and brackets: ten thousand heartbeats have a dozen each, and all else has fewer."""


_offered: Final = msgspec.json.Decoder(DeploymentOffer, strict=False).decode
_LEFT_OUT: Final = msgspec.Raw(b"")


class _Endpoint(msgspec.Struct, gc=False):
    tokenizer_json: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def text_bytes(self) -> int:
        text = memoryview(self.tokenizer_json)
        return text.nbytes if text[0] == ord('"') else 0


@cache
def _offer() -> Callable[[bytes], msgspec.Struct]:
    """Return what reads an offer of as many endpoints as there may be: a list would be made whole
    before its length is looked at. It is made when somebody brings a large one."""
    endpoints = msgspec.defstruct(
        "_Endpoints",
        [(f"endpoint{number}", _Endpoint | None, None) for number in range(ENDPOINTS_MAX)],
        array_like=True,
        forbid_unknown_fields=True,
        frozen=True,
        gc=False,
    )
    offer = msgspec.defstruct("_Offer", [("endpoints", endpoints, endpoints())])
    return msgspec.json.Decoder(offer).decode


class _Draft(msgspec.Struct, forbid_unknown_fields=True):
    """All that a dry run or a quote is asked by, each as it is written."""

    request: msgspec.Raw = _LEFT_OUT
    task: msgspec.Raw = _LEFT_OUT
    path: msgspec.Raw = _LEFT_OUT
    model: msgspec.Raw = _LEFT_OUT
    version: msgspec.Raw = _LEFT_OUT
    tokens_in: msgspec.Raw = _LEFT_OUT
    tokens_out_max: msgspec.Raw = _LEFT_OUT
    choices: msgspec.Raw = _LEFT_OUT
    broker: msgspec.Raw = _LEFT_OUT
    ttl_s: msgspec.Raw = _LEFT_OUT


class _Marks(msgspec.Struct):
    messages: msgspec.Raw = _LEFT_OUT
    prompt: msgspec.Raw = _LEFT_OUT
    input: msgspec.Raw = _LEFT_OUT


_draft: Final = msgspec.json.Decoder(_Draft).decode
_marks: Final = msgspec.json.Decoder(_Marks).decode


class Written(NamedTuple):
    """A long request as it was written, and which of `messages`, `prompt` and `input` it has: all
    that needs to be known of it before it is read as a call is."""

    text: msgspec.Raw
    marks: frozenset[str]


def require_terms(body: bytes) -> None:
    """Raise RequestMalformed for a large offer with more than TERMS_BYTES_MAX beside the texts of
    its tokenizers, or with more endpoints than there may be."""
    if len(body) <= LARGE_BYTES:
        return
    try:
        (endpoints,) = msgspec.structs.astuple(_offer()(body))
    except msgspec.DecodeError as error:
        raise RequestMalformed(
            f"endpoints: {plain(str(error))}", facts={"field": "endpoints"}
        ) from None
    told = sum(each.text_bytes for each in msgspec.structs.astuple(endpoints) if each)
    if len(body) - told > TERMS_BYTES_MAX:
        raise RequestMalformed(
            f"An offer has at most {TERMS_BYTES_MAX:,} bytes beside its tokenizers."
        )


def require_parts(body: bytes) -> None:
    """Raise RequestMalformed for a body of more parts than any that is meant has."""
    if len(body) > MARKS_MAX and sum(map(body.count, (b",", b"{", b"["))) > MARKS_MAX:
        raise RequestMalformed("The body has more parts than a body may have.")


def read_offer(body: bytes) -> DeploymentOffer:
    """Return a large offer, of which nothing is made but what an offer has. Raises
    RequestMalformed."""
    require_terms(body)
    try:
        return _offered(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = placed(str(error), DeploymentOffer)
        field = {"field": detail.partition(": ")[0]} if ": " in detail else {}
        raise RequestMalformed(f"{detail}.", facts=field) from None


def read_draft(body: bytes) -> dict[str, Any]:
    """Return the members of a large body, its `request` as it was written. Raises RequestMalformed
    for more than BESIDE_BYTES_MAX beside that, and what it would be refused with."""
    try:
        told = msgspec.structs.asdict(_draft(body))
        request = told.pop("request")
        if len(body) - memoryview(request).nbytes > BESIDE_BYTES_MAX:
            raise RequestMalformed(
                f"There are more than {BESIDE_BYTES_MAX:,} bytes beside the request."
            )
        read: dict[str, Any] = {
            name: msgspec.json.decode(raw) for name, raw in told.items() if raw is not _LEFT_OUT
        }
        if request is not _LEFT_OUT:
            marks = msgspec.structs.asdict(_marks(request))
            there = frozenset(name for name, raw in marks.items() if raw is not _LEFT_OUT)
            read["request"] = Written(request, there)
        return read
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestMalformed(
            f"request: {plain(str(error))}", facts={"field": "request"}
        ) from None


class BodyRequest(Request[Any, None, State]):
    """Brings a body as most are."""

    async def json(self) -> Any:
        require_parts(await self.body())
        return await super().json()


class OfferRequest(BodyRequest):
    """Brings an offer."""

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= WHOLE_BYTES_MAX:
            return await super().json()
        return await asyncio.to_thread(read_offer, body)  # calls are served before and after


class DraftRequest(BodyRequest):
    """Brings a request as it would be sent, which may be as long as a call."""

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= WHOLE_BYTES_MAX:
            return await super().json()
        return await asyncio.to_thread(read_draft, body)
