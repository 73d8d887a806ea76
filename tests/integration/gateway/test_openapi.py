"""The control plane, asked for whatever its own description of itself allows."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from broker.store.accounts import Role
from tests.fuzzed import fuzz
from tests.integration.gateway.house import House
from tests.plain import TRUSTS_NOBODY

pytestmark = pytest.mark.timeout(900)

EXAMPLES = 2
ANSWER_S = 15.0
LEFT_OUT = ("simulations", "/stream", "login", "logout")
"""Orders of work, answers without an end, and the doors of browsers."""


@pytest.fixture(scope="module")
async def keys(house: House) -> list[str]:
    """One of each role."""
    roles = {"shop": Role.CONSUMER, "acme": Role.PROVIDER, "boss": Role.OPERATOR}
    return [await house.key(name, role) for name, role in roles.items()]


async def test_whatever_is_asked_of_the_control_plane_it_never_breaks(
    house: House, keys: list[str]
) -> None:
    import schemathesis  # takes a second in each process that collects tests

    described = (await house.operator.get("/api/docs/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(described)
    operations = [each.ok() for each in schema.get_all_operations()]
    asked = [each for each in operations if not any(word in each.path for word in LEFT_OUT)]
    assert len(asked) > 40
    broken: list[str] = []
    for operation in asked:
        broken += await asyncio.to_thread(_broken, operation, house.url, keys)
    assert broken == []


def _broken(operation: Any, url: str, keys: list[str]) -> list[str]:
    """Ask for one thing in some ways; return what was answered with a 5xx, or not at all."""
    found: list[str] = []

    with httpx.Client(base_url=url, timeout=ANSWER_S, verify=TRUSTS_NOBODY) as client:

        @settings(fuzz(EXAMPLES), phases=[Phase.generate])
        @given(operation.as_strategy(), st.sampled_from(keys))
        def ask(case: Any, key: str) -> None:
            if operation.method.upper() == "DELETE" and "keys" in operation.path:
                return  # it would be locked out of the rest
            told = f"{case.method} {case.formatted_path} {case.query} {case.body!r}"
            headers = {"authorization": f"Bearer {key}"}
            request = case.as_transport_kwargs(base_url=url)
            request = {name: request.get(name) for name in ("method", "url", "params", "json")}
            try:
                answer = client.request(**request, headers=headers)
            except (httpx.InvalidURL, UnicodeError):
                return  # nobody can ask for that
            except httpx.HTTPError as error:
                found.append(f"{told}: {error!r}")
                return
            if answer.status_code >= 500 and answer.status_code != 503:
                found.append(f"{told}: {answer.status_code} {answer.text[:300]}")

        ask()
    return found
