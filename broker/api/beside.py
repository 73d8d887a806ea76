"""Makes and writes large answers beside the calls: in the loop, one of megabytes holds all up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

import msgspec
from litestar import MediaType, Response

from broker.api.wire import Reply

Told = TypeVar("Told", bound=Reply)


async def written(make: Callable[[], Told]) -> bytes:
    """Return what `make` makes as JSON; both is done in a thread."""
    return await asyncio.to_thread(_written, make)


async def answer(make: Callable[[], Told]) -> Response[Told]:
    """Answer with what `make` makes, already written."""
    text = cast("Told", await written(make))  # bytes are sent as they are
    return Response(text, media_type=MediaType.JSON)


def _written(make: Callable[[], Told]) -> bytes:
    return msgspec.json.encode(make())
