"""Refuses large bodies that are made of next to nothing, before they are taken apart.

`[{},{},...` is three bytes an object and takes twenty times that: what a route must let in for the
sake of a few long texts would hold all calls up for seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.serialization import decode_json

from broker.core.wire.complaints import plain
from broker.core.wire.members import read_members
from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller

LARGE_BYTES: Final = 1 << 20
DRAFT_BYTES_MAX: Final = 16 << 20
"""As of a call."""
TERMS_BYTES_MAX: Final = 2 << 20
"""Of an offer without its tokenizers: two kilobytes for each of a thousand endpoints."""
ENDPOINTS_MAX: Final = 1_000
MARKS_MAX: Final = 320_000
"""Commas and brackets of ten thousand heartbeats, each of which has a dozen; receipts are fewer."""


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


class _Draft(msgspec.Struct):
    request: msgspec.Raw = msgspec.Raw(b"null")


_draft: Final = msgspec.json.Decoder(_Draft).decode


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
    """Raise RequestMalformed for a large batch of more than heartbeats or receipts are made of."""
    if len(body) > LARGE_BYTES and sum(map(body.count, (b",", b"{", b"["))) > MARKS_MAX:
        raise RequestMalformed("The batch has more parts than a batch may have.")


def read_draft(body: bytes) -> dict[str, Any]:
    """Return the members of a large body, and those of its `request` as slices. Raises
    RequestMalformed for more than LARGE_BYTES beside that, and what it would be refused with."""
    try:
        told = _draft(body)
        if len(body) - memoryview(told.request).nbytes > LARGE_BYTES:
            raise RequestMalformed(f"There are more than {LARGE_BYTES:,} bytes beside the request.")
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        read: dict[str, Any] = {
            name: msgspec.json.decode(raw) for name, raw in members.items() if name != "request"
        }
        return read | {"request": read_members(bytes(told.request))}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestMalformed(
            f"request: {plain(str(error))}", facts={"field": "request"}
        ) from None


class OfferRequest(Request[Caller, None, State]):
    """Brings an offer."""

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= LARGE_BYTES:
            return await super().json()
        await asyncio.to_thread(require_terms, body)  # calls are served before and after
        return await asyncio.to_thread(decode_json, body)


class DraftRequest(Request[Caller, None, State]):
    """Brings a request as it would be sent, which may be as long as a call."""

    async def json(self) -> Any:
        body = await self.body()
        if len(body) <= LARGE_BYTES:
            return await super().json()
        return await asyncio.to_thread(read_draft, body)


class BatchRequest(Request[Any, None, State]):
    """Brings heartbeats, whoever sends them, or receipts."""

    async def json(self) -> Any:
        require_parts(await self.body())
        return await super().json()
