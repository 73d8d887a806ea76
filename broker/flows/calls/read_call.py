"""Tells what became of calls: to consumers their own, to providers their part, to operators all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.ledger import CallRecord
from broker.core.story import Story, decode
from broker.errors import NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Role
from broker.store.books import charge_lines
from broker.store.books.charge_lines import ChargedAttempt
from broker.store.calls import log
from broker.store.calls.log import CutCall, Filter, Match
from broker.store.market import endpoint_names


@dataclass(frozen=True, slots=True)
class ToldCall:
    """A call, who paid for it, its charge lines if asked for, and endpoints' names by number."""

    record: CallRecord
    account: str
    lines: list[ChargedAttempt]
    names: Mapping[int, str]

    def name(self, number: int | None) -> str | None:
        """Return `provider/endpoint` of a number."""
        return None if number is None else self.names.get(number)


Times = tuple[datetime | None, datetime | None]
"""From when and until when; None where it is open."""


@dataclass(frozen=True, slots=True)
class ToldStory:
    """A call with all that was decided and tried."""

    told: ToldCall
    story: Story


@dataclass(frozen=True, slots=True)
class ToldPage:
    """Calls, newest first; older ones may follow `after`, which is None at the end."""

    calls: list[ToldCall]
    after: UUID | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls; `endpoint` is `provider/endpoint`, by which any number went that it ever had."""

    times: Times = (None, None)
    before: UUID | None = None
    endpoint: str | None = None
    match: Match = field(default_factory=Match)


async def list_calls(engine: AsyncEngine, caller: Caller, asked: Asked, *, limit: int) -> ToldPage:
    """Return calls that began in a stretch of time, its end not included, newest first.

    A provider's are those that ended at an endpoint of its own. Raises RequestMalformed where one
    asks for what it is not told of calls.
    """
    if caller.role is Role.PROVIDER and asked.match:
        raise RequestMalformed("A provider's calls are told apart by 'endpoint' and time alone.")
    own = await _own_numbers(engine, caller)
    wanted = Filter(None, own, asked.before, *asked.times, asked.match)
    if asked.endpoint is not None:
        numbers = await _numbers_named(engine, asked.endpoint)
        if own is not None:
            numbers = [each for each in numbers if each in own]
        if not numbers:
            return ToldPage([], None)
        wanted = replace(wanted, endpoint_numbers=numbers)
    if caller.role is Role.CONSUMER:
        # Its own calls are in order by themselves, and of an endpoint's the fewest are its own.
        match = replace(asked.match, endpoint_numbers=wanted.endpoint_numbers)
        whose = caller.account_id
        wanted = replace(wanted, account_id=whose, endpoint_numbers=None, match=match)
    page = await log.list_calls(engine, wanted, limit)
    # What each attempt cost is told of one call alone, but to a provider of all.
    told = await _tell(engine, page.records, own, (), lined=own is not None)
    return ToldPage(told, page.after)


async def newest_calls(connection: AsyncConnection, caller: Caller, limit: int) -> list[UUID]:
    """Return the newest calls that `list_calls` would tell, newest first."""
    if caller.role is Role.PROVIDER:
        own = await endpoint_names.numbers_of_provider(connection, caller.account_id)
        return await log.newest_ids(connection, Filter(endpoint_numbers=own), limit)
    whose = caller.account_id if caller.role is Role.CONSUMER else None
    return await log.newest_ids(connection, Filter(whose), limit)


async def _numbers_named(engine: AsyncEngine, name: str) -> list[int]:
    async with engine.connect() as connection:
        return [each.number for each in await endpoint_names.by_name(connection, name)]


async def read_call(engine: AsyncEngine, caller: Caller, call_id: UUID) -> ToldStory | CutCall:
    """Return a call with its story; a provider gets its own attempts and lines of it alone.

    A call under way, or cut short by a broker's death, is told from its hold. Raises NotFound for a
    call that is not, is another's, or had no attempt at the caller's.
    """
    found = await log.find_call(engine, call_id)
    if found is None or (caller.role is Role.CONSUMER and found.account_id != caller.account_id):
        raise _not_found()
    if isinstance(found, CutCall):
        if caller.role is Role.PROVIDER:
            raise _not_found()
        return found
    own = await _own_numbers(engine, caller)
    story = decode(found.story)
    if own is not None:
        story = _own_part(story, own)
    [told] = await _tell(engine, [found], own, _numbers(story))
    # Who answered a call, or was paid for a part of it, may see it when its story is forgotten.
    if own is not None and not (story.attempts or told.lines or found.endpoint_number in own):
        raise _not_found()
    return ToldStory(told, story)


def _not_found() -> NotFound:
    return NotFound("There is no such call.")


async def _own_numbers(engine: AsyncEngine, caller: Caller) -> list[int] | None:
    """The endpoints that a provider's view is cut to; None for all others."""
    if caller.role is not Role.PROVIDER:
        return None
    async with engine.connect() as connection:
        return await endpoint_names.numbers_of_provider(connection, caller.account_id)


async def _tell(
    engine: AsyncEngine,
    records: list[CallRecord],
    own: Collection[int] | None,
    numbers: Collection[int],
    *,
    lined: bool = True,
) -> list[ToldCall]:
    async with engine.connect() as connection:
        ids = [each.id for each in records] if lined else []
        lines = await charge_lines.find_lines(connection, ids) if ids else []
        named = {each.endpoint_number for each in records if each.endpoint_number is not None}
        named.update(numbers, (each.endpoint_number for each in lines))
        names = await _names(connection, named if own is None else named.intersection(own))
        payers = {each.account_id for each in records}
        accounts = await account_store.names_by_id(connection, payers)
    of_call = defaultdict(list)
    for line in lines:
        if line.endpoint_number in names:
            of_call[line.call_id].append(line)
    return [ToldCall(each, accounts[each.account_id], of_call[each.id], names) for each in records]


async def _names(connection: AsyncConnection, numbers: Collection[int]) -> dict[int, str]:
    found = await endpoint_names.by_numbers(connection, numbers)
    return {number: each.name for number, each in found.items()}


def _numbers(story: Story) -> set[int]:
    return {
        *(each.endpoint_number for each in story.candidates),
        *(each.endpoint_number for each in story.rejected),
        *(each["endpoint_number"] for each in story.attempts),
    }


def _own_part(story: Story, own: Collection[int]) -> Story:
    """What a provider may know: its attempts, and nothing of the caller's wishes or of rivals."""
    attempts = [each for each in story.attempts if each["endpoint_number"] in own]
    return Story({}, story.price_version, [], [], attempts, "")
