"""The people and the small broker of the tests of the control plane."""

from __future__ import annotations

from tests.integration.api.conftest import (
    api,
    broker,
    consumer,
    long_standing,
    operator,
    provider,
    stage,
    standing,
)

__all__ = [
    "api",
    "broker",
    "consumer",
    "long_standing",
    "operator",
    "provider",
    "stage",
    "standing",
]
