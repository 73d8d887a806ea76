"""How busy each deployment is with the calls of all broker processes together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from broker.live.bulletin import Bulletin, Telling

_log = structlog.get_logger(__name__)
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
_Scalar = TypeVar("_Scalar", np.int64, np.float64)

SERVICE_S_PRIOR = 1.0
"""The mean duration of a call where none was seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Calls by deployment number, of one process or several summed; arrays of one length."""

    in_flight: Numbers
    refused_per_s: Floats
    service_s: Floats
    """Mean duration of a call."""


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    numbers: list[int]
    in_flight: list[int]
    refused_per_s: list[float]
    service_s: list[float]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


class RefusalMeter:
    """Makes refusals per second of a count that only rises."""

    def __init__(self, window_s: float = 0.0) -> None:
        """A rate is of `window_s` at least, however often it is asked for."""
        self._window_s = window_s
        self._before: Numbers = np.zeros(0, dtype=np.int64)
        self._at_s: float | None = None
        self._rate: Floats = np.zeros(0, dtype=np.float64)

    def per_s(self, refused: Numbers, now_s: float) -> Floats:
        """Return the rate since the last time, which two calls at one instant leave as it was."""
        if self._at_s is None:
            self._rate = np.zeros(refused.size, dtype=np.float64)
        elif now_s > self._at_s and now_s - self._at_s >= self._window_s:
            before = _fitted(self._before, refused.size)
            self._rate = np.maximum(refused - before, 0) / (now_s - self._at_s)
        else:
            return _fitted(self._rate, refused.size)
        self._before, self._at_s = refused.copy(), now_s
        return self._rate


class Loads:
    """Tells the other processes of this one's calls, and sums up theirs."""

    def __init__(self, bulletin: Bulletin) -> None:
        self._bulletin = bulletin
        self._own = _nothing(0)

    async def exchange(self, own: Counts) -> None:
        """Tell the others, and hear them."""
        await self._bulletin.exchange(self.telling(own)[1])

    def telling(self, own: Counts) -> Telling:
        """Return what is to be told, for `exchange_all`; from now on it counts in `total`."""
        self._own = own
        return self._bulletin, _pack(own)

    @property
    def in_company(self) -> bool:
        """True while other processes are heard of."""
        return bool(self._bulletin.others())

    def others(self, size: int) -> Counts:
        """Return the sum over the other processes, for deployment numbers below `size`."""
        return _sum(size, self._others())

    def total(self, size: int) -> Counts:
        """Return the sum over all processes, this one as of its last exchange."""
        return _sum(size, [_sparse(self._own), *self._others()])

    async def leave(self) -> None:
        """Take back what this process said, for it is stopping."""
        await self._bulletin.leave()

    def _others(self) -> list[_Packed]:
        heard = []
        for process, said in self._bulletin.others().items():
            try:
                packed = _decoder.decode(said)
            except msgspec.MsgspecError:
                _log.warning("the loads of a process are not understood", process=process.decode())
                continue
            heard.append(packed)
        return heard


def _sparse(counts: Counts) -> _Packed:
    """Only the deployments that have calls, for most have none at any one time."""
    busy = np.flatnonzero((counts.in_flight > 0) | (counts.refused_per_s > 0))
    return _Packed(
        numbers=busy.tolist(),
        in_flight=counts.in_flight[busy].tolist(),
        refused_per_s=counts.refused_per_s[busy].tolist(),
        service_s=counts.service_s[busy].tolist(),
    )


def _pack(counts: Counts) -> bytes:
    return _encoder.encode(_sparse(counts))


def _sum(size: int, parts: Iterable[_Packed]) -> Counts:
    total = _nothing(size)
    weights = np.zeros(size, dtype=np.float64)
    served_s = np.zeros(size, dtype=np.float64)
    for part in parts:
        numbers = np.array(part.numbers, dtype=np.int64)
        known = (numbers >= 0) & (numbers < size)
        numbers = numbers[known]
        in_flight = np.array(part.in_flight, dtype=np.int64)[known]
        refused_per_s = np.array(part.refused_per_s, dtype=np.float64)[known]
        weight = in_flight + refused_per_s
        total.in_flight[numbers] += in_flight
        total.refused_per_s[numbers] += refused_per_s
        weights[numbers] += weight
        served_s[numbers] += weight * np.array(part.service_s, dtype=np.float64)[known]
    np.divide(served_s, weights, out=total.service_s, where=weights > 0)
    return total


def _nothing(size: int) -> Counts:
    return Counts(
        np.zeros(size, dtype=np.int64),
        np.zeros(size, dtype=np.float64),
        np.full(size, SERVICE_S_PRIOR, dtype=np.float64),
    )


def _fitted(array: NDArray[_Scalar], size: int) -> NDArray[_Scalar]:
    fitted = np.zeros(size, dtype=array.dtype)
    shared = min(size, array.size)
    fitted[:shared] = array[:shared]
    return fitted
