"""The demo's inference servers are real, answer unmodified clients, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from broker.core.answers.tensor_checks import find_tensor_flaw
from broker.core.catalog import Kind
from broker.core.terms import check_deployment, make_of
from broker.core.wire.signature import Signature, Tensor
from broker.core.wire.tensor_form import asked_outputs, find_fault
from broker.demo.environments import Environment, EnvironmentNotMade, make_environment
from broker.demo.interpreters import LAUNCHER, triton_interpreter
from broker.demo.ports import Ports
from broker.demo.providers import CHAT_FAMILY, EMBEDDING_FAMILY, PROVIDERS
from broker.demo.start import DemoServer, agent, prepare_servers
from broker.embedded.child import Child
from broker.upstream.probe_kserve import signature_in
from provider_sdk.config import load

ZERO = [
    *(0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12),
    *(0, 0, 8, 8, 0, 0, 5, 8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0),
    *(0, 0, 0, 6, 13, 10, 0, 0, 0),
]


def unread(line: str) -> None:
    """Progress that nobody looks at."""


@asynccontextmanager
async def started(servers: list[DemoServer]) -> AsyncIterator[dict[str, Child]]:
    """Start them all at once, by provider; stopped at the end whatever happens."""
    async with AsyncExitStack() as stack:
        children = {}
        for server in servers:
            child = await Child.start(server.service.command)
            stack.push_async_callback(child.stop, limit_s=server.service.stop_limit_s)
            children[server.provider.name] = child
        async with asyncio.TaskGroup() as group:
            for server in servers:
                assert server.service.ready is not None
                child = children[server.provider.name]
                limit_s = server.service.ready_limit_s
                group.create_task(child.ready(server.service.ready, limit_s=limit_s))
        yield children


@pytest.fixture(scope="module")
async def servers(
    demo_environments: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, DemoServer]]:
    """All servers of the demo, running; Triton's is missing where it has no wheel."""
    folder = tmp_path_factory.mktemp("demo")
    prepared = await prepare_servers(folder, unread, environments=demo_environments)
    async with started(prepared):
        yield {server.provider.name: server for server in prepared}


def chat_client(server: DemoServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key=server.key or "none", max_retries=0
    )


@pytest.fixture
def tinyclass(servers: dict[str, DemoServer]) -> DemoServer:
    if "tinyclass" not in servers:
        pytest.skip("Triton has no wheel for this platform")
    return servers["tinyclass"]


@pytest.mark.parametrize("name", ["smolchat", "generalist"])
async def test_a_chat_model_answers_the_openai_client(
    servers: dict[str, DemoServer], name: str
) -> None:
    async with chat_client(servers[name]) as client:
        answer = await client.chat.completions.create(
            model=CHAT_FAMILY,
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=24,
            temperature=0,
        )

    assert "hello" in (answer.choices[0].message.content or "").lower()
    assert answer.model == CHAT_FAMILY
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 24


async def test_a_chat_model_streams_and_tells_the_usage(servers: dict[str, DemoServer]) -> None:
    async with chat_client(servers["smolchat"]) as client:
        stream = await client.chat.completions.create(
            model=CHAT_FAMILY,
            messages=[{"role": "user", "content": "Count from one to ten."}],
            max_tokens=16,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},  # however soon it would have had enough
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta]
    assert len([piece for piece in pieces if piece]) > 1, "it came in parts"
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 16


async def test_the_generalist_wants_its_key(servers: dict[str, DemoServer]) -> None:
    keyless = replace(servers["generalist"], key=None)

    async with chat_client(keyless) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(
                model=CHAT_FAMILY, messages=[{"role": "user", "content": "Hello."}]
            )


async def test_the_embeddings_tell_what_belongs_together(servers: dict[str, DemoServer]) -> None:
    texts = ["The cat sleeps on the sofa.", "Un gato duerme en el sofá.", "Rates rose again."]
    async with chat_client(servers["vectorworks"]) as client:
        answer = await client.embeddings.create(model=EMBEDDING_FAMILY, input=texts)

    cat, gato, rates = (np.array(each.embedding) for each in answer.data)
    assert cat.shape == (384,)
    assert cat @ gato > cat @ rates
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("binary", [True, False])
def test_triton_tells_the_topic_of_a_text(tinyclass: DemoServer, binary: bool) -> None:
    texts = ["My printer does not print since the Windows update.", "The goalie saved the match."]
    tensor = triton.InferInput("TEXT", [2, 1], "BYTES")
    tensor.set_data_from_numpy(
        np.array([[text.encode()] for text in texts], dtype=np.object_), binary_data=binary
    )
    with contextlib.closing(triton.InferenceServerClient(tinyclass.url[7:])) as client:
        answer = client.infer("topic", [tensor])

    assert answer.as_numpy("TOPIC").ravel().tolist() == [b"computing", b"sport"]
    assert (answer.as_numpy("CONFIDENCE") > 0.3).all()


def test_triton_reads_a_digit(tinyclass: DemoServer) -> None:
    tensor = triton.InferInput("PIXELS", [1, 64], "FP32")
    tensor.set_data_from_numpy(np.array([ZERO], dtype=np.float32))
    with contextlib.closing(triton.InferenceServerClient(tinyclass.url[7:])) as client:
        answer = client.infer("digits", [tensor])

    assert answer.as_numpy("DIGIT").tolist() == [[0]]
    assert answer.as_numpy("PROBABILITIES").shape == (1, 10)


def test_triton_refuses_a_model_it_does_not_have(tinyclass: DemoServer) -> None:
    tensor = triton.InferInput("TEXT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"?"]], dtype=np.object_))
    with (
        contextlib.closing(triton.InferenceServerClient(tinyclass.url[7:])) as client,
        pytest.raises(InferenceServerException, match="unknown model"),
    ):
        client.infer("horoscope", [tensor])


async def test_the_load_can_be_read_where_the_agent_will_look(
    servers: dict[str, DemoServer],
) -> None:
    expected = {
        "tinyclass": "nv_inference_pending_request_count",
        "smolchat": "llamacpp:requests_processing",
        "generalist": "llamacpp:requests_processing",
        "flaky": "vllm:num_requests_running",
    }
    async with httpx.AsyncClient() as http:
        for name in expected.keys() & servers.keys():
            server = servers[name]
            headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
            url = server.metrics_url or f"{server.url}/metrics"
            assert expected[name] in (await http.get(url, headers=headers)).text


async def test_the_flaky_provider_fails_every_other_call(servers: dict[str, DemoServer]) -> None:
    question = {"model": CHAT_FAMILY, "messages": [{"role": "user", "content": "Hello."}]}
    async with httpx.AsyncClient(base_url=servers["flaky"].url) as http:
        answers = [await http.post("/v1/chat/completions", json=question) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200, 200, 503, 200, 503, 200]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's table of sockets")
def test_nothing_listens_beyond_the_loopback(servers: dict[str, DemoServer]) -> None:
    ports = {int(server.url.rpartition(":")[2]) for server in servers.values()}
    ports |= {int(s.metrics_url.split(":")[2][:-8]) for s in servers.values() if s.metrics_url}
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            address, _, port = row.split()[1].rpartition(":")
            if row.split()[3] == "0A" and int(port, 16) in ports:
                listening.append((int(port, 16), address))

    assert {port for port, _ in listening} == ports
    assert {address for _, address in listening} == {"0100007F"}


async def test_sigterm_ends_every_server_and_leaves_no_process(
    demo_environments: Path, tmp_path: Path
) -> None:
    prepared = await prepare_servers(tmp_path, unread, environments=demo_environments)
    async with started(prepared) as children:
        for child in children.values():
            os.kill(child.pid, signal.SIGTERM)
        async with asyncio.timeout(30):
            codes = {name: await child.wait() for name, child in children.items()}

        assert codes == dict.fromkeys(children, 0)
        for child in children.values():
            with pytest.raises(ProcessLookupError):
                os.killpg(child.pid, 0)


async def test_a_provider_keeps_its_addresses_from_start_to_start(
    demo_environments: Path, tmp_path: Path
) -> None:
    names = ["flaky", "smolchat"]

    async def addresses() -> list[tuple[str, str]]:
        prepared = await prepare_servers(
            tmp_path, unread, environments=demo_environments, names=names
        )
        return [(server.url, server.front) for server in prepared]

    assert await addresses() == await addresses()


def test_a_taken_port_is_replaced_by_another(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json")
    kept, lost = first.of("kept"), first.of("lost")
    first.save()

    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", lost))
        squatter.listen()
        second = Ports(tmp_path / "ports.json")

        assert second.of("kept") == kept
        assert second.of("lost") not in (kept, lost)


async def test_each_provider_file_is_good_for_the_agent_and_the_broker(
    servers: dict[str, DemoServer], tmp_path: Path
) -> None:
    for server in servers.values():
        service = agent(server, tmp_path, "http://127.0.0.1:8000", "bk_x_y", {"PATH": "/bin"})
        assert service.command.env == {"PATH": "/bin", "BROKER_PROVIDER_KEY": "bk_x_y"}

        config = load(Path(service.command.argv[-1]), service.command.env)

        [deployment] = config.deployments
        assert (config.broker, config.key) == ("http://127.0.0.1:8000", "bk_x_y")
        assert deployment.offer() == server.provider.offer(f"http://{server.front}", server.key)
        assert (deployment.server, deployment.metrics) == (server.url, server.metrics_url)
        check_deployment(deployment.offer())
        for endpoint in deployment.endpoints:
            assert make_of(endpoint, Kind(deployment.kind), "endpoint").model == endpoint.model


def test_no_two_providers_have_one_name() -> None:
    assert len({provider.name for provider in PROVIDERS}) == len(PROVIDERS)


async def test_what_the_installer_said_last_is_in_the_error(tmp_path: Path) -> None:
    lock = tmp_path / "wrong.lock"
    lock.write_text("this is !! no requirement\n")

    with pytest.raises(EnvironmentNotMade) as failure:
        await make_environment(Environment("wrong", lock, 1), tmp_path / "made", unread)

    assert "this is !! no requirement" in failure.value.detail
    assert "pip ended with" in failure.value.detail
    assert not [path for path in (tmp_path / "made").iterdir() if (path / "bin").exists()]


@pytest.fixture
def tiny(tmp_path: Path) -> Environment:
    """An environment of one package of a few kilobytes, of which the broker's lock has the hash."""
    lines = (Path(__file__).parents[2] / "broker/demo/requirements/triton.lock").read_text()
    start = lines.index("threadpoolctl==")
    lock = tmp_path / "tiny.lock"
    lock.write_text(lines[start:])
    return Environment("tiny", lock, 1)


async def test_two_starters_make_an_environment_once(tiny: Environment, tmp_path: Path) -> None:
    told: list[str] = []

    pythons = await asyncio.gather(
        *(make_environment(tiny, tmp_path / "made", told.append) for _ in range(2))
    )

    assert pythons[0] == pythons[1]
    assert [line for line in told if "installing" in line] == ["tiny: installing about 1 MB, once"]
    assert "tiny: another start is making it" in told
    process = await asyncio.create_subprocess_exec(pythons[0], "-I", "-c", "import threadpoolctl")
    assert await process.wait() == 0


async def test_an_environment_cut_off_while_it_was_made_is_made_anew(
    tiny: Environment, tmp_path: Path
) -> None:
    python = await make_environment(tiny, tmp_path / "made", unread)
    home = python.parents[1]
    (home / "complete").unlink()
    (home / "half").touch()

    assert await make_environment(tiny, tmp_path / "made", unread) == python

    assert (home / "complete").exists()
    assert not (home / "half").exists()


async def test_triton_says_what_it_lacks_under_another_interpreter() -> None:
    code = "import runpy, sys; sys.version_info = (3, 14, 0); sys.argv[1:] = ['check'];"
    code += f"runpy.run_path({str(LAUNCHER)!r}, run_name='__main__')"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", code), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()

    assert process.returncode == 1
    assert b"Triton" in said


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the wheel has it")
async def test_who_lacks_a_library_of_the_system_stays_away_and_says_which(tmp_path: Path) -> None:
    code = f"""
import asyncio, pathlib, sys
from broker.demo.start import prepare_servers

def lack(event, told):
    if event == "ctypes.dlopen" and told[0] == "libgomp.so.1":
        raise OSError("cannot open shared object file")

sys.addaudithook(lack)
folder = pathlib.Path({str(tmp_path)!r})
servers = asyncio.run(prepare_servers(folder, print, names=["smolchat", "flaky"]))
print([each.provider.name for each in servers])
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", code), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()

    lacks, stays, servers = said.decode().splitlines()
    assert lacks.startswith("llm: llama.cpp needs libgomp.so.1, which this machine lacks")
    assert stays.startswith("smolchat (")
    assert servers == "['flaky']"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is none")
async def test_triton_finds_an_interpreter_here() -> None:
    assert (await triton_interpreter()).exists()


async def test_what_triton_answers_is_what_it_declares_and_what_it_does_not_take_it_says(
    tinyclass: DemoServer,
) -> None:
    """The broker's checks hold of a real server: with tensors in either form, and with classes."""
    signatures: dict[str, Signature] = {}
    async with httpx.AsyncClient(base_url=tinyclass.url) as http:
        for model in ("topic", "digits"):
            found = signature_in((await http.get(f"/v2/models/{model}")).content)
            assert found is not None
            signatures[model] = found
        digits = signatures["digits"]
        assert digits.outputs == (
            Tensor("DIGIT", "INT64", (-1, 1)),
            Tensor("PROBABILITIES", "FP32", (-1, 10)),
        )
        pixels = triton.InferInput("PIXELS", [1, 64], "FP32")
        pixels.set_data_from_numpy(np.array([ZERO], dtype=np.float32))
        text = triton.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([["A printer."]], dtype=np.object_))
        classes = triton.InferRequestedOutput("PROBABILITIES", class_count=3)
        plain = triton.InferRequestedOutput("PROBABILITIES", binary_data=False)
        for model, tensor, outputs in (
            ("topic", text, None),
            ("digits", pixels, None),
            ("digits", pixels, [plain]),
            ("digits", pixels, [classes]),
        ):
            body, length = triton.InferenceServerClient.generate_request_body([tensor], outputs)
            asked = body[:length]
            headers = {"inference-header-content-length": str(length)}
            answer = await http.post(f"/v2/models/{model}/infer", content=body, headers=headers)
            size = int(answer.headers.get("inference-header-content-length", len(answer.content)))
            told, tail = answer.content[:size], answer.content[size:]
            assert signatures[model].objection(asked) is None
            assert find_fault(told, len(tail), asked_outputs(asked)) is None
            assert find_tensor_flaw(asked, told, tail, signatures[model]) is None, told
        wide = triton.InferInput("PIXELS", [1, 64], "FP64")
        wide.set_data_from_numpy(np.array([ZERO], dtype=np.float64))
        flat = triton.InferInput("PIXELS", [64], "FP32")
        flat.set_data_from_numpy(np.array(ZERO, dtype=np.float32))
        with contextlib.closing(triton.InferenceServerClient(tinyclass.url[7:])) as client:
            for wrong, words in ((wide, "expects 'FP32'"), (flat, "PIXELS.*-1,64")):
                with pytest.raises(InferenceServerException, match=words):
                    client.infer("digits", [wrong])
                body, length = triton.InferenceServerClient.generate_request_body([wrong])
                assert digits.objection(body[:length]) is not None
