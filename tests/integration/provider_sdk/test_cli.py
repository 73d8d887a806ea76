"""The command checks and runs a provider's file."""

from __future__ import annotations

import asyncio
import signal
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

from provider_sdk.cli import advise, main
from provider_sdk.config import EXAMPLE
from provider_sdk.receipt_key import KeyFile
from provider_sdk.testing.broker import FakeBroker
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.provider_sdk.offers import fronted
from tests.waiting import until


def provider_file(folder: Path, provider: ScriptedProvider, broker: str, key: str) -> Path:
    front = fronted(provider.url).front
    path = folder / "provider.toml"
    path.write_text(
        f'''
broker = "{broker}"
key = "{key}"

[[deployments]]
name = "gpu1"
url = "http://{front}"
kind = "openai"
capacity = 4
server = "{provider.url}"
front = "{front}"

[[deployments.endpoints]]
name = "e"
model = "scripted"
tasks = ["chat"]
price = {{ floor_call = "0.001", list_call = "0.002", ceiling_call = "0.01" }}
'''
    )
    return path


async def command(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provider_sdk.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_check_says_what_is_readable(tmp_path: Path, provider: ScriptedProvider) -> None:
    path = provider_file(tmp_path, provider, "http://127.0.0.1:9", "bk")
    code, out, _err = await command("check", str(path))
    assert code == 0, out
    assert "load by vllm" in out
    assert "running 0, waiting 0, KV cache 0.0" in out
    assert "all well" in out


async def test_the_file_is_looked_for_where_it_usually_is(
    tmp_path: Path, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider_file(tmp_path, provider, "http://127.0.0.1:9", "bk")
    monkeypatch.chdir(tmp_path)
    code, out, _err = await command("check")
    assert (code, "all well" in out) == (0, True)


async def test_check_names_a_missing_model_and_a_dead_server(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    path = provider_file(tmp_path, provider, "http://127.0.0.1:9", "bk")
    provider.script = Script(models=("other",))
    code, out, _err = await command("check", str(path))
    assert code == 1
    assert "does not list the model 'scripted'" in out
    assert "it lists 'other': say that in `upstream_model`" in out
    provider.script = Script(refuse=True)
    code, out, _err = await command("check", str(path))
    assert code == 1
    assert f"the server does not answer: {provider.url}" in out


async def test_run_registers_and_drains_on_sigterm(
    tmp_path: Path, provider: ScriptedProvider, broker: FakeBroker
) -> None:
    path = provider_file(tmp_path, provider, broker.url, broker.key)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provider_sdk.cli", "run", str(path)),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: broker.heartbeats, 15)
    finally:
        process.send_signal(signal.SIGTERM)
        _out, said = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0, said.decode()
    assert broker.heartbeats[-1].status == "draining"
    assert b"gpu1 is listed" in said


async def test_a_second_ctrl_c_ends_a_long_drain_in_a_line(
    tmp_path: Path, provider: ScriptedProvider, broker: FakeBroker
) -> None:
    provider.script = Script(tokens_per_s=5.0, output_tokens=500)
    path = provider_file(tmp_path, provider, broker.url, broker.key)
    front = tomllib.loads(path.read_text())["deployments"][0]["url"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provider_sdk.cli", "run", str(path)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(20), httpx.AsyncClient() as client:
            while b"is listed" not in said:
                said = await process.stderr.readline()
            url, body = f"{front}/v1/chat/completions", {"model": "scripted", "stream": True}
            async with client.stream("POST", url, json=body) as answer:
                await anext(answer.aiter_bytes())
                process.send_signal(signal.SIGINT)
                while b"draining" not in said:
                    said = await process.stderr.readline()
                assert b"once more cuts them off" in said
                process.send_signal(signal.SIGINT)
                _out, rest = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130
    assert rest.decode().splitlines()[-1] == "broker-provider: stopped at once"
    assert b"Traceback" not in rest


async def test_a_taken_front_port_is_said_plainly(
    tmp_path: Path, provider: ScriptedProvider, broker: FakeBroker
) -> None:
    path = provider_file(tmp_path, provider, broker.url, broker.key)
    taken = f"127.0.0.1:{provider.port}"
    lines = [f'front = "{taken}"' if "front =" in x else x for x in path.read_text().split("\n")]
    path.write_text("\n".join(lines))
    code, _out, err = await command("run", str(path))
    assert code == 1
    assert err.strip().startswith(f"broker-provider: the front of gpu1 cannot listen on {taken}")
    assert err.count("\n") == 1


def test_a_wrong_file_is_one_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "provider.toml"
    path.write_text("broker = 1\n")
    assert main(["run", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "broker" in said


def test_a_key_is_rotated_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "provider.toml"
    path.write_text(EXAMPLE.replace("# receipts_key", "receipts_key"))
    before = KeyFile(tmp_path / "gpu1-receipts.pem").key()
    assert main(["rotate-key", str(path), "gpu1"]) == 0
    after = KeyFile(tmp_path / "gpu1-receipts.pem").key()
    assert after.id != before.id
    assert after.id in capsys.readouterr().out
    assert main(["rotate-key", str(path), "gpu1"]) == 1, "the broker has not taken it yet"
    assert main(["rotate-key", str(path), "gpu9"]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_the_example_and_the_help_are_for_newcomers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example"]) == 0
    assert "[[deployments]]" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "provider.toml" in capsys.readouterr().out


def test_advice_is_given_where_something_is_perhaps_not_meant() -> None:
    told = advise(fronted("http://127.0.0.1:1", server_credential="s"))
    assert any("credential" in text for text in told)
    assert any("https" in text for text in told)
    bare = fronted("http://127.0.0.1:1", front=None, url="https://x.example")
    assert advise(bare)[0].startswith("no `front`")
