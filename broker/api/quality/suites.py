"""Suites that endpoints are examined on, and what the examinations came to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api import beside
from broker.api.callers import OPERATORS, allow
from broker.api.long_reads import LONG
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import LIMIT_DEFAULT, Body, Limit, Reply
from broker.core.answers.gap import Gap
from broker.core.answers.suites import Broken, Item, Suite
from broker.flows.quality.import_suite import (
    Imported,
    import_suite,
    may_read,
    read_suite,
    remove_suite,
)
from broker.flows.quality.order_examination import order_examination, read_examinations, verdict_of
from broker.flows.quality.read_gaps import read_gaps
from broker.store.access.accounts import Role
from broker.store.quality import suites
from broker.store.quality.canaries import Beside
from broker.store.quality.examinations import Examination

EXAMINERS = allow(Role.PROVIDER, Role.OPERATOR)
LINES_BYTES_MAX = 16 << 20
"""As of a call: as a whole it is moved a few times, in which no call is served."""

Judge = Annotated[
    str | None, QueryParameter(max_length=500, description="Who judges where a row names nobody.")
]
Of = Annotated[str | None, QueryParameter(max_length=500, description="provider/endpoint")]


class SuiteImported(Reply):
    """How many rows were taken in; `broken` are not run. `known`: the domain is taught or claimed;
    else there is nobody to be examined."""

    domain: str
    rows: int
    broken: list[Broken]
    known: bool


class SuiteShown(Reply):
    """A suite; `rows` is how many prompts it has."""

    domain: str
    rows: int
    author: str
    changed_at: datetime


class SuiteRead(SuiteShown):
    """A suite with what is asked."""

    items: list[dict[str, Any]]


class SuitesShown(Reply):
    """The suites that the caller may see, by domain."""

    suites: list[SuiteShown]


class ExaminationAsked(Body):
    """`domain` absent: every domain that the endpoint claims and that has a suite."""

    endpoint: Annotated[str, msgspec.Meta(max_length=500)]
    domain: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class ExaminationsOrdered(Reply):
    """The ids of what was ordered; what was under way already is not among them."""

    ids: list[UUID]


class ExaminationShown(Reply):
    """How far an examination is, and what it came to.

    `score` is a mean within `low` to `high` (95 %); `claim` says whether it refutes the quality
    that the endpoint declares today.
    """

    id: UUID
    endpoint: str
    domain: str
    author: str
    status: str
    asked: int
    answered: int
    claimed: float | None
    score: float | None
    low: float | None
    high: float | None
    scored: int | None
    claim: str | None
    problem: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class ExaminationsShown(Reply):
    """Examinations, the newest first."""

    examinations: list[ExaminationShown]


class GapShown(Reply):
    """Mean scores of canaries and of feedback on traffic, and how far they are apart (95 %).

    `traffic` is feedback of right and wrong, `scaled` that on a scale, which is set beside what it
    is for others in the domain. `knows_canaries`: they are surely answered better. The gap is null
    below ten of either.
    """

    endpoint: str
    domain: str
    canaries: int
    canary_score: float | None
    traffic: float
    traffic_score: float | None
    scaled: float
    scaled_score: float | None
    gap: float | None
    low: float | None
    high: float | None
    knows_canaries: bool


class GapsShown(Reply):
    """Endpoints in force that had canaries in the last 30 days."""

    gaps: list[GapShown]


class SuiteController(Controller):
    """`/api/suites`"""

    path = "/suites"
    guards = (EXAMINERS,)
    tags = ("Routing",)

    @get(summary="List the suites")
    async def list(self, engine: GivenEngine, caller: GivenCaller) -> SuitesShown:
        async with engine.connect() as connection:
            known = await suites.covers(connection)
        return SuitesShown(
            suites=[
                SuiteShown(
                    domain=each.domain,
                    rows=each.rows,
                    author=each.author,
                    changed_at=each.changed_at,
                )
                for each in known
                if may_read(caller, each)
            ]
        )

    @get("/{domain:str}", summary="Show a suite with its prompts")
    async def show(
        self, domain: FromPath[str], engine: GivenEngine, caller: GivenCaller
    ) -> Response[SuiteRead]:
        async with engine.connect() as connection:
            suite = await read_suite(connection, caller, domain)
        return await beside.answer(partial(_read, suite))

    @put(
        "/{domain:str}",
        summary="Import a suite of JSON lines",
        request_max_body_size=LINES_BYTES_MAX,
    )
    async def bring(
        self,
        request: Request[Any, Any, Any],
        domain: FromPath[str],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
        judge: Judge = None,
    ) -> SuiteImported:
        lines = await request.body()
        async with engine.begin() as connection:
            made: Imported = await import_suite(connection, caller, domain, (lines, judge), now)
        suite = made.suite
        return SuiteImported(
            domain=suite.domain, rows=len(suite.items), broken=made.broken, known=made.known
        )

    @delete("/{domain:str}", summary="Remove a suite")
    async def remove(
        self, domain: FromPath[str], engine: GivenEngine, caller: GivenCaller, now: GivenTime
    ) -> None:
        async with engine.begin() as connection:
            await remove_suite(connection, caller, domain, now)


class ExaminationController(Controller):
    """`/api/examinations`"""

    path = "/examinations"
    tags = ("Routing",)

    @get(summary="What endpoints that claim a domain were found to be worth there")
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        endpoint: Of = None,
        limit: Limit = LIMIT_DEFAULT,
    ) -> ExaminationsShown:
        async with engine.connect() as connection:
            return examinations_shown(await read_examinations(connection, caller, endpoint, limit))

    @get(
        "/gaps",
        summary="Who answers canaries better than traffic",
        guards=(OPERATORS,),
        dependencies=LONG,
    )
    async def gaps(self, engine: GivenEngine, now: GivenTime) -> GapsShown:
        return gaps_shown(await read_gaps(engine, now))

    @post(summary="Have an endpoint examined again", guards=(EXAMINERS,))
    async def order(
        self,
        data: JSONBody[ExaminationAsked],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[ExaminationsOrdered]:
        async def act(connection: AsyncConnection) -> ExaminationsOrdered:
            asked = (data.endpoint, data.domain)
            orders = await order_examination(connection, caller, *asked, now)
            return ExaminationsOrdered(ids=[each.id for each in orders])

        return await once(act, status=202)


def _read(suite: Suite) -> SuiteRead:
    return SuiteRead(
        domain=suite.domain,
        rows=len(suite.items),
        author=suite.author,
        changed_at=suite.changed_at,
        items=[_told(each) for each in suite.items],
    )


def _told(item: Item) -> dict[str, Any]:
    # Tensors as they are written: no other encoder takes them.
    told = msgspec.structs.asdict(item)
    return {name: each for name, each in told.items() if each is not None}


def gaps_shown(gaps: Iterable[tuple[Beside, Gap]]) -> GapsShown:
    """Write gaps down."""
    return GapsShown(gaps=[_gap(*each) for each in gaps])


def examinations_shown(examinations: Iterable[Examination]) -> ExaminationsShown:
    """Write examinations down."""
    return ExaminationsShown(examinations=[_shown(each) for each in examinations])


def _gap(scores: Beside, gap: Gap) -> GapShown:
    return GapShown(
        endpoint=scores.endpoint,
        domain=scores.domain,
        canaries=int(scores.canaries.count),
        canary_score=scores.canaries.mean,
        traffic=scores.traffic.count,
        traffic_score=scores.traffic.mean,
        scaled=scores.scaled.count,
        scaled_score=scores.scaled.mean,
        gap=gap.apart,
        low=gap.low,
        high=gap.high,
        knows_canaries=gap.shows,
    )


def _shown(examination: Examination) -> ExaminationShown:
    verdict = verdict_of(examination)
    return ExaminationShown(
        id=examination.id,
        endpoint=examination.endpoint,
        domain=examination.domain,
        author=examination.author,
        status=examination.status,
        asked=examination.asked,
        answered=examination.answered,
        claimed=examination.claimed,
        score=examination.score,
        low=None if verdict is None else verdict.low,
        high=None if verdict is None else verdict.high,
        scored=examination.scored,
        claim=None if verdict is None else verdict.on(examination.claimed).value,
        problem=examination.problem,
        created_at=examination.created_at,
        started_at=examination.started_at,
        ended_at=examination.ended_at,
    )
