"""Calls: a list of them, and the whole story of each."""

from __future__ import annotations

from uuid import UUID

from litestar import Controller, delete, get
from litestar.params import FromPath

from broker.api.callers import CHANGING
from broker.api.calls.call_filters import MATCH, GivenAsked
from broker.api.calls.call_messages import (
    CallList,
    CallStory,
    ProvidedCallList,
    ProvidedStory,
    UnfinishedCall,
    call_shown,
    call_story,
    provided_call,
    provided_story,
    unfinished_call,
)
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import STRETCH, Limit
from broker.core.key_terms import Scope
from broker.flows.calls.forget_answer import forget_answer
from broker.flows.calls.read_call import list_calls, read_call
from broker.store.access.accounts import Role
from broker.store.calls.log import CutCall


class CallController(Controller):
    """`/api/calls`"""

    path = "/calls"
    tags = ("Calls",)

    @get(
        summary="List calls: a consumer's own, a provider's served ones, an operator's all",
        description="The newest first. Of calls of one kind a page looks at 10,000, so it may be "
        "short, or empty, and yet have a cursor.",
        dependencies={**STRETCH, **MATCH},
    )
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        asked: GivenAsked,
        limit: Limit = 100,
    ) -> CallList | ProvidedCallList:
        page = await list_calls(engine, caller, asked, limit=limit)
        if caller.role is Role.PROVIDER:
            calls = [provided_call(each) for each in page.calls]
            return ProvidedCallList(calls=calls, cursor=page.after)
        return CallList(calls=[call_shown(each) for each in page.calls], cursor=page.after)

    @get("/{call_id:uuid}", summary="The whole story of a call")
    async def read(
        self, engine: GivenEngine, caller: GivenCaller, call_id: FromPath[UUID]
    ) -> CallStory | ProvidedStory | UnfinishedCall:
        found = await read_call(engine, caller, call_id)
        if isinstance(found, CutCall):
            return unfinished_call(found)
        return provided_story(found) if caller.role is Role.PROVIDER else call_story(found)

    @delete(
        "/{call_id:uuid}/content",
        summary="Delete what is kept of a call's answer",
        opt={CHANGING: Scope.CALLS},
    )
    async def forget(
        self, engine: GivenEngine, caller: GivenCaller, now: GivenTime, call_id: FromPath[UUID]
    ) -> None:
        await forget_answer(engine, caller, call_id, now)
