"""Teaches and forgets domains, which every process hears of at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.syllabus import Domain, check_examples
from broker.errors import NotAllowed, NotFound
from broker.flows.authenticate import Caller
from broker.store import audit, changes, domains
from broker.store.accounts import Role
from broker.store.audit import Deed

# Two that teach at once would not see each other's examples. A lock held by its transaction.
_ONE_BY_ONE = "SELECT pg_advisory_xact_lock(hashtext('domains'))"


async def teach_domain(
    connection: AsyncConnection, author: Caller, name: str, examples: Sequence[str], now: datetime
) -> Domain:
    """Teach a domain, or teach it anew, with its audit entry.

    Operators teach any, providers their own. Raises NotAllowed for consumers and for a domain that
    is another's, and what `check_examples` raises.
    """
    if author.role is Role.CONSUMER:
        raise NotAllowed("Only operators and providers teach domains.")
    await connection.execute(text(_ONE_BY_ONE))
    known = await domains.load_domains(connection)
    before = next((each for each in known if each.name == name), None)
    owner_id = None if author.role is Role.OPERATOR else author.account_id
    if before is not None:
        if owner_id not in (None, before.owner_id):
            raise NotAllowed(f"The domain '{name}' is another's to teach.")
        owner_id = before.owner_id
    domain = Domain(name, owner_id, check_examples(name, examples, known), author.name, now)
    await domains.put(connection, domain)
    told = {"examples": len(domain.examples)}
    await audit.record(connection, Deed(author.name, "teach_domain", f"domains/{name}", told), now)
    await changes.announce(connection, changes.CATALOG)
    return domain


async def forget_domain(
    connection: AsyncConnection, author: Caller, name: str, now: datetime
) -> None:
    """Forget a domain, with its audit entry. Raises NotFound, also for a provider's not its own."""
    await connection.execute(text(_ONE_BY_ONE))
    known = {each.name: each for each in await domains.load_domains(connection)}
    own = author.role is Role.OPERATOR or (
        name in known and known[name].owner_id == author.account_id
    )
    if name not in known or not own:
        raise NotFound(f"You have no domain named '{name}'.")
    await domains.remove(connection, name)
    await audit.record(connection, Deed(author.name, "forget_domain", f"domains/{name}"), now)
    await changes.announce(connection, changes.CATALOG)
