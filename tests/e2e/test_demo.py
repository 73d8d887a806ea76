"""The whole demo as a newcomer meets it: it serves unmodified clients, stops, and starts again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from openai import OpenAI

from broker.demo.providers import CHAT_FAMILY, EMBEDDING_FAMILY
from broker.embedded.port import free_port
from tests.conftest import memory, passable_folder

START_LIMIT_S = 600.0
"""The environments may have to be made."""
STOP_LIMIT_S = 60.0
READY = "stays open until Ctrl-C"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(START_LIMIT_S + 2 * STOP_LIMIT_S),
]


@dataclass
class Demo:
    """One `broker demo` after another on the same state folder and port."""

    folder: Path
    environments: Path
    port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: f"demo-{uuid4()}")
    """Inherited by all children, by which they are found again."""
    process: asyncio.subprocess.Process | None = None
    said: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def key(self) -> str:
        """The key in the lines that are printed for pasting."""
        found = re.search(r"Bearer (bk_\w+)", self.said)
        assert found is not None, self.said
        return found[1]

    async def start(self) -> float:
        """Start, and return after how many seconds it was ready."""
        began_s = time.monotonic()
        log = self.folder / f"{uuid4()}.log"
        with log.open("w") as out:
            self.process = await asyncio.create_subprocess_exec(
                *broker("demo", "--state", str(self.state), "--port", str(self.port)),
                env=self._env(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        async with asyncio.timeout(START_LIMIT_S):
            while READY not in (said := log.read_text()):
                assert self.process.returncode is None, said
                await asyncio.sleep(0.1)
        self.said = said
        return time.monotonic() - began_s

    async def interrupt(self, *, terminal: bool) -> int:
        """Press Ctrl-C, which a terminal tells the whole group of processes; the exit status."""
        assert self.process is not None
        began_s = time.monotonic()
        (os.killpg if terminal else os.kill)(self.process.pid, signal.SIGINT)
        async with asyncio.timeout(STOP_LIMIT_S):
            code = await self.process.wait()
        tell(f"the demo stopped in {time.monotonic() - began_s:.1f} s")
        return code

    async def command(self, *words: str) -> tuple[int, str]:
        """Run another `broker` command; its exit status and all it says."""
        process = await asyncio.create_subprocess_exec(
            *broker(*words),
            env=self._env(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, " ".join(said.decode().split())

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30.0)

    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, timeout=30.0, max_retries=0)

    def survivors(self) -> dict[int, str]:
        """The command lines of processes that are of this demo, by their environment or words."""
        found = {int(each.name): self._line_of(each) for each in Path("/proc").glob("[0-9]*")}
        return {pid: line for pid, line in found.items() if line}

    def _line_of(self, process: Path) -> str | None:
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes()
            words = str(self.state).encode()
            if words in line or self.mark.encode() in (process / "environ").read_bytes():
                return line.replace(b"\0", b" ").decode()
        return None

    def ports(self) -> dict[str, int]:
        """All ports that the demo has given to servers, and its own."""
        given: dict[str, int] = json.loads((self.state / "demo" / "ports.json").read_text())
        return given | {"broker": self.port}

    def _env(self) -> dict[str, str]:
        unset = ("DATABASE_URL", "VALKEY_URL", "BROKER_SECRET_KEY", "BROKER_STATE")
        env = {name: value for name, value in os.environ.items() if name not in unset}
        marks = {"DEMO_MARK": self.mark, "BROKER_DEMO_ENVS": str(self.environments)}
        return env | marks | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def tell(line: str) -> None:
    """Report a measure, to be seen with `pytest -s`; nothing is asserted of it."""
    sys.stderr.write(f"\n{line}\n")


def broker(*words: str) -> list[str]:
    """The command line of a `broker` command."""
    return [sys.executable, "-m", "broker.cli.main", *words]


@pytest.fixture(scope="module")
def open_state() -> Iterator[Path]:
    with passable_folder(memory()) as folder:
        yield folder


@pytest.fixture(scope="module")
async def demo(open_state: Path, demo_environments: Path) -> AsyncIterator[Demo]:
    """A demo that has been started from a clean folder."""
    demo = Demo(open_state, demo_environments)
    try:
        took_s = await demo.start()
        tell(f"the first start of the demo took {took_s:.1f} s")
        yield demo
    finally:
        if demo.process is not None and demo.process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await demo.interrupt(terminal=False)
        for pid in demo.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_what_was_routed_where_is_shown_with_price_and_reason(demo: Demo) -> None:
    assert "What was routed where" in demo.said
    for provider in ("smolchat", "generalist", "vectorworks", "flaky"):
        assert provider in demo.said
    assert "then smolchat/chat delivered" in " ".join(demo.said.split())
    assert f"{demo.url}/console/login?token=" in demo.said


async def test_a_chat_is_served_by_a_real_model(demo: Demo) -> None:
    def ask() -> tuple[str | None, str]:
        with demo.openai() as client:
            raw = client.chat.completions.with_raw_response.create(
                model=CHAT_FAMILY,
                messages=[{"role": "user", "content": "Say hello."}],
                max_tokens=12,
                extra_body={"broker": {"providers": {"only": ["smolchat"]}}},
            )
            return raw.parse().choices[0].message.content, raw.headers["x-broker-endpoint"]

    text, endpoint = await asyncio.to_thread(ask)
    assert text
    assert endpoint == "smolchat/chat"


async def test_a_stream_is_served_by_a_model_behind_a_key(demo: Demo) -> None:
    def ask() -> tuple[str, dict[str, str]]:
        with demo.openai() as client:
            stream = client.chat.completions.create(
                model="generalist/chat",
                messages=[{"role": "user", "content": "Count to five."}],
                max_tokens=12,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert chunks[-1].model_extra is not None
        return text, chunks[-1].model_extra["broker"]

    text, told = await asyncio.to_thread(ask)
    assert text
    assert told["endpoint"] == "generalist/chat"
    assert float(told["cost_usd"]) > 0


async def test_embeddings_are_real(demo: Demo) -> None:
    def embed() -> list[list[float]]:
        with demo.openai() as client:
            texts = ["query: a cat", "query: a kitten", "query: the price of steel"]
            answer = client.embeddings.create(model=EMBEDDING_FAMILY, input=texts)
            return [each.embedding for each in answer.data]

    cat, kitten, steel = map(np.array, await asyncio.to_thread(embed))
    assert cat @ kitten > cat @ steel


async def test_a_triton_client_is_served_by_a_real_triton(demo: Demo) -> None:
    if "tinyclass (" in demo.said:
        pytest.skip("there is no Triton for this platform")

    def infer() -> list[str]:
        headers = {"Authorization": f"Bearer {demo.key}"}
        address = demo.url.removeprefix("http://")
        topics = []
        with triton.InferenceServerClient(address, network_timeout=30.0) as client:
            assert client.is_model_ready("tinyclass/topic", headers=dict(headers))
            for name in ("tinyclass/topic", "tinyclass--topic"):
                config = client.get_model_config(name, headers=dict(headers))
                assert {each["name"] for each in config["input"]} == {"TEXT"}
                for packing in (None, "gzip", "deflate"):
                    text = triton.InferInput("TEXT", [1, 1], "BYTES")
                    words = np.array([["My printer does not print."]], dtype=np.object_)
                    text.set_data_from_numpy(words)
                    result = client.infer(
                        name,
                        [text],
                        headers=dict(headers),
                        request_compression_algorithm=packing,
                        response_compression_algorithm=packing,
                    )
                    topics.append(result.as_numpy("TOPIC").item().decode())
        return topics

    topics = await asyncio.to_thread(infer)
    assert len(topics) == 6
    assert len(set(topics)) == 1


async def test_the_books_balance(demo: Demo) -> None:
    code, said = await demo.command("check", "--state", str(demo.state), "--replay")
    assert code == 0
    assert said.endswith("The books balance.")


async def test_a_simulation_that_is_ordered_begins(demo: Demo) -> None:
    code, key = await demo.command("keys", "issue", "operator", "--state", str(demo.state))
    assert code == 0, key
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=demo.url, headers=headers, timeout=30.0) as http:
        ordered = await http.post("/api/simulations", json={"scenario": "steady", "seeds": 1})
        place = f"/api/simulations/{ordered.json()['id']}"
        async with asyncio.timeout(STOP_LIMIT_S):
            status = "waiting"
            while status == "waiting":
                await asyncio.sleep(0.1)
                status = (await http.get(place)).json()["status"]
        assert (await http.post(f"{place}/cancel")).is_success


async def test_a_second_demo_on_the_same_folder_says_that_it_runs_already(demo: Demo) -> None:
    words = ("demo", "--state", str(demo.state), "--port", str(free_port()))
    code, said = await demo.command(*words)
    assert code == 1
    assert f"already running as pid {demo.process and demo.process.pid}" in said
    assert "Traceback" not in said


async def test_a_taken_port_is_told_and_another_offered(demo: Demo) -> None:
    elsewhere = demo.folder / "elsewhere"
    code, said = await demo.command("demo", "--state", str(elsewhere), "--port", str(demo.port))
    assert code == 1
    assert f"Port {demo.port}" in said
    assert re.search(r"--port \d+", said)
    assert "Traceback" not in said
    assert not (elsewhere / "postgres").exists()


async def test_no_word_of_a_prompt_or_an_answer_is_kept(demo: Demo) -> None:
    marker = f"Zyzzyva{uuid4().hex}"
    async with demo.client() as http:
        body = {
            "model": CHAT_FAMILY,
            "messages": [{"role": "user", "content": marker}],
            "max_tokens": 4,
        }
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        assert (await http.post("/v1/chat/completions", content=marker)).status_code == 400

    def holding(folder: Path) -> list[str]:
        files = (file for file in folder.rglob("*") if file.is_file())
        return [str(file) for file in files if marker.encode() in file.read_bytes()]

    for kept in ("postgres", "valkey", "logs"):
        assert (demo.state / kept).is_dir(), "nothing was looked at"
        assert await asyncio.to_thread(holding, demo.state / kept) == []


async def test_ctrl_c_leaves_nothing_behind_and_the_next_start_goes_on_where_it_ended(
    demo: Demo,
) -> None:
    key = demo.key
    async with demo.client() as http:
        calls_before = (await http.get("/api/calls")).json()["calls"]
        available = (await http.get("/api/balance")).json()["available_usd"]
    assert len(calls_before) > 5
    assert demo.survivors()

    assert await demo.interrupt(terminal=True) == 0
    _assert_gone(demo)

    took_s = await demo.start()
    tell(f"the second start of the demo took {took_s:.1f} s")
    assert demo.key == key
    async with demo.client() as http:
        calls = {call["id"] for call in (await http.get("/api/calls")).json()["calls"]}
        assert {call["id"] for call in calls_before} <= calls
        statement = (await http.get("/api/statement")).text
        topped_up = (await http.get("/api/balance")).json()["available_usd"]
    assert statement.count('"topup"') == 2, "the second start fills up what the first had spent"
    assert float(topped_up) >= float(available)
    assert (await demo.command("check", "--state", str(demo.state), "--replay"))[0] == 0

    assert await demo.interrupt(terminal=False) == 0
    _assert_gone(demo)


def _assert_gone(demo: Demo) -> None:
    assert demo.survivors() == {}
    for name, port in demo.ports().items():
        with socket.socket() as probe:
            probe.settimeout(1.0)
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"{name} still listens"
    assert not (demo.state / "running.json").exists()
