"""Takes in the suite of a domain, and shows suites to who may see them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.answers.suites import Broken, Cover, Metric, Suite, parse_suite
from broker.errors import NotAllowed, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.access.audit import Deed
from broker.store.quality import domains, suites


@dataclass(frozen=True, slots=True)
class Imported:
    """A suite as it was taken in, and the rows that could not be."""

    suite: Suite
    broken: list[Broken]
    known: bool
    """Its domain is taught, or an endpoint claims it."""


async def import_suite(
    connection: AsyncConnection,
    author: Caller,
    domain: str,
    told: tuple[bytes, str | None],
    now: datetime,
) -> Imported:
    """Take in a suite, over the one before, with its audit entry; `told` is lines and judge.

    Every endpoint that claims the domain is then examined on it, unless it is as it was. Operators
    import for any domain, taught or not; providers for domains that are their own, and without a
    judge, for a judge works unpaid. On a provider's suite only its own endpoints are examined,
    until an operator adopts it by importing it. Raises NotAllowed, and what `parse_suite` raises.
    """
    if not domain.strip() or "\0" in domain or len(domain) > 200:
        raise RequestMalformed("A domain's name has 1 to 200 characters.", code="domain_malformed")
    items, broken = await asyncio.to_thread(parse_suite, *told)  # schemas may take a while
    owner_id = await _owner(connection, author, domain)
    if author.role is not Role.OPERATOR and any(each.metric is Metric.JUDGE for each in items):
        raise NotAllowed("Only operators' suites have judges.")
    known = await domains.is_known(connection, domain)
    before = await suites.find(connection, domain, for_update=True)
    if before is not None and (before.items, before.owner_id) == (items, owner_id):
        return Imported(before, broken, known)
    suite = Suite(domain, owner_id, items, author.name, now)
    await suites.put(connection, suite)
    detail = {"rows": len(items), "broken": len(broken)}
    await audit.record(
        connection, Deed(author.name, "import_suite", f"suites/{domain}", detail), now
    )
    return Imported(suite, broken, known)


async def remove_suite(
    connection: AsyncConnection, author: Caller, domain: str, now: datetime
) -> None:
    """Remove a suite, with its audit entry. Raises NotFound, also for another's."""
    suite = await suites.find(connection, domain, for_update=True)
    if suite is None or not may_read(author, suite):
        raise NotFound(f"You have no suite for '{domain}'.")
    await suites.remove(connection, domain)
    await audit.record(connection, Deed(author.name, "remove_suite", f"suites/{domain}"), now)


async def read_suite(connection: AsyncConnection, reader: Caller, domain: str) -> Suite:
    """Return a suite with its prompts. Raises NotFound, also for another's: canaries are of it."""
    suite = await suites.find(connection, domain)
    if suite is None or not may_read(reader, suite):
        raise NotFound(f"You have no suite for '{domain}'.")
    return suite


def may_read(reader: Caller, suite: Suite | Cover) -> bool:
    """True for operators, and for who owns it: others would learn what they are examined on."""
    return reader.role is Role.OPERATOR or suite.owner_id == reader.account_id


async def _owner(connection: AsyncConnection, author: Caller, domain: str) -> UUID | None:
    if author.role is Role.OPERATOR:
        return None
    taught = {each.name: each for each in await domains.list_domains(connection)}
    own = domain in taught and taught[domain].owner_id == author.account_id
    if author.role is not Role.PROVIDER or not own:
        raise NotAllowed("Providers import suites for domains that they have taught themselves.")
    before = await suites.find(connection, domain)
    if before is not None and before.owner_id != author.account_id:
        raise NotAllowed(f"The suite of '{domain}' is an operator's.")
    return author.account_id
