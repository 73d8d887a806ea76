"""Two processes' views of one Valkey, and a way to it that can be closed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.live.room import Live
from tests.integration.catalog.conftest import acme
from tests.integration.live.passage import Passage

__all__ = ["acme"]


@pytest.fixture
async def passage(valkey_url: str) -> AsyncIterator[Passage]:
    """The way to Valkey, open."""
    async with Passage(valkey_url) as passage:
        yield passage


@pytest.fixture
async def here(passage: Passage) -> AsyncIterator[Live]:
    """A process whose way to Valkey goes through the passage."""
    live = Live.connect(passage.url)
    yield live
    await live.close()


@pytest.fixture
async def there(valkey_url: str) -> AsyncIterator[Live]:
    """Another process, with a way of its own."""
    live = Live.connect(valkey_url)
    yield live
    await live.close()
