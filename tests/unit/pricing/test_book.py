from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import BookMalformed, EndpointUnpriced, PriceBook, Rate

token_rates = st.integers(0, 10**12)
books = st.lists(st.tuples(token_rates, token_rates, st.integers(0, 10**15)), max_size=6).map(
    lambda rates: PriceBook.from_matrix(7, np.array(rates, dtype=np.int64).reshape(-1, 3).T)
)


def book(version: int, *rates: tuple[int, int, int]) -> PriceBook:
    return PriceBook.from_matrix(version, np.array(rates, dtype=np.int64).reshape(-1, 3).T)


def test_the_price_of_a_call_is_exact_in_picos() -> None:
    # 1,000 tokens at 0.15 USD and 500 at 0.60 USD per Mtok: 150 + 300 micro-dollars
    assert Rate(150_000, 600_000, 0).picos(1_000, 500) == 450_000_000
    assert Rate(0, 0, 2_000).picos(10, 10) == 2_000_000
    assert Rate(1, 1, 1).picos(1, 1) == 1_002


def test_the_price_of_a_huge_call_does_not_overflow() -> None:
    assert Rate(10**12, 10**12, 0).picos(10**12, 10**12) == 2 * 10**24


def test_token_counts_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="below zero"):
        Rate(1, 1, 1).picos(-1, 0)
    with pytest.raises(ValueError, match="below zero"):
        Rate(1, 1, 1).picos(9, -1)


def test_a_rate_is_read_by_endpoint_number_as_plain_ints() -> None:
    rate = book(3, (1, 2, 3), (4, 5, 6)).rate(1)
    assert rate == Rate(4, 5, 6)
    assert type(rate.rate_in_micros) is int


@pytest.mark.parametrize("rates", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_one_rate_alone_is_a_price(rates: tuple[int, int, int]) -> None:
    assert book(1, rates).rate(0) == Rate(*rates)


@pytest.mark.parametrize("number", [-1, 0, 2, 10**9])
def test_what_has_no_price_is_refused_not_given_away(number: int) -> None:
    with pytest.raises(EndpointUnpriced) as refusal:
        book(1, (0, 0, 0), (1, 0, 0)).rate(number)
    assert refusal.value.number == number


def test_a_book_cannot_be_written_to_nor_through_the_arrays_it_came_from() -> None:
    source = np.array([1, 2], dtype=np.int64)
    priced = PriceBook(1, source, source, source)
    source[0] = 99
    assert priced.rate(0).rate_in_micros == 1
    with pytest.raises(ValueError, match="read-only"):
        priced.rate_in_micros[0] = 5


@pytest.mark.parametrize("rates", [[-1, 5], [10**12 + 1, 5], [[1, 5]]])
def test_absurd_rates_make_no_book(rates: list[int]) -> None:
    array, ones = np.array(rates), np.array([1, 1])
    with pytest.raises(BookMalformed):
        PriceBook(1, array, ones, ones)


def test_arrays_that_do_not_fit_make_no_book() -> None:
    one, two = np.ones(1, dtype=np.int64), np.ones(2, dtype=np.int64)
    with pytest.raises(BookMalformed, match="length"):
        PriceBook(1, one, two, one)
    with pytest.raises(BookMalformed, match="integers"):
        PriceBook(1, np.ones(1), one, one)  # type: ignore[arg-type]
    with pytest.raises(BookMalformed, match="version"):
        PriceBook(-1, one, one, one)


@given(books)
def test_a_book_survives_the_wire(sent: PriceBook) -> None:
    got = PriceBook.from_bytes(sent.to_bytes())
    assert got.version == sent.version
    assert len(got) == len(sent)
    assert got.changed(sent).size == 0


@given(books, st.data())
def test_a_book_with_any_one_byte_altered_or_cut_is_refused(
    sent: PriceBook, data: st.DataObject
) -> None:
    wire = bytearray(sent.to_bytes())
    at = data.draw(st.integers(0, len(wire) - 1))
    with pytest.raises(BookMalformed):
        PriceBook.from_bytes(bytes(wire[:at]))
    wire[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BookMalformed):
        PriceBook.from_bytes(bytes(wire))


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_raise(wire: bytes) -> None:
    with pytest.raises(BookMalformed):
        PriceBook.from_bytes(wire)


def test_a_book_of_a_later_format_says_so() -> None:
    wire = struct.pack("<3sBqI3B", b"PBK", 3, 1, 0, 4, 0, 0)
    with pytest.raises(BookMalformed, match="format 3"):
        PriceBook.from_bytes(wire + struct.pack("<I", zlib.crc32(wire)))


@given(books)
def test_a_book_of_a_broker_that_is_yet_to_be_upgraded_is_read(sent: PriceBook) -> None:
    head = struct.pack("<3sBqI", b"PBK", 1, sent.version, len(sent))
    wire = head + sent.matrix().astype("<i8").tobytes()
    got = PriceBook.from_bytes(wire + struct.pack("<I", zlib.crc32(wire)))
    assert (got.version, len(got)) == (sent.version, len(sent))
    assert got.changed(sent).size == 0


def test_rates_take_on_the_wire_what_the_largest_of_their_kind_needs() -> None:
    small = [book(1, *[(1, rate, 0)] * 1_000) for rate in (0, 2**31 - 1, 2**31)]
    sizes = [len(each.to_bytes()) for each in small]
    assert [(size - sizes[0]) // 1_000 for size in sizes] == [0, 4, 8]
    assert sizes[0] < 4_100
    for each in small:
        assert PriceBook.from_bytes(each.to_bytes()).changed(each).size == 0


def test_a_few_bytes_are_no_book_of_very_many_endpoints() -> None:
    wire = struct.pack("<3sBqI3B", b"PBK", 2, 1, 2**32 - 1, 0, 0, 0)
    with pytest.raises(BookMalformed, match="length"):
        PriceBook.from_bytes(wire + struct.pack("<I", zlib.crc32(wire)))


def test_a_checksum_does_not_excuse_a_rate_below_zero() -> None:
    wire = struct.pack("<3sBqI3Bi", b"PBK", 2, 1, 1, 4, 0, 0, -5)
    with pytest.raises(BookMalformed, match="outside"):
        PriceBook.from_bytes(wire + struct.pack("<I", zlib.crc32(wire)))


def test_changed_names_what_moved_came_and_went() -> None:
    before = book(1, (1, 1, 0), (2, 2, 0), (0, 0, 5), (7, 7, 0))
    after = book(2, (1, 1, 0), (2, 3, 0), (0, 0, 0))
    assert after.changed(before).tolist() == [1, 2, 3]
    assert before.changed(after).tolist() == [1, 2, 3]
    assert after.changed(after).tolist() == []
    assert after.changed(PriceBook.empty()).tolist() == [0, 1]


def test_a_part_of_a_book_is_renumbered_and_without_what_there_is_not() -> None:
    whole = book(5, (1, 2, 3), (4, 5, 6))
    for missing in (2, 3):
        part = whole.only(np.array([1, missing]))
        assert part.version == 5
        assert part.matrix().T.tolist() == [[4, 5, 6], [0, 0, 0]]
    assert whole.matrix(1).T.tolist() == [[1, 2, 3]]
    assert len(book(5, (1, 2, 3)).only(np.array([], dtype=np.int64))) == 0
