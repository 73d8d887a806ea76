"""A scripted provider, a fake broker and an HTTP client for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from provider_sdk.testing.broker import FakeBroker
from provider_sdk.testing.scripted import ScriptedProvider


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as running:
        yield running


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with FakeBroker(interval_ms=40) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        yield client
