"""Calls: a list of them, and the whole story of each."""

from __future__ import annotations

from uuid import UUID

from litestar import Controller, delete, get
from litestar.params import FromPath

from broker.api.call_messages import (
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
from broker.api.callers import CHANGING
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import STRETCH, After, GivenStretch, Limit
from broker.core.key_terms import Scope
from broker.flows.forget_answer import forget_answer
from broker.flows.read_call import list_calls, read_call
from broker.store.accounts import Role
from broker.store.calls import CutCall


class CallController(Controller):
    """`/api/calls`"""

    path = "/calls"
    tags = ("Calls",)

    @get(
        summary="List calls: a consumer's own, a provider's served ones, an operator's all",
        dependencies=STRETCH,
    )
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        stretch: GivenStretch,
        limit: Limit = 100,
        cursor: After = None,
    ) -> CallList | ProvidedCallList:
        times = stretch.since, stretch.until
        calls = await list_calls(engine, caller, times, before=cursor, limit=limit)
        following = calls[-1].record.id if len(calls) == limit else None
        if caller.role is Role.PROVIDER:
            return ProvidedCallList(calls=[provided_call(each) for each in calls], cursor=following)
        return CallList(calls=[call_shown(each) for each in calls], cursor=following)

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
