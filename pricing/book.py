"""The price book: every endpoint's rate at one version, immutable, and its form on the wire."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricing.money import MAX_RATE_CALL_NANOS, MAX_RATE_MICROS, PICOS_PER_NANO

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_MAGIC = b"PBK"
_FORMAT = 2
_PLAIN = 1
"""The former format, whose rates have 8 bytes each: brokers yet to be upgraded tell it."""
_HEADER = struct.Struct("<3sBqI")  # magic, format, book version, endpoints; bytes of each rate
_CHECKSUM = struct.Struct("<I")  # crc32 of header and body
_NARROW_MAX = 2**31 - 1
_WIDTHS_LEAST = (4, 0, 0)


class BookMalformed(ValueError):
    """Bytes or arrays that are no price book: cut short, altered, of another format, or absurd."""


class EndpointUnpriced(LookupError):
    """The endpoint has no price in this book, so nothing may be sold on it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"endpoint {number} has no price")
        self.number = number


@dataclass(frozen=True, slots=True)
class Rate:
    """What one endpoint costs: micro-dollars per million tokens, nano-dollars per call."""

    rate_in_micros: int
    rate_out_micros: int
    rate_call_nanos: int

    def picos(self, tokens_in: int, tokens_out: int) -> int:
        """The exact price in pico-dollars of one call with these token counts."""
        if tokens_in < 0 or tokens_out < 0:
            raise ValueError("token counts cannot be below zero")
        return (
            tokens_in * self.rate_in_micros
            + tokens_out * self.rate_out_micros
            + self.rate_call_nanos * PICOS_PER_NANO
        )


@dataclass(frozen=True, slots=True, eq=False)
class PriceBook:
    """All rates at one version: three int64 arrays of one length, indexed by endpoint number.

    The arrays are copied in and read-only. An endpoint with zero in all three has no price: it is
    a number not in use, and asking for its rate is refused rather than served for nothing.
    Raises BookMalformed on arrays of unequal length and on rates below zero or above the maxima.
    """

    version: int
    rate_in_micros: IntArray
    rate_out_micros: IntArray
    rate_call_nanos: IntArray

    def __post_init__(self) -> None:
        if self.version < 0:
            raise BookMalformed("a version cannot be below zero")
        for name, maximum in _MAXIMA.items():
            object.__setattr__(self, name, _frozen(getattr(self, name), maximum))
        if not self.rate_in_micros.size == self.rate_out_micros.size == self.rate_call_nanos.size:
            raise BookMalformed("the three rate arrays differ in length")

    @classmethod
    def empty(cls, version: int = 0) -> PriceBook:
        """A book without any endpoint."""
        none = np.zeros(0, dtype=np.int64)
        return cls(version, none, none, none)

    @classmethod
    def from_matrix(cls, version: int, rates: IntArray) -> PriceBook:
        """A book from rates of shape (3, endpoints), rows in, out, call."""
        return cls(version, rates[0], rates[1], rates[2])

    def matrix(self, size: int | None = None) -> IntArray:
        """The rates as a new array of shape (3, size), cut or filled up with zeros (no price)."""
        wanted = len(self) if size is None else size
        shared = min(wanted, len(self))
        rates = np.zeros((3, wanted), dtype=np.int64)
        rates[0, :shared] = self.rate_in_micros[:shared]
        rates[1, :shared] = self.rate_out_micros[:shared]
        rates[2, :shared] = self.rate_call_nanos[:shared]
        return rates

    def __len__(self) -> int:
        return int(self.rate_in_micros.size)

    def only(self, numbers: IntArray) -> PriceBook:
        """The book of these endpoints, renumbered in their order; zeros for what it lacks."""
        rows = (self.rate_in_micros, self.rate_out_micros, self.rate_call_nanos)
        if numbers.size and numbers.max() >= len(self):
            rows = tuple(self.matrix(int(numbers.max()) + 1))
        return PriceBook(self.version, *(row[numbers] for row in rows))

    def rate(self, number: int) -> Rate:
        """The rate of one endpoint. Raises EndpointUnpriced when the book has none for it."""
        if not 0 <= number < len(self):
            raise EndpointUnpriced(number)
        rate = Rate(
            int(self.rate_in_micros[number]),
            int(self.rate_out_micros[number]),
            int(self.rate_call_nanos[number]),
        )
        if not (rate.rate_in_micros or rate.rate_out_micros or rate.rate_call_nanos):
            raise EndpointUnpriced(number)
        return rate

    def changed(self, previous: PriceBook) -> IntArray:
        """The endpoint numbers whose rate differs from `previous`, ascending; also those that
        gained or lost a price."""
        size = max(len(self), len(previous))
        differs = (self.matrix(size) != previous.matrix(size)).any(axis=0)
        return np.flatnonzero(differs).astype(np.int64)

    def to_bytes(self) -> bytes:
        """Header, the three arrays little-endian, checksum. A rate has 8 bytes, 4 where these
        suffice for all, none where all out or call rates are zero: as a rule 8 an endpoint."""
        rows = (self.rate_in_micros, self.rate_out_micros, self.rate_call_nanos)
        widths = [_width(row, least) for row, least in zip(rows, _WIDTHS_LEAST, strict=True)]
        told = [row.astype(f"<i{w}").tobytes() for row, w in zip(rows, widths, strict=True) if w]
        head = _HEADER.pack(_MAGIC, _FORMAT, self.version, len(self)) + bytes(widths)
        payload = b"".join((head, *told))
        return payload + _CHECKSUM.pack(zlib.crc32(payload))

    @classmethod
    def from_bytes(cls, data: bytes) -> PriceBook:
        """The book that `to_bytes` wrote, now or in the former format. Raises BookMalformed on
        anything else."""
        if len(data) < _HEADER.size + _CHECKSUM.size:
            raise BookMalformed("too short to be a price book")
        magic, form, version, count = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise BookMalformed("not a price book")
        if form not in (_PLAIN, _FORMAT):
            raise BookMalformed(f"price book of format {form}, this reads format {_FORMAT}")
        at, end = _HEADER.size, len(data) - _CHECKSUM.size
        widths = b"\x08" * 3
        if form == _FORMAT:
            at, widths = at + 3, data[at : at + 3]
        known = {*widths} <= {0, 4, 8} and widths[0]  # else any number of endpoints would fit
        if not known or end - at != sum(widths) * count:
            raise BookMalformed(f"the length does not fit {count} endpoints")
        if zlib.crc32(data[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
            raise BookMalformed("the checksum does not fit")
        rates = np.zeros((3, count), dtype=np.int64)
        for row, width in zip(rates, widths, strict=True):
            if width:
                row[:] = np.frombuffer(data, dtype=f"<i{width}", count=count, offset=at)
                at += width * count
        return cls.from_matrix(version, rates)


@dataclass(frozen=True, slots=True, eq=False)
class ProposedRates:
    """What a controller asks for, before the guardrails: float64 of shape (3, endpoints).

    Rows in, out (micro-dollars per million tokens) and call (nano-dollars). It may hold NaN or
    worse, which a PriceBook cannot: telling them apart is why no controller can publish anything.
    """

    rates: FloatArray


_MAXIMA = {
    "rate_in_micros": MAX_RATE_MICROS,
    "rate_out_micros": MAX_RATE_MICROS,
    "rate_call_nanos": MAX_RATE_CALL_NANOS,
}


def _width(rates: IntArray, least: int) -> int:
    most = rates.max(initial=0)
    return 8 if most > _NARROW_MAX else 4 if most else least


def _frozen(rates: IntArray, maximum: int) -> IntArray:
    array = np.asarray(rates)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise BookMalformed("rates are one-dimensional arrays of integers")
    if array.size and (array.min() < 0 or array.max() > maximum):
        raise BookMalformed(f"a rate lies outside 0..{maximum}")
    frozen = array.astype(np.int64, copy=True)
    frozen.flags.writeable = False
    return frozen
