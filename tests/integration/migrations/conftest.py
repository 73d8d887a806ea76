"""Databases at revisions of the past."""

from __future__ import annotations

import functools

import asyncpg
import pytest

from broker.embedded.postgres import EmbeddedPostgres
from tests.integration.migrations.upgrading import DatabaseAt, old_database


@pytest.fixture
def database_at(
    postgres_server: EmbeddedPostgres, database_office: asyncpg.Connection
) -> DatabaseAt:
    """Makes an empty database at a revision."""
    return functools.partial(old_database, postgres_server.url, database_office)
