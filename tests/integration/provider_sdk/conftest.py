"""A scripted provider, a fake broker and an HTTP client for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from provider_sdk.testing.broker import FakeBroker
from provider_sdk.testing.scripted import ScriptedProvider
from tests.plain import TRUSTS_NOBODY


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
    async with httpx.AsyncClient(timeout=5, verify=TRUSTS_NOBODY, trust_env=False) as client:
        yield client
