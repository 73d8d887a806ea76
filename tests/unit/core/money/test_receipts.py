"""Where a receipt and the broker's records differ, and where they only seem to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from msgspec.structs import replace

from broker.core.money.receipts import MEANINGS, Billed, CaseKind, ComparedCall, Said, compare

HERE, THERE = (uuid5(NAMESPACE_URL, name) for name in ("here", "there"))
BEGUN = datetime(2030, 1, 1, 12, tzinfo=UTC)
SETTLED = BEGUN + timedelta(seconds=4)
PLACE = (0, HERE)
LINE = Billed(PLACE, tokens_in=1_000, tokens_out=500, charge_nanos=1_250_000)
SAID = Said(
    place=PLACE,
    status=200,
    whole=True,
    tokens_in=1_000,
    tokens_out=500,
    bytes_out=2_000,
    started_at=BEGUN + timedelta(seconds=1),
    first_byte_at=BEGUN + timedelta(seconds=2),
    ended_at=BEGUN + timedelta(seconds=3),
)


def call(**changes: Any) -> ComparedCall:
    known: dict[str, Any] = {
        "id": UUID(int=7),
        "begun_at": BEGUN,
        "settled_at": SETTLED,
        "tried": {PLACE: "delivered"},
        "billed": (LINE,),
        "said": (SAID,),
        "promised": frozenset({HERE}),
    }
    return ComparedCall(**(known | changes))


def kinds(compared: ComparedCall) -> list[CaseKind]:
    return [each.kind for each in compare(compared)]


def said(**changes: Any) -> tuple[Said, ...]:
    return (replace(SAID, **changes),)


def test_both_sides_say_the_same() -> None:
    assert compare(call()) == []


def test_what_was_billed_wants_a_receipt_from_who_promised_one() -> None:
    [found] = compare(call(said=()))
    assert (found.kind, found.place) == (CaseKind.NO_RECEIPT, PLACE)
    assert found.detail["charge_usd"] == "0.00125"
    assert kinds(call(said=(), promised=frozenset({THERE}))) == []


def test_a_receipt_of_a_call_that_never_went_there_is_told() -> None:
    elsewhere = replace(SAID, place=(0, THERE))
    assert kinds(call(settled_at=None, tried=None, billed=())) == [CaseKind.UNKNOWN_CALL]
    assert kinds(call(said=(SAID, elsewhere))) == [CaseKind.UNKNOWN_CALL]
    assert kinds(call(said=(SAID, replace(SAID, place=(1, HERE))))) == [CaseKind.UNKNOWN_CALL]


def test_a_whole_answer_that_was_not_billed_is_told_with_what_the_broker_made_of_it() -> None:
    [found] = compare(call(billed=(), tried={PLACE: "deadline"}))
    assert (found.kind, found.detail["outcome"]) == (CaseKind.NOT_BILLED, "deadline")
    [cut] = compare(call(billed=(), tried=None))
    assert cut.detail["outcome"] == "broker_died"


@pytest.mark.parametrize(
    "nothing",
    [
        {"whole": False},
        {"status": 500},
        {"status": None},
        {"tokens_out": 0},
        {"tokens_out": None, "bytes_out": 0},
    ],
)
def test_what_delivered_nothing_needs_no_bill(nothing: dict[str, Any]) -> None:
    assert kinds(call(billed=(), said=said(**nothing))) == []


def test_a_failure_by_the_receipt_that_was_billed_is_told() -> None:
    [found] = compare(call(said=said(status=503, tokens_in=None, tokens_out=None)))
    assert (found.kind, found.detail["status"]) == (CaseKind.NOT_SERVED, 503)


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "differing"),
    [
        (1_000, 516, []),
        (1_000, 517, ["tokens_out"]),
        (1_000, 483, ["tokens_out"]),
        (1_020, 500, []),
        (1_021, 500, ["tokens_in"]),
        (None, None, []),
        (0, 9_999, ["tokens_in", "tokens_out"]),
    ],
)
def test_counts_differ_beyond_a_tolerance_only(
    tokens_in: int | None, tokens_out: int | None, differing: list[str]
) -> None:
    found = compare(call(said=said(tokens_in=tokens_in, tokens_out=tokens_out)))
    assert [sorted(each.detail) for each in found] == ([differing] if differing else [])
    for each in found:
        assert each.kind is CaseKind.COUNTS_DIFFER
        for name in differing:
            assert each.detail[name] == {
                "billed": getattr(LINE, name),
                "receipt": {"tokens_in": tokens_in, "tokens_out": tokens_out}[name],
            }


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("times", "faults"),
    [
        ({"first_byte_at": None}, []),
        ({"first_byte_at": BEGUN}, ["out_of_order"]),
        ({"first_byte_at": SETTLED}, ["out_of_order"]),
        ({"started_at": BEGUN + 5 * SECOND, "first_byte_at": None}, ["out_of_order"]),
        # A clock that is half a minute off, all times alike, is a clock.
        ({n: getattr(SAID, n) - 30 * SECOND for n in SAID.__struct_fields__[-3:]}, []),
        (
            {n: getattr(SAID, n) - 32 * SECOND for n in SAID.__struct_fields__[-3:]},
            ["before_the_call"],
        ),
        (
            {n: getattr(SAID, n) + 32 * SECOND for n in SAID.__struct_fields__[-3:]},
            ["after_the_call"],
        ),
        ({"ended_at": BEGUN + 7 * SECOND}, []),
        ({"ended_at": BEGUN + 8 * SECOND}, ["longer_than_the_call"]),
    ],
)
def test_times_that_cannot_be_are_named(times: dict[str, Any], faults: list[str]) -> None:
    found = compare(call(said=said(**times)))
    assert [each.detail["faults"] for each in found] == ([faults] if faults else [])


def test_of_several_attempts_each_is_compared_with_its_own_receipt() -> None:
    failed = replace(SAID, place=(0, THERE), status=500, tokens_out=None)
    second = replace(LINE, place=(1, HERE))
    served = replace(SAID, place=(1, HERE))
    tried = {(0, THERE): "server_error", (1, HERE): "delivered"}
    assert kinds(call(tried=tried, billed=(second,), said=(failed, served))) == []


def test_every_kind_has_a_meaning() -> None:
    assert set(MEANINGS) == set(CaseKind)
