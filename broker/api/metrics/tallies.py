"""What all workers of one port count: each writes its own down, whoever is scraped shows all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

EVERY_S: Final = 1.0
"""Each worker writes its counts so often."""
STALE_S: Final = 10.0
"""Who has written nothing for so long is gone."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tallies:
    """The counts of worker `number`, beside those of its siblings in `folder`."""

    folder: Path
    number: int

    async def keep(self, registry: CollectorRegistry) -> None:
        """Write what a registry counts, again and again; ends by cancellation."""
        while True:
            try:
                await asyncio.to_thread(self.write, generate_latest(registry))
            except OSError as error:  # a full disk, say, which is not for ever
                _log.error("counts_not_written", worker=self.number, error=str(error))
            await asyncio.sleep(EVERY_S)

    def write(self, text: bytes) -> None:
        """Keep this worker's counts for the others; nobody ever reads half of them."""
        fresh = self.folder / f"{self.number}.new"
        fresh.write_bytes(text)
        fresh.replace(self._path(self.number))

    def shown(self, own: bytes) -> bytes:
        """Return the counts of all workers, each sample with the label `worker`."""
        texts = dict(self._others()) | {self.number: own}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged({number: texts[number].decode() for number in sorted(texts)}))
        return generate_latest(registry)

    def _others(self) -> Iterator[tuple[int, bytes]]:
        oldest = time.time() - STALE_S
        for path in self.folder.glob("*.prom"):
            try:
                if path.stat().st_mtime >= oldest:
                    yield int(path.stem), path.read_bytes()
            except FileNotFoundError:
                continue  # it was replaced between two looks

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.prom"


class _Merged(Collector):
    def __init__(self, texts: Mapping[int, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        """Yield each family once, with the samples of all workers."""
        families: dict[str, Metric] = {}
        for number, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = dict(sample.labels) | {"worker": str(number)}
                    merged.add_sample(sample.name, labels, sample.value)
        return families.values()
