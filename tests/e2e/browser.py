"""Drives a real Chromium over its debugging pipe: opens pages, asks, takes pictures."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "" if CHROMIUM else "no chromium is installed"
"""Why there is no browser to test with."""
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_AT_3_AND_4 = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts a program with its pipe at the descriptors where Chromium looks for it."""
_WITHIN_S = 30.0
_LINE_BYTES_MAX = 64 << 20


class PageBroken(Exception):
    """The browser refused a command, or a script in the page threw."""


class Tab:
    """One page of a browser."""

    def __init__(self, reader: asyncio.StreamReader, commands: int) -> None:
        self._reader = reader
        self._commands = commands
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.complaints: list[str] = []
        """What the page wrote to its console as errors, such as what its policy blocked."""

    async def start(self) -> None:
        """Open an empty page."""
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run one command and return its result. Raises PageBroken."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(_WITHIN_S):
            while True:
                told = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if told.get("id") == number:
                    break
                self._notice(told)
        if "error" in told:
            raise PageBroken(f"{method}: {told['error']}")
        result: dict[str, Any] = told["result"]
        return result

    async def look(self, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Set the size of the window, and light or dark."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def open(self, url: str) -> None:
        """Go to a page; what is on it is for `until` to wait for."""
        await self.send("Page.navigate", url=url)

    async def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise PageBroken(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Return an expression's value once it is true. Raises PageBroken after half a minute."""
        ends_s = time.monotonic() + _WITHIN_S
        while time.monotonic() < ends_s:
            with contextlib.suppress(PageBroken):  # the page may be on its way to another
                if value := await self.ask(expression):
                    return value
            await asyncio.sleep(0.05)
        raise PageBroken(f"never true: {expression}; complaints: {self.complaints}")

    def _notice(self, told: dict[str, Any]) -> None:
        parameters = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif told.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(str(parameters["entry"]["text"]))


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Tab]:
    """A browser with one page; the browser is gone at the end."""
    assert CHROMIUM is not None, "ask for CHROMIUM first"
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="console-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _AT_3_AND_4, str(in_read), str(out_write),
            CHROMIUM, *_FLAGS, f"--user-data-dir={profile}",
            pass_fds=(in_read, out_write),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(in_read)
        os.close(out_write)
        reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(out_read, "rb")
        )
        try:
            tab = Tab(reader, in_write)
            await tab.start()
            yield tab
        finally:
            os.close(in_write)  # at which the browser ends by itself
            transport.close()
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), 10.0)
    except TimeoutError:
        process.kill()
        await process.wait()
