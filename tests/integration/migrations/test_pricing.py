"""What was offered before there were tiers, and what choices of controllers must be."""

from __future__ import annotations

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from tests.integration.migrations.test_disputes import insert_offer
from tests.integration.migrations.upgrading import DatabaseAt, insert_account

CHOICE = """
INSERT INTO pricing_choices (id, scope, subject, provider_id, controller, parameters, valid_from,
                             valid_to, reason, author, created_at)
VALUES ($1, $2, $3, $4, 'pi', '{}', now(), $5, '', 'boss', now())
"""


async def test_a_standing_offer_has_the_standard_tier_alone_and_is_not_written_anew(
    database_at: DatabaseAt,
) -> None:
    async with database_at("0010") as old:
        provider, _ = await insert_account(old.driver, "provider", "gpus")
        endpoint = await insert_offer(old.driver, provider)
        place = "SELECT pg_relation_filenode('offers')"
        before = await old.driver.fetchval(place)
        await old.upgrade("0011")
        assert await old.driver.fetchval(place) == before
        row = await old.driver.fetchrow("SELECT * FROM offers WHERE endpoint_id = $1", endpoint)
        assert row["tiers"] is None
        with pytest.raises(asyncpg.CheckViolationError):
            await old.driver.execute("UPDATE offers SET tiers = '[5000]'")


async def test_a_choice_is_for_somebody_and_says_whose_prices_it_moves(
    database_at: DatabaseAt,
) -> None:
    async with database_at("0011") as old:
        provider, _ = await insert_account(old.driver, "provider", "gpus")
        await old.driver.execute(CHOICE, uuid7(), "provider", "gpus", provider, None)
        for scope, subject, owner in (
            ("galaxy", "milky way", None),
            ("market", "law", None),
            ("domain", "", None),
            ("domain", "law", provider),
            ("provider", "gpus", None),
        ):
            with pytest.raises(asyncpg.CheckViolationError):
                await old.driver.execute(CHOICE, uuid7(), scope, subject, owner, None)
