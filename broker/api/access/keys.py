"""Keys: an operator's hand in all of them, everybody else's in their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Controller, Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.access.key_messages import (
    KeyChange,
    KeyIssued,
    KeyList,
    KeyShown,
    KeyWanted,
    RotationWanted,
    budgets_of,
    changer,
    key_shown,
    terms_of,
)
from broker.api.callers import CHANGING
from broker.api.once import GivenOnce, Once
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime, Parts
from broker.core.key_terms import Scope
from broker.flows.access.change_key import change_key, rotate_in
from broker.flows.access.issue_key import issue_in, list_keys, revoke_key
from broker.store.access.keys import IssuedKey


class KeyController(Controller):
    """`/api/accounts/{name}/keys` and `/api/keys/{id}`"""

    tags = ("Keys",)
    opt = {CHANGING: Scope.KEYS}  # noqa: RUF012 - as Litestar declares it

    @post("/accounts/{name:str}/keys", summary="Make a key")
    async def issue(
        self,
        name: FromPath[str],
        data: JSONBody[KeyWanted],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
        parts: GivenParts,
    ) -> Response[KeyIssued]:
        limits = budgets_of(data.budget)

        async def make(connection: AsyncConnection) -> IssuedKey:
            return await issue_in(connection, caller, name, terms_of(data), limits, now)

        return await _shown(parts, once, make)

    @get("/accounts/{name:str}/keys", summary="List an account's keys")
    async def list(
        self, name: FromPath[str], caller: GivenCaller, engine: GivenEngine, now: GivenTime
    ) -> KeyList:
        owned = await list_keys(engine, caller, name, now)
        return KeyList(keys=[key_shown(each, now) for each in owned])

    @patch("/keys/{key_id:str}", summary="Change what a key may do")
    async def change(
        self,
        key_id: FromPath[str],
        data: JSONBody[KeyChange],
        caller: GivenCaller,
        engine: GivenEngine,
        now: GivenTime,
    ) -> KeyShown:
        limits = None if data.budget is None else budgets_of(data.budget)
        changed = await change_key(engine, caller, key_id, changer(data), limits, now)
        return key_shown(changed, now)

    @post("/keys/{key_id:str}/rotate", summary="Give a key a new secret")
    async def rotate(
        self,
        key_id: FromPath[str],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
        parts: GivenParts,
        data: JSONBody[RotationWanted | None] = None,
    ) -> Response[KeyIssued]:
        overlap_s = (data or RotationWanted()).overlap_s

        async def make(connection: AsyncConnection) -> IssuedKey:
            return await rotate_in(connection, caller, key_id, overlap_s, now)

        return await _shown(parts, once, make)

    @delete("/keys/{key_id:str}", summary="Revoke a key")
    async def revoke(
        self, key_id: FromPath[str], caller: GivenCaller, engine: GivenEngine, now: GivenTime
    ) -> None:
        await revoke_key(engine, caller, key_id, now)


async def _shown(
    parts: Parts, once: Once, make: Callable[[AsyncConnection], Awaitable[IssuedKey]]
) -> Response[KeyIssued]:
    """Show a key that is made as soon as it opens calls: who used it at once was told 401."""
    made: list[str] = []

    async def act(connection: AsyncConnection) -> KeyIssued:
        issued = await make(connection)
        made.append(issued.text)
        return KeyIssued(id=issued.id, key=issued.text)

    answered = await once(act, secret=True)
    for text in made:
        await parts.keyring.learn(text, parts.clock)
    return answered
