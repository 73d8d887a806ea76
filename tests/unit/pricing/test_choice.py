from __future__ import annotations

import math
from typing import Any

import pytest

from pricing.choice import (
    STANDARD,
    Choice,
    ChoiceMalformed,
    Member,
    Scope,
    build_controller,
    choice_for,
    ensemble_of,
    in_force,
)
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.revenue import RevenueSearch
from pricing.schedule import schedule_of

LAWYER = Member(0, "lawfirm/lawyer", "lawfirm", "law")
DRAFTS = Member(3, "lawfirm/drafts", "lawfirm")
DOCTOR = Member(1, "clinic/doctor", "clinic", "medicine")


def test_a_controller_is_built_from_its_name_and_numbers() -> None:
    assert build_controller("excess", {"k_s": 30}) == ExcessLoad(k_s=30.0)
    assert build_controller("revenue", {"seed": 5.0}) == RevenueSearch(seed=5)


@pytest.mark.parametrize(
    ("name", "parameters", "field", "told"),
    [
        ("magic", {}, "controller", "posted, excess, pi, shadow, revenue"),
        ("excess", {"k": 1.0}, "parameters.k", "target, k_s, load_cap"),
        ("posted", {"k_s": 1.0}, "parameters.k_s", "takes none"),
        ("excess", {"k_s": "30"}, "parameters.k_s", "finite number"),
        ("excess", {"k_s": True}, "parameters.k_s", "finite number"),
        ("excess", {"k_s": math.nan}, "parameters.k_s", "finite number"),
        ("excess", {"k_s": 10**400}, "parameters.k_s", "finite number"),
        ("excess", {"k_s": -1.0}, "parameters", "above zero"),
        ("revenue", {"seed": 0.5}, "parameters.seed", "whole number"),
        ("revenue", {"seed": -1}, "parameters.seed", "whole number"),
    ],
)
def test_what_no_controller_can_be_built_of_is_refused_by_field(
    name: str, parameters: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(ChoiceMalformed, match=told) as refusal:
        build_controller(name, parameters)
    assert refusal.value.field == field


def test_a_choice_names_its_subject_and_the_market_has_none() -> None:
    with pytest.raises(ChoiceMalformed, match="subject"):
        Choice(Scope.PROVIDER, "", "posted")
    with pytest.raises(ChoiceMalformed, match="subject"):
        Choice(Scope.MARKET, "lawfirm", "posted")
    with pytest.raises(ChoiceMalformed, match="valid_to"):
        Choice(Scope.MARKET, "", "posted", valid_from_s=5.0, valid_to_s=5.0)


def test_the_narrowest_choice_wins() -> None:
    choices = [
        Choice(Scope.ENDPOINT, "lawfirm/lawyer", "posted"),
        Choice(Scope.PROVIDER, "lawfirm", "pi"),
        Choice(Scope.DOMAIN, "law", "shadow"),
        Choice(Scope.DOMAIN, "medicine", "revenue"),
    ]
    standing = in_force(choices, 0.0)
    chosen = [choice_for(each, standing).controller for each in (LAWYER, DRAFTS, DOCTOR)]
    assert chosen == ["posted", "pi", "revenue"]
    assert choice_for(Member(9, "a/b", "a"), standing) == STANDARD
    standing = in_force(choices[2:], 0.0)
    assert choice_for(LAWYER, standing).controller == "shadow"
    assert choice_for(DRAFTS, standing) == STANDARD


def test_a_choice_for_a_while_lies_over_the_standing_one() -> None:
    standing = Choice(Scope.MARKET, "", "pi", valid_from_s=0.0)
    sale = Choice(Scope.MARKET, "", "posted", valid_from_s=10.0, valid_to_s=20.0)
    later = Choice(Scope.MARKET, "", "shadow", valid_from_s=30.0)
    for choices in ([standing, sale, later], [later, sale, standing]):
        at = {
            at_s: choice_for(LAWYER, in_force(choices, at_s)).controller
            for at_s in (-1.0, 0.0, 9.9, 10.0, 19.9, 20.0, 30.0)
        }
        assert list(at.values()) == ["excess", "pi", "pi", "posted", "posted", "pi", "shadow"]


def test_of_two_that_begin_together_the_later_given_wins() -> None:
    pair = [Choice(Scope.MARKET, "", "pi"), Choice(Scope.MARKET, "", "posted")]
    assert in_force(pair, 0.0)[Scope.MARKET, ""].controller == "posted"


def test_equal_choices_share_one_group() -> None:
    night = schedule_of([{"from": "00:00", "factor": 0.5}])
    standing = in_force(
        [
            Choice(Scope.PROVIDER, "lawfirm", "excess", {"k_s": 30.0, "target": 0.6}),
            Choice(Scope.PROVIDER, "clinic", "excess", {"target": 0.6, "k_s": 30.0}),
            Choice(Scope.ENDPOINT, "lawfirm/drafts", "excess", {"k_s": 30.0}, night),
        ],
        0.0,
    )
    ensemble = ensemble_of([LAWYER, DRAFTS, DOCTOR], standing)
    assert ensemble.group_of.tolist() == [0, 0, -1, 1]
    assert [each.name for each in ensemble.groups] == ["excess", "excess"]
    assert ensemble.groups[1].schedule == night
    assert ensemble.groups[0].key != ensemble.groups[1].key


def test_a_market_without_members_has_no_group() -> None:
    assert ensemble_of([], {}).groups == ()
