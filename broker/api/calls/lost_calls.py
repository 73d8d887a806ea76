"""Why calls did not come to a provider, in counts."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from functools import partial

import msgspec
from litestar import Controller, Response, get

from broker.api import beside
from broker.api.callers import allow
from broker.api.long_reads import LONG
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import STRETCH, GivenStretch, Reply
from broker.core.lost import RANK_MAX, Kind
from broker.flows.providers.read_lost_calls import LostCalls, read_lost_calls
from broker.store.access.accounts import Role
from broker.store.calls.lost_calls import Counted


class ReasonCount(Reply):
    """How many calls were lost for a reason; `detail` is the rule, the part of the score or the
    fault that it was."""

    fate: Kind
    reason: str
    detail: str
    calls: int


class RankCount(Reply):
    """How many calls it was outranked in, by its place among the candidates; the tenth and those
    behind it are one."""

    rank: int
    calls: int


class EndpointLosses(Reply):
    """What became of the calls that an endpoint might have had; `reasons` sums the lost ones."""

    endpoint: str
    served: int
    refused: int
    outranked: int
    failed: int
    reasons: dict[str, int]
    details: list[ReasonCount]
    ranks: list[RankCount]


class LostCallsShown(Reply):
    """Counts of whole hours; calls that ended before `counted_before` are in them."""

    since: datetime = msgspec.field(name="from")
    until: datetime = msgspec.field(name="to")
    counted_before: datetime | None
    rank_max: int
    endpoints: list[EndpointLosses]


class LostCallController(Controller):
    """`/api/lost-calls`"""

    guards = (allow(Role.PROVIDER, Role.OPERATOR),)
    tags = ("Providers",)

    @get("/lost-calls", summary="Why calls went elsewhere", dependencies={**STRETCH, **LONG})
    async def read(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
        stretch: GivenStretch,
    ) -> Response[LostCallsShown]:
        found = await read_lost_calls(engine, caller, stretch.since, stretch.until, now)
        return await beside.answer(partial(_shown, found))


def _shown(found: LostCalls) -> LostCallsShown:
    return LostCallsShown(
        since=found.since,
        until=found.until,
        counted_before=found.counted_before,
        rank_max=RANK_MAX,
        endpoints=[_endpoint(name, each) for name, each in sorted(found.by_endpoint().items())],
    )


def _endpoint(name: str, counts: list[Counted]) -> EndpointLosses:
    kinds: Counter[Kind] = Counter()
    reasons: Counter[str] = Counter()
    details: Counter[tuple[Kind, str, str]] = Counter()
    ranks: Counter[int] = Counter()
    for each in counts:
        fate = each.fate
        kinds[fate.kind] += each.calls
        if fate.kind is not Kind.SERVED:
            reasons[fate.reason] += each.calls
            details[fate.kind, fate.reason, fate.detail] += each.calls
        if fate.kind is Kind.OUTRANKED:
            ranks[fate.rank] += each.calls
    return EndpointLosses(
        endpoint=name,
        served=kinds[Kind.SERVED],
        refused=kinds[Kind.REFUSED],
        outranked=kinds[Kind.OUTRANKED],
        failed=kinds[Kind.FAILED],
        reasons=dict(reasons.most_common()),
        details=[
            ReasonCount(fate=kind, reason=reason, detail=detail, calls=calls)
            for (kind, reason, detail), calls in details.most_common()
        ],
        ranks=[RankCount(rank=rank, calls=calls) for rank, calls in sorted(ranks.items())],
    )
