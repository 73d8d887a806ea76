"""Holds a call to what its key may ask for: refused by name, or its candidates narrowed."""

from __future__ import annotations

import msgspec

from broker.core.columns import AUTO
from broker.core.key_terms import Allowance
from broker.core.market import Market
from broker.core.requirements import Requirements
from broker.errors import NotAllowed


def narrowed(wanted: Requirements, allowed: Allowance, market: Market) -> Requirements:
    """Return the demands within what a key allows.

    Raises NotAllowed with code `model_not_allowed`, `provider_not_allowed` or `domain_not_allowed`
    where the call itself names what the key does not.
    """
    providers = wanted.providers_only
    if allowed.models is not None:
        _require_model(wanted, allowed.models, market)
    if allowed.providers is not None:
        _require_provider(wanted, allowed.providers)
        providers = allowed.providers if providers is None else providers & allowed.providers
    return msgspec.structs.replace(
        wanted,
        models_only=allowed.models,
        domains_only=allowed.domains,
        providers_only=providers,
        domain=_domain(wanted, allowed.domains),
    )


def may_name(allowed: Allowance, model: str, name: str) -> bool:
    """True when a key may call the endpoint `name`, `provider/endpoint`, of the family `model`."""
    provider = name.partition("/")[0]
    return (allowed.models is None or model in allowed.models or name in allowed.models) and (
        allowed.providers is None or provider in allowed.providers
    )


def _require_model(wanted: Requirements, models: frozenset[str], market: Market) -> None:
    """A family with an endpoint that is allowed may be named, and an endpoint by its family."""
    if wanted.model == AUTO or wanted.model in models:
        return
    members = market.columns.members(wanted.task, wanted.model)
    for number in () if members is None else members.tolist():
        endpoint = market.endpoint(number)
        if endpoint.model in models or endpoint.name in models:
            return
    raise NotAllowed(
        f"This key may not call '{wanted.model}', only {_told(models)}.", code="model_not_allowed"
    )


def _require_provider(wanted: Requirements, providers: frozenset[str]) -> None:
    named = wanted.providers_only
    if "/" in wanted.model:
        named = frozenset([wanted.model.partition("/")[0]])
    if named is not None and named.isdisjoint(providers):
        raise NotAllowed(
            f"This key may not call providers other than {_told(providers)}.",
            code="provider_not_allowed",
        )


def _domain(wanted: Requirements, domains: frozenset[str] | None) -> str | None:
    """A key with one domain says it for its calls."""
    if domains is None or wanted.domain in domains:
        return wanted.domain
    if wanted.domain is not None:
        raise NotAllowed(
            f"This key's calls may not be about '{wanted.domain}', only {_told(domains)}.",
            code="domain_not_allowed",
        )
    return next(iter(domains)) if len(domains) == 1 else None


def _told(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
