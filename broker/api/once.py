"""Makes a POST of the control plane safe to send again: one line in its handler.

    @post(summary="Ask for a firm quote")
    async def ask(
        self, data: JSONBody[QuoteWanted], caller: GivenCaller, once: GivenOnce
    ) -> Response[QuoteShown]:
        return await once(lambda connection: _ask(connection, caller, data))

What is given to `once` does its work on that connection and returns what is to be answered: the
work and the record of the answer commit together, so a flow that is called from it takes a
connection and opens no transaction of its own. A request sent again under its `Idempotency-Key`
gets the first answer with `x-broker-replayed: true` and does nothing; several at once do the work
once; the same key with another method, path or body is a 409 `idempotency_conflict`. Work that
raises leaves the key free. Without the header the work is done each time, in one transaction too.
An answer is told to the key that asked for it: another of its account gets 409
`idempotency_other_key`.

What an answer shows once, such as the text of a key, is not kept, not even sealed. With
`once(act, secret=True)` the `id` of the answer alone is kept, and a request sent again is a 409
`shown_once` that tells it.

Every POST that moves money or makes an object goes through here. Answers are kept sealed for
`Limits.replay_kept_s`. An answer is 201 unless told otherwise: `once(act, status=200)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar, cast

import msgspec
from litestar import Response
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, SkipValidation
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.parts import CallerRequest, GivenParts, Parts
from broker.errors import Conflict
from broker.flows.access.once import Memory, Request, once
from broker.store.access.idempotency import Answer

REPLAYED = "x-broker-replayed"
_SHOWN_ONCE = 409
"""The status under which is kept that an answer was shown once."""

T = TypeVar("T")

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A request sent again under the same key is done once.",
    ),
]


class Once:
    """Does the work of one request at most once under its key."""

    def __init__(self, parts: Parts, request: CallerRequest, key: str | None) -> None:
        self._parts = parts
        self._request = request
        self._key = key

    async def __call__(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        status: int = 201,
        *,
        secret: bool = False,
    ) -> Response[T]:
        """Answer with what `work` returns, a message or None, or with the first answer.

        Raises Conflict when the key stands for another request, or for what is shown once, and
        what `work` raises.
        """
        parts, caller = self._parts, self._request.user
        memory = Memory(parts.engine, parts.sealer, parts.settings.limits.replay_kept_s)

        async def act(connection: AsyncConnection) -> Answer:
            answer = await work(connection)
            return Answer(status, b"" if answer is None else msgspec.json.encode(answer))

        meaning = b"" if self._key is None else await self._meaning()
        asked = Request(caller.account_id, self._key, meaning, caller.key_id or "")
        done = await once(memory, asked, act, parts.clock(), *([_without_secret] if secret else []))
        if done.replayed and done.answer.status == _SHOWN_ONCE:
            raise _shown_once(done.answer)
        return Response(
            cast("T", done.answer.body),  # Litestar passes bytes on as they are
            status_code=done.answer.status,
            media_type="application/json" if done.answer.body else None,
            headers={REPLAYED: "true"} if done.replayed else {},
        )

    async def _meaning(self) -> bytes:
        line = f"{self._request.method} {self._request.url.path}\n"
        return line.encode() + await self._request.body()


class _Named(msgspec.Struct):
    id: str


def _without_secret(answer: Answer) -> Answer:
    named = msgspec.json.decode(answer.body, type=_Named)
    return Answer(_SHOWN_ONCE, msgspec.json.encode(named))


def _shown_once(kept: Answer) -> Conflict:
    made = msgspec.json.decode(kept.body, type=_Named).id
    return Conflict(
        f"This was done before, for {made}. Its secret was shown then, once.",
        code="shown_once",
        facts={"id": made},
    )


async def given_once(
    request: CallerRequest, parts: GivenParts, idempotency_key: IdempotencyKey = None
) -> Once:
    """Return the `Once` of a request; a dependency of every handler that asks for `once`."""
    return Once(parts, request, idempotency_key)


GivenOnce = NamedDependency[SkipValidation[Once]]
