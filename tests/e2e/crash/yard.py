"""A market of real processes that faults may hit: PostgreSQL, Valkey, brokers, a worker."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from broker.cli.state import StateFolder
from broker.cli.workers import quick_command
from broker.embedded.child import Child, Command
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.port import free_port
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.flows.books.sweep import release_orphans
from broker.store.database import create_pool
from broker.store.migrate import upgrade
from tests.conftest import memory, passable_folder
from tests.e2e.crash.counted import CountingStall
from tests.e2e.crash.wire import Wire
from tests.e2e.harness import Floor
from tests.e2e.process import BrokerProcess
from tests.plain import TRUSTS_NOBODY
from tests.waiting import PATIENCE_S, until

BROKERS = 2
RETRIES_S = 12.0
"""Within so long every settlement that was kept back has been tried again."""
_LEASES = (
    "FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = x'6c65'::int"
    " AND mode = 'ExclusiveLock'"
)
_HELD = "SELECT 1 FROM open_holds WHERE process_id"
PACE = {"output_tokens": 12, "tokens_per_s": 60.0, "ttft_ms": 30.0}


class WorkerProcess:
    """The worker for quick jobs, with the schedule in it."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        argv = quick_command(StateFolder(folder), beat=True)
        self.log = folder / "worker.log"
        self._command = Command("worker", argv, self.log, env=os.environ | env, folder=folder)
        self._child: Child | None = None

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        self._child = await Child.start(self._command)

    async def kill(self) -> None:
        """`kill -9`, of all its processes."""
        assert self.runs, self.log.read_text()[-4_000:]
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGKILL)
        await self._child.wait()
        self._child.sweep()

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(limit_s=PATIENCE_S)


@dataclass
class Death:
    """When which broker was killed, and when it was back."""

    broker: int
    at_s: float
    until_s: float = math.inf


@dataclass
class Yard:
    """All of it, and who has died when."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    wires: list[Wire]
    """One for each broker, in their order, and the worker's."""
    floor: Floor
    worker: WorkerProcess
    stalls: list[CountingStall]
    deaths: list[Death] = field(default_factory=list)
    mending: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def brokers(self) -> list[BrokerProcess]:
        return self.floor.brokers

    async def issue_keeper(self) -> str:
        """A key that keeps answers, of the one consumer; every broker knows it on return."""
        terms = {"content_kept": "replay"}
        issued = await self.floor.http().post("/api/accounts/shop/keys", json=terms)
        text: str = issued.raise_for_status().json()["key"]
        bearer = {"authorization": f"Bearer {text}"}
        async with httpx.AsyncClient(headers=bearer, verify=TRUSTS_NOBODY) as http:
            for broker in self.brokers:

                async def known(url: str = broker.url) -> bool:
                    return (await http.get(f"{url}/v1/models")).is_success

                await until(known)
        return text

    def mend_later(self, work: Awaitable[None]) -> None:
        """Bring something back beside what goes on."""
        task = asyncio.ensure_future(work)
        self.mending.add(task)
        task.add_done_callback(self._mended)

    def _mended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.mending.discard(task)

    async def kill_broker(self, place: int) -> None:
        """`kill -9`; what supervises brokers starts it again, as often as it takes."""
        death = Death(place, time.monotonic())
        self.deaths.append(death)
        await self.brokers[place].kill()
        self.mend_later(self._revive(death))

    async def _revive(self, death: Death) -> None:
        due_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                await self.brokers[death.broker].start()
            except EmbeddedServerFailed:
                if time.monotonic() > due_s:
                    raise
            else:
                death.until_s = time.monotonic()
                return

    async def crash_postgres(self) -> None:
        """Shut it down in immediate mode, and start it again."""
        os.kill(self.postgres.child.pid, signal.SIGQUIT)
        await self.postgres.child.wait()
        await self.postgres.stop()
        await self.postgres.start()

    async def freeze_postgres(self, lasts_s: float) -> None:
        """Stop all of its processes in their tracks for so long."""
        pid = self.postgres.child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        frozen = [pid, *map(int, children)]  # the postmaster first: it makes no more of them
        try:
            for each in frozen:
                os.kill(each, signal.SIGSTOP)
            await asyncio.sleep(lasts_s)
        finally:
            for each in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    async def healed(self) -> None:
        """Wait until all is up again, without anybody's doing."""
        await asyncio.gather(*self.mending)
        assert self.worker.runs, self.worker.log.read_text()[-4_000:]
        async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:
            for broker in self.brokers:

                async def ready(url: str = broker.url) -> bool:
                    with contextlib.suppress(httpx.HTTPError):
                        return (await http.get(f"{url}/health/ready")).is_success
                    return False

                await until(ready)

        async def leased() -> bool:
            return len(await self.floor.rows(f"SELECT 1 {_LEASES}")) == len(self.brokers)

        await until(leased)

    async def bury_the_dead(self) -> None:
        """Give back what dead brokers held, as the worker does half a minute after."""
        pool = await create_pool(self.floor.database_url, connections_max=1)

        async def buried() -> bool:
            await release_orphans(pool, grace_s=0.0)
            return not await self._dead_hold()

        try:
            await until(buried)
        finally:
            await pool.close()

    async def settle_down(self) -> None:
        """Wait until nothing is held, neither for a broker that is dead nor for a call under way.

        Time need give nothing back: a hold whose statement was cut off is looked for.
        """

        async def buried() -> bool:
            return not await self._dead_hold()

        async def nothing_held() -> bool:
            return await self.floor.held() == 0

        await until(buried, within_s=90.0)
        await until(nothing_held, within_s=RETRIES_S)

    async def _dead_hold(self) -> bool:
        """Whether anything is held for a broker without a lease."""
        return bool(await self.floor.rows(f"{_HELD} NOT IN (SELECT objid::bigint {_LEASES})"))


@contextlib.asynccontextmanager
async def open_yard(folder: Path) -> AsyncIterator[Yard]:
    """Two brokers behind a wire, a worker, and two providers of the same model."""
    async with contextlib.AsyncExitStack() as stack:
        shelves = stack.enter_context(passable_folder(memory()))
        others = stack.enter_context(passable_folder())
        postgres = EmbeddedPostgres(shelves, port=free_port())
        await stack.enter_async_context(postgres)
        valkey = EmbeddedValkey(others, port=free_port(), durable=False)
        await stack.enter_async_context(valkey)
        await upgrade(postgres.url)
        wires = [Wire(postgres.url) for _ in range(BROKERS + 1)]
        for wire in wires:
            await stack.enter_async_context(wire)
        floor = await stack.enter_async_context(Floor(postgres.url, valkey.url, folder))
        worker = WorkerProcess(floor.env | {"DATABASE_URL": wires[-1].url}, folder)
        stack.push_async_callback(worker.stop)
        await worker.start()
        for wire in wires[:BROKERS]:
            await floor.open_broker(DATABASE_URL=wire.url)
        stalls = [CountingStall(name, "common") for name in ("acme", "globex")]
        await floor.list_stalls(*stalls)
        yard = Yard(postgres, valkey, wires, floor, worker, stalls)
        for stall in stalls:
            stall.behave(**PACE)
        yield yard
