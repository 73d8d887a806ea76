"""Orders examinations beyond those that registration brings, and shows what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.answers.examination import Verdict, judge
from broker.errors import NotFound, RequestMalformed, TooManyCalls
from broker.flows.access.authenticate import Caller
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.access.audit import Deed
from broker.store.quality import examinations, suites
from broker.store.quality.examinations import Claim, Examination, Order

ORDERED_A_DAY: Final = 5
"""By a provider for one of its endpoints: each is a chance to do better by luck."""
_DAY: Final = timedelta(days=1)


async def order_examination(
    connection: AsyncConnection,
    author: Caller,
    endpoint: str,
    domain: str | None,
    now: datetime,
) -> list[Order]:
    """Order an endpoint's examination in a domain, or in all that it claims and have a suite.

    What is under way already is not ordered again. A provider orders for its own endpoints. Raises
    NotFound, RequestMalformed with code `suite_missing` where there is nothing to be put, and
    TooManyCalls with code `examined_often`.
    """
    provider_id = None if author.role is Role.OPERATOR else author.account_id
    found = await examinations.claims_of(connection, endpoint, provider_id)
    if found is None:
        raise NotFound(f"There is no endpoint '{endpoint}' on the market.")
    endpoint_id, owner_id, claimed = found
    known = {each.domain: each for each in await suites.covers(connection) if each.is_for(owner_id)}
    wanted = [domain] if domain is not None else claimed
    claims = [Claim(endpoint_id, each, known[each].changed_at) for each in wanted if each in known]
    if not claims:
        raise RequestMalformed(
            "There is no suite for what is to be examined.",
            code="suite_missing",
            facts={"domains": wanted},
        )
    if provider_id is not None:
        lately = await examinations.ordered_by(connection, endpoint_id, author.name, now - _DAY)
        if lately + len(claims) > max(ORDERED_A_DAY, len(claims)):
            raise TooManyCalls(
                f"An endpoint's examination is ordered at most {ORDERED_A_DAY} times a day.",
                code="examined_often",
            )
    orders = await examinations.order(connection, claims, author.name, now)
    deed = Deed(author.name, "order_examination", f"endpoints/{endpoint_id}", {"domains": wanted})
    await audit.record(connection, deed, now)
    return orders


async def read_examinations(
    connection: AsyncConnection, reader: Caller, endpoint: str | None, limit: int
) -> Sequence[Examination]:
    """Return the newest examinations that the reader may see."""
    viewer = None if reader.role is Role.OPERATOR else reader.account_id
    return await examinations.newest(connection, viewer, endpoint, limit)


async def read_examination(connection: AsyncConnection, order_id: UUID) -> Examination:
    """Return an examination, for operators. Raises NotFound."""
    found = await examinations.find(connection, order_id)
    if found is None:
        raise NotFound("There is no such examination.")
    return found


def verdict_of(examination: Examination) -> Verdict | None:
    """Return what an examination says, None where it has not ended well."""
    if examination.score is None or examination.scored is None:
        return None
    return judge(examination.score, examination.scored)
