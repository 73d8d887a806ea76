"""Makes the demo servers' virtual environments on first use: a broker carries none of it.

An environment is named by the hash of its lock file and interpreter, built under a lock where it
will stand (a virtual environment cannot be moved), and taken for made once its marker is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.embedded.child import Child, Command
from broker.embedded.failures import AlreadyRunning
from broker.embedded.lock import FolderLock
from broker.errors import BrokerError

Report = Callable[[str], None]
"""Takes one line for people."""

LOCKS = Path(__file__).parent / "requirements"
_MARKER = "complete"
_POLL_S = 0.2
_INSTALL_LIMIT_S = 900.0
_TOLD_LINES = 12


class EnvironmentNotMade(BrokerError):
    """An environment could not be made; `detail` ends with what the installer said last."""

    status = 503
    code = "demo_environment_not_made"


@dataclass(frozen=True, slots=True)
class Environment:
    """What to install: every package of the lock file, pinned and hashed, wheels only."""

    name: str
    lock: Path
    download_mb: int


ENVIRONMENTS = {
    "llm": Environment("llm", LOCKS / "llm.lock", 125),
    "embed": Environment("embed", LOCKS / "embed.lock", 107),
    "triton": Environment("triton", LOCKS / "triton.lock", 160),
}


async def make_environment(
    environment: Environment, folder: Path, report: Report, *, interpreter: Path | None = None
) -> Path:
    """Return the environment's Python; makes it in `folder` unless it stands there already.

    Two starters may ask at once: one makes it, the other waits. Raises EnvironmentNotMade.
    """
    base = interpreter or Path(sys.executable)
    home = _home(environment, folder, base)
    python = home / "bin" / "python"
    if _is_made(home, python):
        return python
    async with _turn(home, lambda: report(f"{environment.name}: another start is making it")):
        if not _is_made(home, python):
            report(f"{environment.name}: installing about {environment.download_mb} MB, once")
            began_s = time.monotonic()
            await _make(environment, home, base)
            report(f"{environment.name}: installed in {time.monotonic() - began_s:.0f} s")
    return python


def _home(environment: Environment, folder: Path, base: Path) -> Path:
    identity = environment.lock.read_bytes() + str(base.resolve()).encode()
    return folder.resolve() / f"env-{environment.name}-{hashlib.sha256(identity).hexdigest()[:12]}"


def _is_made(home: Path, python: Path) -> bool:
    # The interpreter is a link to the base, which may have gone since.
    return (home / _MARKER).exists() and python.exists()


@asynccontextmanager
async def _turn(home: Path, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the right to make `home`, waiting for whoever has it."""
    lock = FolderLock(home.with_name(f"{home.name}.making"))
    waiting = False
    while True:
        try:
            lock.acquire()
            break
        except AlreadyRunning:
            if not waiting:
                on_wait()
            waiting = True
            await asyncio.sleep(_POLL_S)
    try:
        yield
    finally:
        lock.release()


async def _make(environment: Environment, home: Path, base: Path) -> None:
    """Try uv where there is one, then pip: the two may be set up for different registries."""
    log = home.with_name(f"{home.name}.log")
    log.unlink(missing_ok=True)
    plans = [_by_pip(environment, home, base)]
    if uv := shutil.which("uv"):
        plans.insert(0, _by_uv(uv, environment, home, base))
    said = ""
    for plan in plans:
        await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
        failure = await _carry_out(plan, environment.name, log)
        if failure is None:
            (home / _MARKER).write_text(environment.lock.read_text("utf-8"), "utf-8")
            return
        said = failure
    await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
    raise EnvironmentNotMade(
        f"the environment {environment.name!r} of the demo could not be made; {said}",
        facts={"environment": environment.name, "log": str(log)},
    )


def _by_uv(uv: str, environment: Environment, home: Path, base: Path) -> list[list[str]]:
    lock = str(environment.lock)
    rules = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    return [
        [uv, "venv", "--no-project", "--python", str(base), str(home)],
        [uv, "pip", "install", "--python", str(home / "bin" / "python"), *rules, "-r", lock],
    ]


def _by_pip(environment: Environment, home: Path, base: Path) -> list[list[str]]:
    lock = str(environment.lock)
    rules = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
    pip = [str(home / "bin" / "python"), "-I", "-m", "pip"]
    return [
        [str(base), "-I", "-m", "venv", str(home)],
        [*pip, "install", *quiet, *rules, "-r", lock],
    ]


async def _carry_out(plan: Sequence[Sequence[str]], name: str, log: Path) -> str | None:
    """Run the commands in turn; return what the first that failed said, None if none did."""
    for argv in plan:
        child = await Child.start(Command(f"installing {name}", argv, log))
        try:
            async with asyncio.timeout(_INSTALL_LIMIT_S):
                code = await child.wait()
        except TimeoutError:
            return f"{_tool(argv)} took longer than {_INSTALL_LIMIT_S:.0f} s, see {log}"
        finally:
            await child.stop(limit_s=2.0)
        if code != 0:
            return f"{_tool(argv)} ended with {code}:\n{child.last_lines(_TOLD_LINES)}"
    return None


def _tool(argv: Sequence[str]) -> str:
    """The command as people call it: `uv pip`, `pip`, `venv`."""
    module = argv.index("-m") + 1 if "-m" in argv else None
    return f"{Path(argv[0]).name} {argv[1]}" if module is None else argv[module]
