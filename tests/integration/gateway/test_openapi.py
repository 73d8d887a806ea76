"""The control plane, asked for whatever its own description of itself allows."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fuzzed import fuzz
from tests.integration.gateway.house import House
from tests.integration.gateway.standing import Standing, stand
from tests.plain import TRUSTS_NOBODY

pytestmark = pytest.mark.timeout(900)

EXAMPLES = 2
ANSWER_S = 15.0
LEFT_OUT = ("simulations", "/stream", "login", "logout")
"""Orders of work, answers without an end, and the doors of browsers."""
ENDINGS = ("/end", "/rotate", "/withdrawal")
"""What is asked late, for then there is less to ask for."""


@pytest.fixture(scope="module")
async def standing(house: House) -> Standing:
    return await stand(house)


async def test_whatever_is_asked_of_the_control_plane_it_never_breaks(
    house: House, standing: Standing
) -> None:
    import schemathesis  # takes a second in each process that collects tests

    described = (await house.operator.get("/api/docs/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(described)
    operations = [each.ok() for each in schema.get_all_operations()]
    asked = [each for each in operations if not any(word in each.path for word in LEFT_OUT)]
    assert len(asked) > 40
    broken: list[str] = []
    for operation in sorted(asked, key=_ends):
        broken += await asyncio.to_thread(_broken, operation, house.url, standing)
    assert broken == []


def _ends(operation: Any) -> int:
    if operation.path.endswith("/close"):
        return 2  # accounts too, with all that they may ask
    return int(operation.method == "delete" or operation.path.endswith(ENDINGS))


def _broken(operation: Any, url: str, standing: Standing) -> list[str]:
    """Ask for one thing in some ways; return what was answered with a 5xx, or not at all."""
    found: list[str] = []

    with httpx.Client(base_url=url, timeout=ANSWER_S, verify=TRUSTS_NOBODY) as client:

        @settings(fuzz(EXAMPLES), phases=[Phase.generate])
        @given(operation.as_strategy(), st.randoms(use_true_random=False))
        def ask(case: Any, random: Random) -> None:
            for part in ("path_parameters", "query"):
                setattr(case, part, standing.asked(getattr(case, part), random))
            case.body = standing.body(operation.path, case.body, random)
            told = f"{case.method} {case.formatted_path} {case.query} {case.body!r}"
            request = case.as_transport_kwargs(base_url=url)
            request = {name: request.get(name) for name in ("method", "url", "params", "json")}
            for key in standing.keys:
                headers = {"authorization": f"Bearer {key}"}
                try:
                    answer = client.request(**request, headers=headers)
                except (httpx.InvalidURL, UnicodeError):
                    return  # nobody can ask for that
                except httpx.HTTPError as error:
                    found.append(f"{told}: {error!r}")
                    return
                if answer.status_code >= 500 and answer.status_code != 503:
                    found.append(f"{told}: {answer.status_code} {answer.text[:300]}")
                if answer.status_code not in (403, 404):
                    return  # else it may be another's to ask

        ask()
    return found
