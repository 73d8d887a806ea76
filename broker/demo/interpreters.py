"""Finds what the demo's servers need of this machine, or says what it lacks."""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import sys
from pathlib import Path

from broker.errors import BrokerError

LAUNCHER = Path(__file__).parent / "servers" / "triton.py"
_OTHERS = ("python3.12", "python3.11")
_CHECK_LIMIT_S = 20.0


class PlatformUnfit(BrokerError):
    """A server of the demo cannot run on this machine; `detail` says what is missing."""

    status = 503
    code = "demo_platform_unfit"


def require_openmp() -> None:
    """Raise PlatformUnfit where llama.cpp would end at its start: its wheel leaves this library to
    the system, and small images of Linux come without."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        raise PlatformUnfit(
            "llama.cpp needs libgomp.so.1, which this machine lacks (Debian: apt install libgomp1)"
        ) from None


async def triton_interpreter() -> Path:
    """Return our own Python if Triton can run under it, else another on the path that it can.

    Raises PlatformUnfit with what stands in the way of our own.
    """
    own = Path(sys.executable)
    reason = await _obstacle(own)
    if reason is None:
        return own
    for other in map(shutil.which, _OTHERS):
        if other is not None and await _obstacle(Path(other)) is None:
            return Path(other)
    raise PlatformUnfit(reason)


async def _obstacle(interpreter: Path) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *(str(interpreter), "-I", str(LAUNCHER), "check"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_CHECK_LIMIT_S):
            _, said = await process.communicate()
    except TimeoutError:
        return f"{interpreter} does not answer"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return None
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{interpreter} cannot be run"
