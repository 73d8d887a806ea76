"""`broker payouts`, from a payout to what became of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typer.testing import CliRunner

from broker.cli.payouts import app
from tests.integration.payouts.till import Till


async def broker(environment: dict[str, str], *words: str) -> tuple[int, str]:
    """Run a command; return its exit status and what it printed."""
    # In a thread of its own, for a command runs its own event loop.
    ended = await asyncio.to_thread(CliRunner(env=environment).invoke, app, words)
    return ended.exit_code, ended.output


async def test_an_operator_pays_out_from_the_command_line(
    till: Till, database_url: str, tmp_path: Path
) -> None:
    environment = {
        "DATABASE_URL": database_url,
        "BROKER_STATE": str(tmp_path),
        "BROKER_SECRET_KEY": "ab" * 32,
        "BROKER_PAYOUT_NAME": "Model Broker",
        "BROKER_PAYOUT_IBAN": "GB82WEST12345698765432",
    }
    assert await broker(environment, "list") == (0, "There are no payouts.\n")
    acme = await till.provider("acme")
    await till.adjust(acme, 90_000_000)

    status, said = await broker(environment, "run", "acme")
    assert status == 0, said
    payout, name, amount = said.split()[:3]
    batch = said.partition(" payouts export ")[2].split()[0]
    assert (name, amount) == ("acme", "0.09")

    file = tmp_path / "batch.xml"
    status, said = await broker(environment, "export", batch, "--out", str(file))
    assert status == 0, said
    assert b"DE89370400440532013000" in file.read_bytes()

    status, _ = await broker(environment, "return", payout, "--reason", "too soon")
    assert status == 1
    status, said = await broker(environment, "confirm", payout, "--reference", "bank-7")
    assert (status, said) == (0, "Payout 1 of acme, 0.09 USD: sent.\n")
    status, said = await broker(environment, "list", "--status", "sent")
    assert status == 0, said
    assert said == f"{payout}  sent              0.09 USD  acme to DE89…3000  (batch {batch})\n"
