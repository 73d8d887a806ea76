"""Prepares the demo's servers and agents as services for a supervisor, telling people."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.demo.environments import (
    ENVIRONMENTS,
    Report,
    make_environment,
)
from broker.demo.interpreters import PlatformUnfit, require_openmp, triton_interpreter
from broker.demo.ports import Ports
from broker.demo.provider_file import write_provider_file
from broker.demo.providers import (
    CHAT_FAMILY,
    CONTEXT_TOKENS,
    PROVIDERS,
    DemoProvider,
    flaky_script,
)
from broker.embedded.child import Command
from broker.embedded.readiness import answering
from broker.embedded.supervise import Service

_LAUNCHERS = Path(__file__).parent / "servers"
_READY_LIMIT_S = 300.0
"""Triton trains its models at the first start, a quarter of a minute on a busy machine."""
_FRONT_LIMIT_S = 30.0
_STOP_LIMIT_S = 12.0


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A provider's inference server, ready to be started, and the address its agent will front."""

    provider: DemoProvider
    service: Service
    url: str
    """Of the server itself."""
    front: str
    """`host:port` of the agent's front, which is what the broker calls."""
    metrics_url: str | None = None
    """Where it is not the server's own."""
    key: str | None = None
    """What the server wants as a bearer key."""


async def prepare_servers(
    folder: Path,
    report: Report,
    *,
    environments: Path | None = None,
    names: Iterable[str] | None = None,
) -> list[DemoServer]:
    """Make what is missing under `folder` and return the servers; nothing is started yet.

    Environments are made side by side. A provider whose server cannot run on this platform is
    left out, and `report` says why. `names` limits it to some providers. Raises
    EnvironmentNotMade.
    """
    wanted = [each for each in PROVIDERS if names is None or each.name in set(names)]
    pythons = await _pythons(wanted, environments or folder, report)
    ports = Ports(folder / "ports.json")
    servers = []
    for provider in wanted:
        python = pythons[provider.environment]
        if python is None:
            report(f"{provider.name} ({provider.about}) stays away on this machine")
        else:
            servers.append(_server(provider, python, folder, ports))
    ports.save()
    return servers


async def _pythons(
    wanted: list[DemoProvider], home: Path, report: Report
) -> dict[str | None, Path | None]:
    """The Python of each environment; None where what it holds cannot run here."""
    kinds = {each.environment for each in wanted if each.environment is not None}
    try:
        async with asyncio.TaskGroup() as group:
            making = {kind: group.create_task(_python(kind, home, report)) for kind in kinds}
    except ExceptionGroup as failures:  # what an "except*" raises would be a group again
        raise failures.exceptions[0] from None
    return {None: Path(sys.executable)} | {kind: task.result() for kind, task in making.items()}


async def _python(kind: str, home: Path, report: Report) -> Path | None:
    interpreter = None
    try:
        if kind == "triton":
            interpreter = await triton_interpreter()
        if kind == "llm":
            require_openmp()
    except PlatformUnfit as obstacle:
        report(f"{kind}: {obstacle.detail}")
        return None
    return await make_environment(ENVIRONMENTS[kind], home, report, interpreter=interpreter)


def _server(provider: DemoProvider, python: Path, folder: Path, ports: Ports) -> DemoServer:
    port = ports.of(f"{provider.name}.server")
    url = f"http://127.0.0.1:{port}"
    key_file = folder / f"{provider.name}.key" if provider.guarded else None
    key = _kept_key(key_file) if key_file else None
    metrics_url = None
    if provider.environment == "triton":
        metrics_url = f"http://127.0.0.1:{ports.of(f'{provider.name}.metrics')}/metrics"
    command = Command(
        f"server of {provider.name}",
        [str(python), *_arguments(provider, folder, ports, key_file)],
        folder / "logs" / f"{provider.name}-server.log",
    )
    ready = answering(f"{url}{_health_path(provider)}")
    service = Service(command, ready, _READY_LIMIT_S, _STOP_LIMIT_S)
    front = f"127.0.0.1:{ports.of(f'{provider.name}.front')}"
    return DemoServer(provider, service, url, front, metrics_url, key)


def _arguments(
    provider: DemoProvider, folder: Path, ports: Ports, key_file: Path | None
) -> list[str]:
    """What the Python of its environment is to run."""
    port = ["--port", str(ports.of(f"{provider.name}.server"))]
    if provider.environment is None:
        script = folder / f"{provider.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        script.write_text(json.dumps(flaky_script()), "utf-8")
        return ["-P", "-m", "provider_sdk.testing.scripted", *port, "--script", str(script)]
    if provider.environment == "llm":
        width = ["--slots", str(provider.capacity), "--context-tokens", str(CONTEXT_TOKENS)]
        key = ["--api-key-file", str(key_file)] if key_file else []
        arguments = ["llama.py", *port, "--alias", CHAT_FAMILY, *width, *key]
    elif provider.environment == "embed":
        arguments = ["embeddings.py", *port]
    else:
        others = ("grpc", "metrics")
        more = [f"--{each}-port={ports.of(f'{provider.name}.{each}')}" for each in others]
        arguments = ["triton.py", "serve", "--http-port", port[1], *more]
    # Isolated: neither our own packages nor the user's are any business of a foreign environment.
    return ["-I", str(_LAUNCHERS / arguments[0]), *arguments[1:]]


def _health_path(provider: DemoProvider) -> str:
    return "/v2/health/ready" if provider.kind == "kserve" else "/health"


def _kept_key(path: Path) -> str:
    """The key in the file, made at the first start."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"sk-{secrets.token_urlsafe(24)}\n", "utf-8")
    return path.read_text("utf-8").strip()


def agent(
    server: DemoServer,
    folder: Path,
    broker_url: str,
    provider_key: str,
    environment: Mapping[str, str],
) -> Service:
    """Write the provider's file and return its agent, `broker-provider run`, as a service.

    `environment` is the whole environment to run it in; the broker's key is added to it. The
    service is ready when its front answers, which is before the broker has listed the endpoints.
    """
    provider = server.provider
    path = folder / "providers" / provider.name / "provider.toml"
    local = {"server": server.url, "front": server.front}
    if server.metrics_url is not None:
        local["metrics"] = server.metrics_url
    if server.key is not None:
        local["server_credential"] = server.key
    offer = provider.offer(f"http://{server.front}", server.key)
    write_provider_file(path, broker_url, offer, local)
    command = Command(
        f"agent of {provider.name}",
        [sys.executable, "-P", "-m", "provider_sdk.cli", "run", str(path)],
        folder / "logs" / f"{provider.name}-agent.log",
        env={**environment, "BROKER_PROVIDER_KEY": provider_key},
    )
    front = answering(f"http://{server.front}{_health_path(provider)}")
    return Service(command, front, _FRONT_LIMIT_S, _STOP_LIMIT_S)
