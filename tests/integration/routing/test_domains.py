"""A domain that is taught is recognised by a running broker at once, and forgotten as soon."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from typer.testing import CliRunner

from broker.bootstrap import open_runtime
from broker.cli.main import app
from broker.encoding.words import load_encoder
from broker.settings import Settings
from tests.integration.routing.examples import COOKING, LAW
from tests.waiting import until


async def test_a_running_broker_recognises_what_is_taught_from_the_command_line(
    database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "BROKER_SECRET_KEY": "ab" * 32,
        "BROKER_STATE": str(tmp_path),
    }

    async def broker(*words: str) -> str:
        ended = await asyncio.to_thread(CliRunner().invoke, app, words, env=os.environ | env)
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return ended.output

    async with open_runtime(Settings.from_env(env)) as runtime:
        assert runtime.market.recogniser is None
        for name, examples in (("law", LAW), ("cooking", COOKING)):
            (tmp_path / name).write_text("\n".join(examples))
            assert "24 examples" in await broker("domains", "teach", name, str(tmp_path / name))

        def names() -> tuple[str, ...]:
            recogniser = runtime.market.recogniser
            return () if recogniser is None else recogniser.names

        await until(lambda: names() == ("cooking", "law"))
        recogniser, encoder = runtime.market.recogniser, load_encoder()
        assert recogniser is not None
        for prompt, domain in (
            ("May a landlord raise the rent before the contract ends?", "law"),
            ("How long do I bake potatoes with butter?", "cooking"),
        ):
            assert recogniser.recognise(recogniser.look(encoder.encode(prompt))).domain == domain
        assert "cooking" in await broker("domains", "list")
        (tmp_path / "tax").write_bytes("\n".join(COOKING).encode() + b"\nM\xfcssen wir zahlen?")
        wrong = await asyncio.to_thread(
            CliRunner().invoke, app, ("domains", "teach", "tax", str(tmp_path / "tax")), env=env
        )
        assert "Example 25 has" in str(wrong.exception)
        async with open_runtime(Settings.from_env(env)) as restarted:
            recogniser = restarted.market.recogniser
            assert recogniser is not None, "who calls first finds its specialist"
            assert recogniser.names == ("cooking", "law")
        await broker("domains", "forget", "law")
        await until(lambda: names() == ("cooking",))
