from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import money

amounts = st.integers(0, money.MAX_AMOUNT_NANOS)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0),
        ("1", 1_000_000_000),
        ("12.50", 12_500_000_000),
        ("0.000000001", 1),
        ("007.1", 7_100_000_000),
        ("1000000000", money.MAX_AMOUNT_NANOS),
        ("0" * 39 + "7", 7_000_000_000),
    ],
)
def test_a_decimal_string_becomes_nano_dollars(text: str, nanos: int) -> None:
    assert money.parse_usd_nanos(text) == nanos


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1 ", "1\n", "+1", "-1", "-0", "1e3", "1E-3", "NaN", "inf", "Infinity"),
        *("1,5", "1_000", ".5", "5.", "1.2.3", "0x10", "$1", "\u0661"),
        *("1.0000000000", "0" * 41, "9" * 5000),
    ],
)
def test_anything_but_a_plain_decimal_is_malformed(text: str) -> None:
    with pytest.raises(money.AmountMalformed):
        money.parse_usd_nanos(text)


@pytest.mark.parametrize("text", ["1000000000.000000001", "1000000001", "9223372036854775807"])
def test_an_amount_above_the_maximum_is_out_of_range(text: str) -> None:
    with pytest.raises(money.AmountOutOfRange, match=r"above 1000000000\.00 USD"):
        money.parse_usd_nanos(text)


def test_a_caller_may_set_a_lower_maximum() -> None:
    assert money.parse_usd_nanos("2", maximum_nanos=2 * money.NANOS_PER_USD) == 2_000_000_000
    with pytest.raises(money.AmountOutOfRange):
        money.parse_usd_nanos("2.01", maximum_nanos=2 * money.NANOS_PER_USD)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("-0.50", -500_000_000), ("0.50", 500_000_000), ("-0", 0), ("12", 12 * 10**9)],
)
def test_an_amount_that_may_be_below_zero_has_one_sign_at_most(text: str, nanos: int) -> None:
    assert money.parse_signed_usd_nanos(text) == nanos
    for malformed in ("-" + "-" + text, "+" + text, text + "-", "- " + text, "-"):
        with pytest.raises(money.AmountMalformed):
            money.parse_signed_usd_nanos(malformed)


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_amount_below_zero_is_bounded_as_one_above_is(sign: str) -> None:
    most = money.parse_signed_usd_nanos(f"{sign}1000000000")
    assert abs(most) == money.MAX_AMOUNT_NANOS
    with pytest.raises(money.AmountOutOfRange):
        money.parse_signed_usd_nanos(f"{sign}1000000000.000000001")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-x", "got '-x'"),
        ("--1", "got '--1'"),
        ("-1.0000000001", "'-1.0000000001' has more than 9 decimals"),
        ("-1000000001", "-1000000001 is below -1000000000.00 USD"),
        ("1000000001", "1000000001 is above 1000000000.00 USD"),
    ],
)
def test_a_complaint_of_an_amount_below_zero_names_it_with_its_sign(
    text: str, complaint: str
) -> None:
    with pytest.raises(money.MoneyError) as refused:
        money.parse_signed_usd_nanos(text)
    assert complaint in str(refused.value)


@given(st.integers(-money.MAX_AMOUNT_NANOS, money.MAX_AMOUNT_NANOS))
def test_what_is_shown_of_either_sign_reads_back_the_same(nanos: int) -> None:
    assert money.parse_signed_usd_nanos(money.format_usd(nanos)) == nanos


def test_a_token_rate_has_six_decimals_and_a_call_rate_nine() -> None:
    assert money.parse_rate_micros("0.15") == 150_000
    assert money.parse_rate_micros("0.000001") == 1
    assert money.parse_call_rate_nanos("0.000000001") == 1
    assert money.parse_rate_micros("1000000") == money.MAX_RATE_MICROS
    assert money.parse_call_rate_nanos("1000000") == money.MAX_RATE_CALL_NANOS
    with pytest.raises(money.AmountMalformed):
        money.parse_rate_micros("0.0000001")
    with pytest.raises(money.AmountOutOfRange):
        money.parse_rate_micros("1000000.000001")
    with pytest.raises(money.AmountOutOfRange):
        money.parse_call_rate_nanos("1000000.000000001")


def test_every_error_of_money_is_a_money_error() -> None:
    for text in ("x", "9" * 30):
        with pytest.raises(money.MoneyError):
            money.parse_usd_nanos(text)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (1_000_000_000, "1.00"),
        (1_500_000_000, "1.50"),
        (1_234_000_000, "1.234"),
        (-1_500_000_000, "-1.50"),
        (-1, "-0.000000001"),
    ],
)
def test_an_amount_is_shown_with_two_to_nine_decimals(nanos: int, text: str) -> None:
    assert money.format_usd(nanos) == text


def test_a_rate_is_shown_with_two_to_six_decimals() -> None:
    assert [money.format_rate(m) for m in (0, 1, 150_000, 2_000_000)] == [
        "0.00",
        "0.000001",
        "0.15",
        "2.00",
    ]


@given(st.integers(0, money.MAX_RATE_MICROS))
def test_a_shown_rate_reads_back_the_same(micros: int) -> None:
    assert money.parse_rate_micros(money.format_rate(micros)) == micros


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_raise_a_money_error(text: str) -> None:
    try:
        nanos = money.parse_usd_nanos(text)
    except money.MoneyError:
        return
    assert 0 <= nanos <= money.MAX_AMOUNT_NANOS


@pytest.mark.parametrize(("picos", "nanos"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)])
def test_a_charge_rounds_up_to_whole_nano_dollars(picos: int, nanos: int) -> None:
    assert money.charge_nanos(picos) == nanos


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_a_charge_is_never_less_than_the_price_nor_a_nano_more_and_keeps_order(
    one: int, other: int
) -> None:
    assert 0 <= money.charge_nanos(one) * 1000 - one < 1000
    low, high = sorted((one, other))
    assert money.charge_nanos(low) <= money.charge_nanos(high)


@given(amounts, st.integers(0, 10_000))
def test_nothing_is_lost_when_a_charge_is_split(charge: int, take_bps: int) -> None:
    take, earnings = money.split(charge, take_bps)
    assert take + earnings == charge
    assert take >= 0
    assert earnings >= 0
    assert 0 <= charge * take_bps - take * 10_000 < 10_000


def test_the_residual_of_a_split_goes_to_the_provider() -> None:
    assert money.split(19, 1_000) == (1, 18)
    assert money.split(9, 1_000) == (0, 9)
    assert money.split(9, 10_000) == (9, 0)


@pytest.mark.parametrize(("charge", "take_bps"), [(-1, 0), (1, -1), (1, 10_001)])
def test_a_senseless_split_is_refused(charge: int, take_bps: int) -> None:
    with pytest.raises(money.AmountOutOfRange):
        money.split(charge, take_bps)


def test_a_charge_below_zero_is_refused() -> None:
    with pytest.raises(money.AmountOutOfRange):
        money.charge_nanos(-1)
