"""How many streams may be open at once, and when one counts no more."""

from __future__ import annotations

from uuid import UUID

import pytest

from broker.api.streams import STREAMS_MAX, STREAMS_OF_ACCOUNT_MAX, Streams
from broker.errors import TooManyCalls

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_an_account_has_its_share_open_and_no_more() -> None:
    streams = Streams("prices")
    places = [streams.take(ONE) for _ in range(STREAMS_OF_ACCOUNT_MAX)]
    with pytest.raises(TooManyCalls, match="account has 8 streams of prices"):
        streams.take(ONE)
    other = streams.take(OTHER)
    with places[0], other:
        pass
    assert len(streams) == STREAMS_OF_ACCOUNT_MAX - 1
    places[0] = streams.take(ONE)
    with pytest.raises(TooManyCalls):
        streams.take(ONE)


def test_all_accounts_together_have_so_many_open() -> None:
    streams = Streams("prices")
    places = [streams.take(UUID(int=number)) for number in range(STREAMS_MAX)]
    with pytest.raises(TooManyCalls, match="broker has 200 streams"):
        streams.take(OTHER)
    with places.pop():
        pass
    assert streams.take(OTHER)


def test_a_stream_that_never_began_counts_no_more_once_nobody_holds_it() -> None:
    streams = Streams("prices")
    place = streams.take(ONE)
    assert len(streams) == 1
    del place
    assert len(streams) == 0
