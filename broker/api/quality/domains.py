"""Domains: what prompts may be about, taught by examples."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, put
from litestar.params import FromPath, JSONBody

from broker.api.callers import allow
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import Body, Reply
from broker.core.quality.syllabus import EXAMPLES_MAX, Domain
from broker.flows.quality.teach_domain import forget_domain, teach_domain
from broker.store.access.accounts import Role
from broker.store.quality.domains import Listed, list_domains

TEACHERS = allow(Role.PROVIDER, Role.OPERATOR)


class DomainTaught(Body):
    """Prompts such as callers send, at least 20 different ones; 40 do better."""

    examples: Annotated[list[str], msgspec.Meta(max_length=2 * EXAMPLES_MAX)]


class DomainShown(Reply):
    """A domain; `examples` is how many it is taught by."""

    name: str
    examples: int
    author: str
    changed_at: datetime


class DomainsShown(Reply):
    """All domains, by name."""

    domains: list[DomainShown]


class DomainController(Controller):
    """`/api/domains`"""

    path = "/domains"
    tags = ("Routing",)

    @get(summary="List the domains")
    async def list(self, engine: GivenEngine) -> DomainsShown:
        async with engine.connect() as connection:
            return DomainsShown(
                domains=[_shown(each, each.examples) for each in await list_domains(connection)]
            )

    @put("/{name:str}", summary="Teach a domain, or teach it anew", guards=(TEACHERS,))
    async def teach(
        self,
        name: FromPath[str],
        data: JSONBody[DomainTaught],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> DomainShown:
        async with engine.begin() as connection:
            taught = await teach_domain(connection, caller, name, data.examples, now)
            return _shown(taught, len(taught.examples))

    @delete("/{name:str}", summary="Forget a domain", guards=(TEACHERS,))
    async def forget(
        self, name: FromPath[str], engine: GivenEngine, caller: GivenCaller, now: GivenTime
    ) -> None:
        async with engine.begin() as connection:
            await forget_domain(connection, caller, name, now)


def _shown(domain: Domain | Listed, examples: int) -> DomainShown:
    return DomainShown(
        name=domain.name,
        examples=examples,
        author=domain.author,
        changed_at=domain.changed_at,
    )
