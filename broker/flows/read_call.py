"""Tells what became of calls: to consumers their own, to providers their part, to operators all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.story import Story, decode
from broker.errors import NotFound
from broker.flows.authenticate import Caller
from broker.store import call_log, endpoint_names
from broker.store.accounts import Role
from broker.store.call_log import Choice, LoggedCall, LoggedLine
from broker.store.endpoint_names import NamedEndpoint


@dataclass(frozen=True, slots=True)
class ToldCall:
    """A call, its charge lines, and the endpoints by number that both speak of."""

    call: LoggedCall
    lines: list[LoggedLine]
    endpoints: Mapping[int, NamedEndpoint]

    def name(self, number: int | None) -> str | None:
        """Return `provider/endpoint` of a number."""
        named = None if number is None else self.endpoints.get(number)
        return None if named is None else named.name


@dataclass(frozen=True, slots=True)
class ToldStory:
    """A call with all that was decided and tried."""

    told: ToldCall
    story: Story


async def list_calls(
    engine: AsyncEngine, caller: Caller, *, before: UUID | None, limit: int
) -> list[ToldCall]:
    """Return calls, newest first. A provider's are those that went to an endpoint of its own."""
    async with engine.connect() as connection:
        choice = await _choice(connection, caller)
        calls = await call_log.list_calls(connection, choice, before=before, limit=limit)
        lines = await call_log.find_lines(connection, [each.id for each in calls])
        numbers = {each.endpoint_number for each in calls}
        names = await _names(connection, numbers | {each.endpoint_number for each in lines}, caller)
    return [_told(each, lines, names) for each in calls]


async def read_call(engine: AsyncEngine, caller: Caller, call_id: UUID) -> ToldStory:
    """Return a call with its story; a provider gets its own attempts and lines of it alone.

    Raises NotFound for a call that is not, is another's, or had no attempt at the caller's.
    """
    async with engine.connect() as connection:
        found = await call_log.find_call(connection, call_id)
        if found is None or not _may_read(caller, found[0]):
            raise _not_found()
        call, story = found[0], decode(found[1])
        lines = await call_log.find_lines(connection, [call_id])
        names = await _names(connection, _numbers(call, story), caller)
    if caller.role is Role.PROVIDER:
        story = _own_part(story, names)
        if not story.attempts:
            raise _not_found()
    return ToldStory(_told(call, lines, names), story)


def _not_found() -> NotFound:
    return NotFound("There is no such call.")


def _may_read(caller: Caller, call: LoggedCall) -> bool:
    return caller.role is not Role.CONSUMER or call.account_id == caller.account_id


async def _choice(connection: AsyncConnection, caller: Caller) -> Choice:
    if caller.role is Role.OPERATOR:
        return Choice()
    if caller.role is Role.CONSUMER:
        return Choice(account_id=caller.account_id)
    own = await endpoint_names.numbers_of_provider(connection, caller.account_id)
    return Choice(endpoint_numbers=own)


async def _names(
    connection: AsyncConnection, numbers: Iterable[int | None], caller: Caller
) -> dict[int, NamedEndpoint]:
    wanted = [each for each in numbers if each is not None]
    names = await endpoint_names.by_numbers(connection, wanted)
    if caller.role is not Role.PROVIDER:
        return names
    return {n: named for n, named in names.items() if named.provider_id == caller.account_id}


def _told(
    call: LoggedCall, lines: list[LoggedLine], names: Mapping[int, NamedEndpoint]
) -> ToldCall:
    own = [each for each in lines if each.call_id == call.id and each.endpoint_number in names]
    return ToldCall(call, own, names)


def _numbers(call: LoggedCall, story: Story) -> set[int | None]:
    return {
        call.endpoint_number,
        *(each.endpoint_number for each in story.candidates),
        *(each.endpoint_number for each in story.rejected),
        *(each["endpoint_number"] for each in story.attempts),
    }


def _own_part(story: Story, own: Mapping[int, NamedEndpoint]) -> Story:
    """What a provider may know: its attempts, and nothing of the caller's wishes or of rivals."""
    attempts = [each for each in story.attempts if each["endpoint_number"] in own]
    return Story({}, story.price_version, [], [], attempts, "")
