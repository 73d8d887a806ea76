"""Keys: an operator's hand in all of them, everybody else's in their own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody

from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import Body, Reply, in_utc
from broker.flows.issue_key import issue_key, list_keys, revoke_key
from broker.store.keys import KeyTerms, ListedKey


class KeyWanted(Body):
    """A key to make; at most `calls_max` calls at once, `content_kept` opts in to keeping."""

    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    expires_at: datetime | None = None
    calls_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    content_kept: Literal["none", "replay", "full"] = "none"


class KeyIssued(Reply):
    """A new key; `key` is shown this once and never again."""

    id: str
    key: str


class KeyShown(Reply):
    """A key without its secret."""

    id: str
    label: str
    calls_max: int | None
    content_kept: Literal["none", "replay", "full"]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyList(Reply):
    """An account's keys, newest first, revoked ones too."""

    keys: list[KeyShown]


class KeyController(Controller):
    """`/api/accounts/{name}/keys` and `/api/keys/{id}`"""

    tags = ("Keys",)

    @post("/accounts/{name:str}/keys", summary="Make a key")
    async def issue(
        self,
        name: FromPath[str],
        data: JSONBody[KeyWanted],
        caller: GivenCaller,
        engine: GivenEngine,
        now: GivenTime,
    ) -> KeyIssued:
        terms = KeyTerms(data.label, data.calls_max, data.content_kept, in_utc(data.expires_at))
        issued = await issue_key(engine, caller, name, terms, now)
        return KeyIssued(id=issued.id, key=issued.text)

    @get("/accounts/{name:str}/keys", summary="List an account's keys")
    async def list(self, name: FromPath[str], caller: GivenCaller, engine: GivenEngine) -> KeyList:
        return KeyList(keys=[_shown(each) for each in await list_keys(engine, caller, name)])

    @delete("/keys/{key_id:str}", summary="Revoke a key")
    async def revoke(
        self, key_id: FromPath[str], caller: GivenCaller, engine: GivenEngine, now: GivenTime
    ) -> None:
        await revoke_key(engine, caller, key_id, now)


def _shown(key: ListedKey) -> KeyShown:
    return KeyShown(
        id=key.id,
        label=key.terms.label,
        calls_max=key.terms.calls_max,
        content_kept=key.terms.content_kept,
        created_at=key.created_at,
        expires_at=key.terms.expires_at,
        revoked_at=key.revoked_at,
    )
