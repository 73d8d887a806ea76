"""The shortlist of an endpoint that is named is the same in plain numbers as in arrays."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.candidates import eligibility
from broker.core.candidates.named import shortlist_of_named
from broker.core.catalog import Task
from broker.core.market import Presence, Shortlist
from pricing.book import PriceBook, Rate
from pricing.tiers import Tier
from tests.fakes import ACCOUNT, OTHER_ACCOUNT, endpoint, market, requirements

NAME = "acme/small"
OTHERS = [
    endpoint(number, f"zeta/{number}", model="large", rate=Rate(1, 1, 1)) for number in range(3)
]
PLAIN: dict[str, Any] = {"model": NAME}

offers = st.fixed_dictionaries(
    {
        "rate": st.builds(Rate, *[st.sampled_from([0, 1, 10**7])] * 3),
        "tasks": st.sets(st.sampled_from(Task), min_size=1),
        "domains": st.sampled_from([None, {"law": 0.9}, {"law": 0.2, "medicine": 0.7}]),
        "context_length_tokens": st.none() | st.integers(1, 10_000),
        "max_output_tokens": st.none() | st.integers(1, 10_000),
        "quality": st.floats(0, 1),
    }
)
demands = st.fixed_dictionaries(
    {"task": st.sampled_from(Task), "domain": st.sampled_from([None, "law", "cooking"])}
)


def in_arrays(where: Any, **asked: Any) -> Shortlist | None:
    return eligibility._shortlist(requirements(**asked), where)


def assert_same(one: Shortlist, other: Shortlist) -> None:
    for each in fields(Shortlist):
        mine, theirs = getattr(one, each.name), getattr(other, each.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, each.name
            assert mine.tolist() == theirs.tolist(), each.name
        else:
            assert mine == theirs, each.name


@given(offer=offers, asked=demands)
def test_what_is_listed_in_plain_numbers_is_listed_alike_in_arrays(
    offer: dict[str, Any], asked: dict[str, Any]
) -> None:
    where = market([*OTHERS, endpoint(5, NAME, **offer)])
    one = shortlist_of_named(requirements(**PLAIN | asked), where)
    other = in_arrays(where, **PLAIN | asked)
    if other is None or other.rejected.size:
        assert one is None
    else:
        assert one is not None
        assert_same(one, other)


AMISS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"visible_to": [OTHER_ACCOUNT]}, {}),
    ({"visible_to": [ACCOUNT]}, {}),
    ({}, {"tier": Tier.FLEX}),
    ({}, {"models_only": frozenset({"large"})}),
    ({"domains": {"law": 0.9}}, {"domains_only": frozenset({"medicine"})}),
    ({}, {"providers_only": frozenset({"zeta"})}),
    ({}, {"providers_ignore": frozenset({"acme"})}),
    ({}, {"version": "2"}),
    ({}, {"regions": frozenset({"us"})}),
    ({"deployment": {"retains_data": True}}, {"allow_retention": False}),
    ({"deployment": {"trains_on_data": True}}, {"allow_training": False}),
    ({}, {"quality_min": 0.9}),
    ({}, {"max_rate_in_micros": 1}),
    ({}, {"max_rate_out_micros": 1}),
]


@pytest.mark.parametrize(("offer", "asked"), AMISS)
def test_what_may_not_meet_the_terms_is_left_to_those_who_tell_why(
    offer: dict[str, Any], asked: dict[str, Any]
) -> None:
    where = market([*OTHERS, endpoint(5, NAME, **offer)])
    assert shortlist_of_named(requirements(**PLAIN | asked), where) is None


def test_so_is_who_is_away_has_no_price_yet_or_shares_the_name_with_a_family() -> None:
    one = endpoint(5, NAME)
    away = market([*OTHERS, one], {5: Presence.DRAINING})
    unpriced = market([*OTHERS, endpoint(5, NAME, rate=Rate(0, 0, 0))])
    newcomer = replace(unpriced, book=PriceBook.empty(7))
    family = market([one, endpoint(6, "beta/any", model=NAME)])
    for where in (away, unpriced, newcomer, family):
        assert shortlist_of_named(requirements(**PLAIN), where) is None
    assert shortlist_of_named(requirements(model="nobody/none"), away) is None


def test_a_call_by_name_is_decided_by_what_is_listed_so() -> None:
    where = market([*OTHERS, endpoint(5, NAME)])
    listed = eligibility.shortlist(requirements(**PLAIN), where)
    assert listed is not None
    assert listed.lone is not None
    assert listed.rate_in.base is None, "of its own, not cut out of a table"
