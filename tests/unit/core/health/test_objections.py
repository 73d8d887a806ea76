"""Endpoints that refuse what is right: told apart from callers who ask for what is wrong."""

from __future__ import annotations

from broker.core.health.objections import Objections


def heard(*answers: tuple[int, bool]) -> Objections:
    told = Objections()
    for endpoint, objected in answers:
        told.note(endpoint, objected=objected)
    return told


def test_a_few_refusals_are_believed() -> None:
    assert not heard(*[(0, True)] * 3).is_odd(0, [1])


def test_who_refuses_far_more_than_a_peer_is_not() -> None:
    told = heard(*[(0, True)] * 5, (1, False))
    assert told.is_odd(0, [1])
    assert not told.is_odd(1, [0])


def test_where_all_refuse_alike_it_is_the_callers() -> None:
    told = heard(*[(0, True), (1, True)] * 10)
    assert not told.is_odd(0, [1])
    assert not told.is_odd(0, []), "nobody else can be asked"


def test_answers_make_up_for_refusals() -> None:
    told = heard(*[(0, True)] * 10, *[(0, False)] * 10)
    assert not told.is_odd(0, [1])
    for _ in range(40):
        told.note(0, objected=False)
    assert told.shares == {}
