"""Teaches and forgets domains, which every process hears of at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.quality.syllabus import (
    DOMAINS_MAX,
    DOMAINS_OF_ONE_MAX,
    Domain,
    check_examples,
    check_name,
)
from broker.errors import Conflict, NotAllowed, NotFound
from broker.flows.access.authenticate import Caller
from broker.store import changes
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.access.audit import Deed
from broker.store.quality import domains

# Two that teach at once would not see each other's examples. A lock held by its transaction.
_ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtext('domains'))"
_LATER: Final = timedelta(microseconds=1)
"""Whoever knows a domain tells by the time of its last change, whichever clock that was."""


async def teach_domain(
    connection: AsyncConnection, author: Caller, name: str, examples: Sequence[str], now: datetime
) -> Domain:
    """Teach a domain, or teach it anew, with its audit entry.

    Operators teach any, providers their own. Raises NotAllowed for consumers and for a domain that
    is another's, what `check_name` and `check_examples` raise, and Conflict with code
    `examples_contradict` for another domain's examples and `domains_too_many`.
    """
    if author.role is Role.CONSUMER:
        raise NotAllowed("Only operators and providers teach domains.")
    check_name(name)
    taught = check_examples(examples)
    await connection.execute(text(_ONE_BY_ONE))
    known = {each.name: each for each in await domains.list_domains(connection)}
    before = known.get(name)
    owner_id = None if author.role is Role.OPERATOR else author.account_id
    if before is not None:
        if owner_id not in (None, before.owner_id):
            raise NotAllowed(f"The domain '{name}' is another's to teach.")
        owner_id = before.owner_id
        now = max(now, before.changed_at + _LATER)
    else:
        _refuse_more([each.owner_id for each in known.values()], owner_id)
    await _refuse_shared(connection, name, taught)
    domain = Domain(name, owner_id, taught, author.name, now)
    await domains.put(connection, domain)
    told = {"examples": len(domain.examples)}
    await audit.record(connection, Deed(author.name, "teach_domain", f"domains/{name}", told), now)
    await changes.announce(connection, changes.CATALOG)
    return domain


def _refuse_more(owners: Sequence[UUID | None], owner_id: UUID | None) -> None:
    if len(owners) >= DOMAINS_MAX:
        raise Conflict(f"There are {DOMAINS_MAX} domains already.", code="domains_too_many")
    if owner_id is not None and owners.count(owner_id) >= DOMAINS_OF_ONE_MAX:
        raise Conflict(f"You teach {DOMAINS_OF_ONE_MAX} domains already.", code="domains_too_many")


async def _refuse_shared(connection: AsyncConnection, name: str, examples: Sequence[str]) -> None:
    shared = await domains.find_sharing(connection, name, examples)
    if shared is not None:
        other, count = shared
        raise Conflict(
            f"{count} of the examples are examples of '{other}' already; a prompt that is of both "
            "teaches neither.",
            code="examples_contradict",
        )


async def forget_domain(
    connection: AsyncConnection, author: Caller, name: str, now: datetime
) -> None:
    """Forget a domain, with its audit entry. Raises NotFound, also for a provider's not its own."""
    await connection.execute(text(_ONE_BY_ONE))
    known = {each.name: each for each in await domains.list_domains(connection)}
    own = author.role is Role.OPERATOR or (
        name in known and known[name].owner_id == author.account_id
    )
    if name not in known or not own:
        raise NotFound(f"You have no domain named '{name}'.")
    await domains.remove(connection, name)
    await audit.record(connection, Deed(author.name, "forget_domain", f"domains/{name}"), now)
    await changes.announce(connection, changes.CATALOG)
