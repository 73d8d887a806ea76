"""What a key allows: named otherwise it is refused by name, else the candidates are narrowed."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.candidates.allowance import may_name, narrowed
from broker.core.candidates.eligibility import Rejection
from broker.core.key_terms import Allowance
from broker.core.market import Market
from broker.core.requirements import Requirements
from broker.errors import NotAllowed
from tests.fakes import decide, endpoint, market, planned, requirements


@pytest.fixture
def bourse() -> Market:
    return market(
        [
            endpoint(0, "acme/small"),
            endpoint(1, "globex/small"),
            endpoint(2, "acme/big", model="big"),
            endpoint(3, "lexis/law", model="law", domains={"law": 0.9}),
            endpoint(4, "medic/ills", model="ills", domains={"medicine": 0.9}),
        ]
    )


def allowed(**lists: Any) -> Allowance:
    return Allowance(**{name: frozenset(each) for name, each in lists.items()})


def served(bourse: Market, allowance: Allowance, **asked: Any) -> list[int]:
    """The endpoints that may serve a call of a key."""
    wanted = narrowed(requirements(**asked), allowance, bourse)
    limits = {name: getattr(wanted, name) for name in Requirements.__struct_fields__}
    return sorted(planned(decide(bourse, **limits)))


def refused(bourse: Market, allowance: Allowance, **asked: Any) -> str:
    with pytest.raises(NotAllowed) as raised:
        narrowed(requirements(**asked), allowance, bourse)
    assert raised.value.status == 403
    return raised.value.code


def test_another_model_is_refused_by_name_and_auto_is_narrowed(bourse: Market) -> None:
    one = allowed(models=["big"])
    assert refused(bourse, one, model="small") == "model_not_allowed"
    assert refused(bourse, one, model="acme/small") == "model_not_allowed"
    assert refused(bourse, one, model="nobody-knows") == "model_not_allowed"
    assert served(bourse, one, model="auto") == [2]
    assert served(bourse, one, model="big") == [2]
    assert served(bourse, one, model="acme/big") == [2], "an endpoint of the family"


def test_a_family_is_narrowed_to_the_endpoint_that_is_allowed(bourse: Market) -> None:
    one = allowed(models=["globex/small"])
    assert served(bourse, one, model="small") == [1]
    assert served(bourse, one, model="globex/small") == [1]
    assert refused(bourse, one, model="acme/small") == "model_not_allowed"


def test_a_model_that_is_allowed_and_not_there_is_for_the_market_to_refuse(bourse: Market) -> None:
    assert narrowed(requirements(model="gone"), allowed(models=["gone"]), bourse).model == "gone"


def test_providers_are_narrowed_and_one_that_is_named_is_refused(bourse: Market) -> None:
    one = allowed(providers=["acme"])
    assert served(bourse, one, model="auto") == [0, 2]
    assert served(bourse, one, model="small") == [0]
    assert refused(bourse, one, model="globex/small") == "provider_not_allowed"
    only = frozenset({"globex"})
    assert refused(bourse, one, model="auto", providers_only=only) == "provider_not_allowed"
    both = frozenset({"globex", "acme"})
    assert served(bourse, one, model="auto", providers_only=both) == [0, 2]
    assert served(bourse, allowed(providers=["acme", "globex"]), providers_only=only) == [1]
    ignored = frozenset({"globex"})
    assert served(bourse, allowed(providers=["acme", "globex"]), providers_ignore=ignored) == [0]


def test_a_call_about_another_domain_is_refused_and_other_specialists_are_left_out(
    bourse: Market,
) -> None:
    one = allowed(domains=["law"])
    assert refused(bourse, one, model="auto", domain="medicine") == "domain_not_allowed"
    assert served(bourse, one, model="auto", domain="law") == [0, 1, 2, 3]
    assert narrowed(requirements(), one, bourse).domain == "law", "the only one it can be about"
    two = allowed(domains=["law", "tax"])
    assert narrowed(requirements(), two, bourse).domain is None
    assert 4 not in served(bourse, two, model="auto")


def test_who_was_left_out_is_told_with_the_reason(bourse: Market) -> None:
    both = allowed(models=["small", "ills"], domains=["law"])
    wanted = narrowed(requirements(model="auto"), both, bourse)
    decision = decide(
        bourse, model="auto", models_only=wanted.models_only, domains_only=wanted.domains_only
    )
    told = dict(zip(decision.rejected.tolist(), decision.reasons.tolist(), strict=True))
    assert told == {
        2: Rejection.MODEL_NOT_ALLOWED,
        3: Rejection.MODEL_NOT_ALLOWED,
        4: Rejection.DOMAIN_NOT_ALLOWED,
    }


def test_two_keys_with_other_lists_do_not_get_each_others_answer(bourse: Market) -> None:
    assert served(bourse, allowed(models=["big"]), model="auto") == [2]
    assert served(bourse, allowed(models=["law"]), model="auto") == [3]
    assert served(bourse, Allowance(), model="auto") == [0, 1, 2, 3]


def test_the_list_of_models_shows_what_may_be_named() -> None:
    one = allowed(models=["big", "acme/small"], providers=["acme"])
    shown = [
        may_name(one, *each)
        for each in (
            ("big", "acme/big"),
            ("big", "globex/big"),
            ("small", "acme/small"),
            ("small", "acme/other"),
        )
    ]
    assert shown == [True, False, True, False]
    assert may_name(Allowance(), "any", "who/ever")
