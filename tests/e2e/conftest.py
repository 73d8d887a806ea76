"""Real inference servers for the tests, from environments that outlast a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demo_environments() -> Path:
    """Where the servers' environments are kept: BROKER_DEMO_ENVS, or the demo's own folder."""
    return Path(os.environ.get("BROKER_DEMO_ENVS") or _REPOSITORY / ".broker" / "demo")
