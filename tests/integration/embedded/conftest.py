"""A folder with a cluster in it, for tests of what comes after the first start."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.embedded.postgres import EmbeddedPostgres
from tests.conftest import memory, passable_folder


@pytest.fixture(scope="session")
async def made_once() -> AsyncIterator[Path]:
    """What one start and stop of PostgreSQL left behind; to make a cluster takes it a second."""
    with passable_folder(memory()) as folder:
        async with EmbeddedPostgres(folder, durable=False):
            pass
        yield folder


@pytest.fixture
def used_folder(open_folder: Path, made_once: Path) -> Path:
    """A folder of the test's own in which PostgreSQL has run before, and Valkey has not."""
    for name in ("cluster", "password"):
        # With its owner, who need not be ourselves.
        subprocess.run(["cp", "-a", str(made_once / name), str(open_folder / name)], check=True)
    return open_folder
