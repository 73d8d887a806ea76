"""The command `broker-provider`: run the agent from a file, or check the file and the server."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import msgspec

from provider_sdk.agent import run
from provider_sdk.config import EXAMPLE, Config, ConfigWrong, load
from provider_sdk.deployment import Deployment
from provider_sdk.load import LoadReader
from provider_sdk.receipts import key_file
from provider_sdk.signing import KeyUnusable

USUAL = "provider.toml"
LISTED_MAX = 10
DESCRIPTION = """\
Offer your inference server (vLLM, SGLang, TGI, llama.cpp, Triton) at a model broker.

  broker-provider example > provider.toml   write a file to begin with, then edit it
  broker-provider check provider.toml       is the file right, and does the server answer?
  broker-provider run provider.toml         register, prove, and stay alive until Ctrl-C
  broker-provider rotate-key provider.toml gpu1
                                            make a new key for the receipts of `gpu1`

The agent registers the deployments in the file, answers the broker's proof of ownership on the
`front` address, and sends a signed heartbeat with the server's load each second or so. Stop it
with SIGTERM or Ctrl-C: the broker is told that you are draining, calls under way may end.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code (2: the file is wrong, 1: a server is not right)."""
    parser = argparse.ArgumentParser(
        prog="broker-provider",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, text in (
        ("run", "register the deployments and keep them alive"),
        ("check", "validate the file and look at the local servers; tells the broker nothing"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "file", type=Path, nargs="?", default=Path(USUAL), help=f"{USUAL} by default"
        )
    text = f"print a {USUAL} to begin with"
    commands.add_parser("example", help=text, description=text)
    text = "make a new key for a deployment's receipts; start the agent again to use it"
    rotation = commands.add_parser("rotate-key", help=text, description=text)
    rotation.add_argument("file", type=Path, help=f"for instance {USUAL}")
    rotation.add_argument("deployment", help="its name in the file")
    told = parser.parse_args(arguments)
    if told.command == "example":
        print(EXAMPLE, end="")
        return 0
    try:
        config = load(told.file, os.environ)
    except ConfigWrong as error:
        print(f"broker-provider: {error}", file=sys.stderr)
        return 2
    if told.command == "check":
        return asyncio.run(check(config))
    try:
        if told.command == "rotate-key":
            return rotate(config, told.deployment)
        run(*config.deployments, broker=config.broker, key=config.key)
    except KeyboardInterrupt:  # a second one, which does not wait for calls under way
        print("broker-provider: stopped at once", file=sys.stderr)
        return 128 + signal.SIGINT
    except KeyUnusable as error:
        print(f"broker-provider: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"broker-provider: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def rotate(config: Config, name: str) -> int:
    """Make a new key for the receipts of one deployment; 1 when it has none. `KeyUnusable`."""
    paths = {each.name: each.receipts_key for each in config.deployments}
    path = paths.get(name)
    if path is None:
        print(f"broker-provider: {name} has no `receipts_key` in the file", file=sys.stderr)
        return 1
    key = key_file(path).rotate()
    print(f"{name} has the new key {key.id} in {path}; start the agent again to use it")
    return 0


class _Card(msgspec.Struct):
    id: str


class _Cards(msgspec.Struct):
    data: list[_Card]


async def check(config: Config) -> int:
    """Print what can be said of each deployment without the broker; 1 when one is not right."""
    good = True
    for deployment in config.deployments:
        print(f"{deployment.name}: {deployment.kind} at {deployment.server}")
        for advice in advise(deployment):
            print(f"  note: {advice}")
        good = await _check_server(deployment) and good
    print("all well" if good else "something is not right")
    return 0 if good else 1


def advise(deployment: Deployment) -> list[str]:
    """What is allowed but perhaps not meant."""
    advice = []
    if deployment.proof == "well-known" and deployment.front is None:
        advice.append("no `front`: you must answer the broker's nonce yourself (the agent logs it)")
    if deployment.front and deployment.server_credential and not deployment.credential:
        advice.append("no `credential`: whoever finds the front may use your server's key")
    if deployment.front and deployment.receipts_key is None:
        advice.append("no `receipts_key`: the broker gets no signed receipts of what you serve")
    if deployment.url.startswith("http://"):
        advice.append("`url` is not https: prompts and credentials travel in the clear")
    return advice


async def _check_server(deployment: Deployment) -> bool:
    reader = LoadReader(
        deployment.server,
        deployment.kind,
        backend=deployment.backend,
        credential=deployment.server_credential or deployment.credential,
        metrics_url=deployment.metrics,
    )
    try:
        state = await reader.read()
        if not state.alive:
            print(f"  the server does not answer: {state.detail}")
            return False
        load = state.load
        said = [
            f"{name} {'unknown' if value is None else value}"
            for name, value in (
                ("running", load.running),
                ("waiting", load.waiting),
                ("KV cache", load.kv_usage),
            )
        ]
        print(f"  alive; load by {state.backend} ({state.detail}): {', '.join(said)}")
        slots = await reader.capacity()
        if slots is not None and slots != deployment.capacity:
            print(f"  note: the server has {slots} slots, `capacity` says {deployment.capacity}")
    finally:
        await reader.close()
    return await _check_models(deployment)


async def _check_models(deployment: Deployment) -> bool:
    """Whether the server knows every model that is offered."""
    key = deployment.server_credential or deployment.credential
    headers = {"authorization": f"Bearer {key}"} if key else {}
    wanted = {endpoint.upstream_model or endpoint.model for endpoint in deployment.endpoints}
    listed: set[str] = set()
    async with httpx.AsyncClient(headers=headers, timeout=5, trust_env=False) as http:
        try:
            if deployment.kind == "openai":
                answer = await http.get(f"{deployment.server}/v1/models")
                listed = _listed(answer.content)
                missing = wanted - listed
            else:
                answers = {m: await http.get(f"{deployment.server}/v2/models/{m}") for m in wanted}
                missing = {model for model, answer in answers.items() if not answer.is_success}
        except httpx.HTTPError as error:
            print(f"  the models could not be listed: {error!r}")
            return False
    for model in sorted(missing):
        print(f"  the server does not list the model {model!r}")
    if missing and listed:
        names = ", ".join(repr(name) for name in sorted(listed)[:LISTED_MAX])
        print(f"  it lists {names}: say that in `upstream_model`")
    return not missing


def _listed(content: bytes) -> set[str]:
    try:
        return {card.id for card in msgspec.json.decode(content, type=_Cards).data}
    except msgspec.DecodeError:
        return set()


if __name__ == "__main__":
    sys.exit(main())
