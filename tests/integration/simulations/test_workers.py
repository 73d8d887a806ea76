"""Orders that a real worker carries out: how far they are is seen, and they can be called off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from simulations.studies.parcel import QUEUE
from tests.integration.api.conftest import Person
from tests.integration.ledger.jobs.test_worker import environment, worker
from tests.integration.simulations.test_orders import order, shown
from tests.integration.simulations.tiny import TOML
from tests.waiting import until

__all__ = ["environment"]
LIMIT_S = 120.0
LONG = TOML.replace("horizon_s = 40.0", "horizon_s = 400_000.0")
"""One that nobody waits for."""


async def test_orders_show_how_far_they_are_and_end_when_they_are_called_off(
    environment: dict[str, str], tmp_path: Path, operator: Person
) -> None:
    beat = ("--queues", QUEUE, "--beat", "--schedule", str(tmp_path / "state-of-beat"))
    async with worker(environment, tmp_path, *beat):
        long = await order(operator, toml=LONG, seeds=1)

        async def is_running() -> bool:
            return bool((await shown(operator, long))["status"] == "running")

        await until(is_running, LIMIT_S)
        await operator.http.post(f"/api/simulations/{long}/cancel")
        # The one worker is free for it only when it has left the other.
        done, told = await followed(operator, await order(operator, seeds=6))
    assert done["status"] == "done", done["problem"]
    assert len(told) > 2, "somebody who looks sees it come on"
    assert told == sorted(told)
    ended = await shown(operator, long)
    assert (ended["status"], ended["cells_done"]) == ("cancelled", 0)


async def followed(operator: Person, order_id: str) -> tuple[dict[str, Any], list[int]]:
    """An order at its end, and each count of done cells that was shown on the way."""
    told: list[int] = []
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = await shown(operator, order_id)
            if not told or found["cells_done"] != told[-1]:
                told.append(found["cells_done"])
            if found["status"] not in ("waiting", "running"):
                return found, told
            await asyncio.sleep(0.02)
