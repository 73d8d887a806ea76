"""Counts the streams of events that are open, for each holds a connection for as long as wanted."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from broker.errors import TooManyCalls

STREAMS_MAX: Final = 200
STREAMS_OF_ACCOUNT_MAX: Final = 8
_AGAIN_S: Final = 10.0


class Streams:
    """The open streams of one kind in one process; `named` says what they are of."""

    def __init__(self, named: str) -> None:
        self._named = named
        self._open: Counter[UUID] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    def take(self, account_id: UUID) -> Place:
        """Return the place of one more. Raises TooManyCalls where the account has its share open,
        or the process all that it may."""
        if self._open[account_id] >= STREAMS_OF_ACCOUNT_MAX:
            told = f"Your account has {STREAMS_OF_ACCOUNT_MAX} streams of {self._named} open"
        elif self._open.total() >= STREAMS_MAX:
            told = f"The broker has {STREAMS_MAX} streams of {self._named} open"
        else:
            return Place(self._open, account_id)
        raise TooManyCalls(
            f"{told}: ask again when one has ended.", code="streams", retry_after_s=_AGAIN_S
        )


class Place:
    """One stream that counts: until the block ends, or nobody holds this any more."""

    def __init__(self, opened: Counter[UUID], account_id: UUID) -> None:
        self._open: Counter[UUID] | None = opened
        self._account_id = account_id
        opened[account_id] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        # An answer may never begin: its caller has left before.
        self._leave()

    def _leave(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened[self._account_id] -= 1
            if not opened[self._account_id]:
                del opened[self._account_id]
