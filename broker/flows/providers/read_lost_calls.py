"""Tells a provider why calls did not come to it, in counts; never who got them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.providers.count_lost_calls import JOB
from broker.store import progress
from broker.store.access.accounts import Role
from broker.store.calls import lost_calls
from broker.store.calls.lost_calls import Counted
from broker.store.market import endpoint_names
from broker.store.market.endpoint_names import NamedEndpoint

DEFAULT: Final = timedelta(days=1)
FIRST: Final = datetime.min.replace(tzinfo=UTC)
LONGEST: Final = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class LostCalls:
    """Counts of whole hours; calls that ended before `counted_before` are in."""

    since: datetime
    until: datetime
    counted_before: datetime | None
    counts: list[Counted]
    names: dict[int, NamedEndpoint]

    def by_endpoint(self) -> dict[str, list[Counted]]:
        """Return the counts by the names of endpoints; of a large market a thread should do it."""
        found: dict[str, list[Counted]] = {}
        for each in self.counts:
            named = self.names.get(each.fate.endpoint_number)
            if named is not None:
                found.setdefault(named.name, []).append(each)
        return found


async def read_lost_calls(
    engine: AsyncEngine,
    caller: Caller,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> LostCalls:
    """Return the counts of a provider's own endpoints, of all for an operator; of the last day
    where no time is asked for. Raises RequestMalformed for more than LONGEST."""
    until = until or now
    since = since or max(until, FIRST + DEFAULT) - DEFAULT
    if until - since > LONGEST:
        raise RequestMalformed(f"Ask for at most {LONGEST.days} days.")
    since = since.replace(minute=0, second=0, microsecond=0)
    async with engine.connect() as connection:
        own = None
        if caller.role is Role.PROVIDER:
            own = await endpoint_names.numbers_of_provider(connection, caller.account_id)
        counts = await lost_calls.read_counts(connection, own, since, until)
        numbers = {each.fate.endpoint_number for each in counts}
        names = await endpoint_names.by_numbers(connection, numbers)
        counted_before = await progress.done_before(connection, JOB)
    return LostCalls(since, until, counted_before, counts, names)
