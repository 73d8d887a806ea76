"""What workers count, written down by each and shown by any."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from broker.api.metrics.page import Exposition
from broker.api.metrics.tallies import EVERY_S, Tallies
from broker.api.parts import Parts
from tests.waiting import until


async def test_a_worker_that_could_not_write_its_counts_tries_again(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Counter("deeds", "Deeds.", registry=registry).inc(3)
    folder = tmp_path / "away"
    keeping = asyncio.create_task(Tallies(folder, 1).keep(registry))
    await asyncio.sleep(0.1)
    assert not keeping.done()
    folder.mkdir()

    async def written() -> bool:
        return (folder / "1.prom").exists()

    await until(written)
    keeping.cancel()
    shown = Tallies(folder, 0).shown(b"").decode()
    assert 'deeds_total{worker="1"} 3.0' in shown


async def test_scrapes_close_together_are_shown_one_merge_of_all_workers(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    deeds = Counter("deeds", "Deeds.", registry=registry)
    tallies = Tallies(tmp_path, 0)
    exposition = Exposition(Parts.__new__(Parts), registry, tallies)
    first = await exposition._of_all(tallies)
    assert b'deeds_total{worker="0"} 0.0' in first
    deeds.inc()
    together = await asyncio.gather(*(exposition._of_all(tallies) for _ in range(20)))
    assert {id(each) for each in together} == {id(together[0])}
    exposition._merged_s -= EVERY_S
    assert b'deeds_total{worker="0"} 1.0' in await exposition._of_all(tallies)
