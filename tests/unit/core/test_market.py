"""The market as one picture: taken over where nothing changed, and with an end to what it keeps."""

from __future__ import annotations

import pytest

from broker.core.candidates import eligibility
from broker.core.catalog import Task
from broker.core.columns import AUTO, build_columns
from broker.core.market import RATES_MAX, Presence, build_market
from pricing.book import EndpointUnpriced, PriceBook
from tests.fakes import OTHER_ACCOUNT, decide, endpoint, market, planned, requirements


def test_a_price_tick_takes_the_columns_over() -> None:
    members = [endpoint(0), endpoint(3, "zeta/small")]
    before = market(members)
    book = PriceBook.from_matrix(8, before.book.matrix() * 2)
    after = build_market(members, book, {}, before)
    assert after.columns is before.columns
    assert decide(after).hold_nanos == 2 * decide(before).hold_nanos


@pytest.mark.parametrize(
    "changed",
    [
        [endpoint(0, quality=0.9), endpoint(1)],
        [endpoint(0)],
        [endpoint(0), endpoint(1), endpoint(2)],
        [],
    ],
)
def test_another_catalog_is_laid_out_anew(changed: list) -> None:
    before = market([endpoint(0), endpoint(1)])
    after = build_market(changed, before.book, {}, before)
    assert after.columns is not before.columns
    assert [each for each in after.endpoints if each] == changed


def test_an_endpoint_comes_back_with_its_deployment() -> None:
    members = [endpoint(0), endpoint(1)]
    away = market(members, {1: Presence.DOWN})
    assert planned(decide(away)) == [0]
    back = build_market(members, away.book, {1: Presence.READY}, away)
    assert set(planned(decide(back))) == {0, 1}


def test_an_endpoint_that_the_book_does_not_know_yet_is_not_routed_to() -> None:
    priced = market([endpoint(0)])
    both = build_market([endpoint(0), endpoint(5)], priced.book, {})
    assert planned(decide(both)) == [0]
    with pytest.raises(EndpointUnpriced):
        both.rate(5)


def test_of_however_many_endpoints_are_called_so_many_rates_are_remembered() -> None:
    where = market([endpoint(number) for number in range(RATES_MAX + 9)])
    for number in range(RATES_MAX + 9):
        assert where.rate(number) == where.book.rate(number)
        assert where.rate(number) is where.rate(number)
        assert 0 < len(where.rates) <= RATES_MAX


def test_an_empty_market_has_nothing_for_anybody() -> None:
    empty = build_market([], PriceBook.empty(), {})
    assert empty.endpoints == ()
    assert empty.columns.members(Task.CHAT, AUTO) is None


def test_a_name_means_its_endpoint_and_the_family_that_is_called_so() -> None:
    columns = build_columns(
        [
            endpoint(0, "acme/law", model="small"),
            endpoint(3, "zeta/law", model="acme/law"),
            endpoint(5, "zeta/own", model="zeta/own"),
            endpoint(7, "zeta/vectors", model="wide", tasks=frozenset({Task.EMBEDDING})),
        ]
    )

    def meant(model: str, task: Task = Task.CHAT) -> list[int] | None:
        members = columns.members(task, model)
        return None if members is None else members.tolist()

    assert meant(AUTO) == [0, 3, 5]
    assert meant("small") == [0]
    assert meant("acme/law") == [0, 3]
    assert meant("zeta/law") == [3]
    assert meant("zeta/own") == [5]
    assert meant("zeta/vectors") is None
    assert meant("zeta/vectors", Task.EMBEDDING) == [7]
    assert meant("nobody/there") is None


def test_what_is_remembered_of_the_terms_asked_for_has_an_end() -> None:
    where = market([endpoint(0)])
    for number in range(3 * eligibility.SHORTLISTS_MAX):
        decide(where, domain=f"domain {number}")
        assert len(where.shortlists) <= eligibility.SHORTLISTS_MAX


def test_callers_who_name_one_endpoint_after_the_other_have_no_long_list_forgotten() -> None:
    there = market([endpoint(number) for number in range(2 * eligibility.SHORTLISTS_MAX)])
    decide(there)
    [long] = there.shortlists.values()
    for each in there.by_name:
        decide(there, model=each)
    assert any(each is long for each in there.shortlists.values())
    assert len(there.shortlists) <= eligibility.SHORTLISTS_MAX


def test_names_that_nobody_has_are_forgotten_as_any_other_list() -> None:
    there = market([endpoint(0)])
    for number in range(2 * eligibility.SHORTLISTS_MAX):
        assert eligibility.shortlist(requirements(model=f"nobody/{number}"), there) is None
    assert len(there.shortlists) <= eligibility.SHORTLISTS_MAX


def test_a_market_that_is_followed_by_another_keeps_nothing_for_calls_to_come() -> None:
    there = market([endpoint(0), endpoint(1)])
    before = decide(there)
    there.retire()
    assert not there.shortlists
    assert not there.rates
    assert planned(decide(there)) == planned(before), "whoever still wants it, gets it"


def test_calls_that_differ_in_size_alone_share_a_shortlist() -> None:
    where = market([endpoint(0), endpoint(1)])
    for size in range(5):
        decide(where, tokens_in_bound=500 + size, tokens_out_max=10 + size)
    assert len(where.shortlists) == 1


def test_accounts_do_not_share_a_shortlist_where_something_is_private() -> None:
    where = market([endpoint(0), endpoint(1, visible_to=[OTHER_ACCOUNT])])
    assert planned(decide(where)) == [0]
    assert set(planned(decide(where, account_id=OTHER_ACCOUNT))) == {0, 1}


def test_calls_that_ask_for_other_qualities_do_not_share_a_shortlist() -> None:
    where = market([endpoint(0, quality=0.9), endpoint(1, quality=0.5)])
    for least, served in ((0.8, {0}), (0.4, {0, 1}), (None, {0, 1})):
        assert set(planned(decide(where, quality_min=least))) == served


def test_an_account_sees_what_is_public_and_what_lists_it_by_name() -> None:
    listed = endpoint(0, "zeta/secret", visible_to=[OTHER_ACCOUNT])
    where = market([listed, endpoint(1, "acme/small")])
    assert [each.name for each in where.visible(OTHER_ACCOUNT)] == ["acme/small", "zeta/secret"]
    assert [each.name for each in where.visible(endpoint().id)] == ["acme/small"]


def test_one_endpoint_may_serve_several_tasks() -> None:
    where = market([endpoint(0, tasks=[Task.CHAT, Task.EMBEDDING])])
    assert planned(decide(where)) == [0]
    assert planned(decide(where, task=Task.EMBEDDING, tokens_out_max=None)) == [0]
