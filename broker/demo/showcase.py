"""Shows on a terminal what the market makes of a few requests, and lines to paste for more."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.demo.asking import Shown, ask_all, consumer, wait_for

_ANSWER_CHARACTERS = 100
_WIDE_COLUMNS = 100


async def show(base_url: str, key: str, console: Console, providers: Collection[str]) -> None:
    """Wait for the providers to be listed, send real requests, and print what became of them.

    `base_url` is the broker's origin, `key` a consumer's with some balance. A provider that is
    not listed in time is named and left out; a request that is refused shows why.
    """
    async with consumer(base_url, key) as http:
        console.print("Waiting until the broker has checked and listed them ...")
        listed = await wait_for(http, providers)
        for name in sorted(set(providers) - listed):
            console.print(f"{name} is not listed yet; the log of its agent says why")
        console.print("Sending a few requests ...\n")
        print_shown(console, await ask_all(http, listed))
    print_invitation(console, base_url, key, has_triton="tinyclass" in listed)


def print_shown(console: Console, shown: Sequence[Shown]) -> None:
    """Print the table, fit for eighty columns: request, routed to, price and cost, why."""
    title = "What was routed where, at what price, and why"
    table = Table(title=title, title_justify="left", box=HORIZONTALS)
    table.add_column("request", overflow="fold", ratio=1)
    narrow = console.width < _WIDE_COLUMNS
    table.add_column("routed to", overflow="fold", min_width=12 if narrow else 20)
    table.add_column("price and cost", overflow="fold", min_width=18)
    table.add_column("why", overflow="fold", min_width=20, max_width=36)
    for each in shown:
        # Answers and names are other people's text: no markup is read in them.
        request = Text(each.title)
        if each.answer:
            request.append(f"\n{_short(each.answer)}", style="dim")
        endpoint = each.endpoint.replace("/", "/\n") if narrow else each.endpoint
        per = _stacked(each.price).replace(" per ", "\nper ")
        price = f"{per}\ncost {each.cost}"
        table.add_row(request, Text(endpoint), Text(price), Text(_stacked(each.why)))
        table.add_section()
    console.print(table, soft_wrap=False)


def _stacked(text: str) -> str:
    """One part below the other, for narrow columns."""
    return text.replace(": ", ":\n").replace(", ", "\n")


def _short(answer: str) -> str:
    line = " ".join(answer.split())
    return line if len(line) <= _ANSWER_CHARACTERS else f"{line[:_ANSWER_CHARACTERS]}..."


def print_invitation(console: Console, base_url: str, key: str, *, has_triton: bool) -> None:
    """Print ready-to-paste `curl` and Python lines with a working key."""
    parts = [("Try it with curl:", curl_line(base_url, key))]
    python = os.path.relpath(sys.executable)
    parts.append((f"or in Python, for instance {python}:", openai_lines(base_url, key)))
    if has_triton:
        parts.append((f"or with Triton's client, also {python}:", triton_lines(base_url, key)))
    for heading, lines in parts:
        console.print(Text(f"\n{heading}\n", style="bold"))
        # Unwrapped and plain, so that what is pasted is what was printed.
        console.print(Text(lines), soft_wrap=True)


def curl_line(base_url: str, key: str) -> str:
    """One shell command that asks for a chat completion."""
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": "Why does my printer not print?"}],
        "max_tokens": 48,
        "broker": {"domain": "support", "quality_min": 0.4},
    }
    return (
        f"curl -i {base_url}/v1/chat/completions"
        f" -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
        f" -d '{json.dumps(body)}'"
    )


def openai_lines(base_url: str, key: str) -> str:
    """A Python program with the `openai` package."""
    return f"""\
from openai import OpenAI
client = OpenAI(base_url="{base_url}/v1", api_key="{key}")
answer = client.chat.completions.create(
    model="auto",
    messages=[{{"role": "user", "content": "Why does my printer not print?"}}],
    max_tokens=48,
    extra_body={{"broker": {{"domain": "support", "weights": "quality"}}}},
)
print(answer.choices[0].message.content)"""


def triton_lines(base_url: str, key: str) -> str:
    """A Python program with the `tritonclient` package; an endpoint's slash is written `--`."""
    return f"""\
import numpy as np, tritonclient.http as triton
client = triton.InferenceServerClient("{urlsplit(base_url).netloc}")
text = triton.InferInput("TEXT", [1, 1], "BYTES")
text.set_data_from_numpy(np.array([["My printer does not print."]], dtype=object))
key = {{"Authorization": "Bearer {key}"}}
print(client.infer("tinyclass--topic", [text], headers=key).as_numpy("TOPIC"))"""
