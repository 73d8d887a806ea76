"""`/api/calls/{id}/postings`: what a call did to the books."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from litestar import get
from litestar.params import FromPath

from broker.api.parts import GivenCaller, GivenEngine
from broker.api.wire import Reply
from broker.core.money.postings import CallState, Entry, Naming, Posting
from broker.flows.calls.explain_call import Explained, explain
from broker.store.access.accounts import Role
from pricing.money import format_usd


class PostingShown(Reply):
    """What an account got, or below zero gave."""

    account: str
    amount_usd: str


class EntryShown(Reply):
    """A movement of money: a `charge` for an attempt, or a transfer by its kind. `sum_usd` is 0."""

    at: datetime
    kind: str
    transfer_id: UUID | None
    attempt: int | None
    endpoint: str | None
    tokens_in: int | None
    tokens_out: int | None
    price_version: int | None
    reason: str
    author: str | None
    postings: list[PostingShown]
    sum_usd: str


class HeldMoveShown(Reply):
    """What was set aside for the call, or below zero freed again."""

    at: datetime
    kind: str
    amount_usd: str


class HeldShown(Reply):
    """What the call held in its payer's account; `still_usd` is 0 once it is settled."""

    account: str
    moves: list[HeldMoveShown]
    still_usd: str
    expires_at: datetime | None


class PostingsShown(Reply):
    """All that a call did to the books; `sum_usd` is 0. A provider sees its own entries alone."""

    call_id: UUID
    state: CallState
    begun_at: datetime
    held: HeldShown | None
    entries: list[EntryShown]
    accounts: list[PostingShown]
    sum_usd: str


@get("/calls/{call_id:uuid}/postings", summary="What a call did to the books", tags=["Calls"])
async def postings_of_call(
    engine: GivenEngine, caller: GivenCaller, call_id: FromPath[UUID]
) -> PostingsShown:
    """To its owner all of it, to a provider its own lines, to an operator everything by name."""
    explained = await explain(engine, caller, call_id)
    found, name = explained.postings, explained.name
    with_author = caller.role is Role.OPERATOR
    return PostingsShown(
        call_id=found.call_id,
        state=found.state,
        begun_at=found.begun_at,
        held=_held(explained),
        entries=[_entry(each, name, with_author=with_author) for each in found.entries],
        accounts=[
            PostingShown(account=each, amount_usd=format_usd(amount_nanos))
            for each, amount_nanos in found.totals(name).items()
        ],
        sum_usd=format_usd(found.sum_nanos),
    )


def _held(explained: Explained) -> HeldShown | None:
    found = explained.postings
    if found.payer is None:
        return None
    return HeldShown(
        account=explained.name(found.payer),
        moves=[
            HeldMoveShown(at=each.at, kind=each.kind, amount_usd=format_usd(each.amount_nanos))
            for each in found.held
        ],
        still_usd=format_usd(found.held_nanos),
        expires_at=found.expires_at if found.state is CallState.UNDER_WAY else None,
    )


def _entry(entry: Entry, name: Naming, *, with_author: bool) -> EntryShown:
    return EntryShown(
        at=entry.at,
        kind=entry.kind,
        transfer_id=entry.id,
        attempt=entry.attempt,
        endpoint=entry.endpoint,
        tokens_in=entry.tokens_in,
        tokens_out=entry.tokens_out,
        price_version=entry.price_version,
        reason=entry.reason,
        author=entry.author or None if with_author else None,
        postings=[_posting(each, name) for each in entry.postings],
        sum_usd=format_usd(entry.sum_nanos),
    )


def _posting(posting: Posting, name: Naming) -> PostingShown:
    return PostingShown(account=name(posting.account), amount_usd=format_usd(posting.amount_nanos))
