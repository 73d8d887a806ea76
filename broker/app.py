"""One broker process: the data plane, the control plane, and what is mounted, on one port."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import uvloop

from broker.api.app import create_api
from broker.api.metrics.page import create_registry
from broker.api.metrics.tallies import Tallies
from broker.bootstrap import open_runtime
from broker.flows.calls.quote import QuoteDesk
from broker.flows.runtime import Runtime
from broker.gateway.app import Gateway
from broker.gateway.quoting import read_demands
from broker.gateway.ways import is_of_clients, meant
from broker.logs import configure_logging
from broker.server.bridge import App, Bridge, when_asked
from broker.server.files import allow_files, connections_max
from broker.server.limits import ServerLimits
from broker.server.listener import Listener, signals
from broker.server.request import Handler, Request
from broker.server.sharing import BOARD, Board, Shared
from broker.settings import Limits, Settings

STOP_LIMIT_S = 30
YOUNG_MAX = 20_000
"""So many objects more than at the last look make the garbage collector look again."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes on one port."""

    shared: Shared
    """The port, on which all of them listen."""
    tallies: Tallies

    @classmethod
    def enlisted(cls, told: str) -> Worker:
        """Return which one this process is, as the fleet that started it has told it: the number,
        the descriptor of the socket, the folder of what each has counted and of their board. Raises
        OSError."""
        number, descriptor, folder = told.split(":", 2)
        board = Board(Path(folder) / BOARD, int(number))
        shared = Shared(socket.socket(fileno=int(descriptor)), board)
        return cls(shared, Tallies(Path(folder), int(number)))


class Broker:
    """Builds everything, listens, and takes it down in reverse: `async with` it, or `run`."""

    def __init__(
        self, settings: Settings, host: str, port: int, worker: Worker | None = None
    ) -> None:
        """`worker` says which of several processes on one port this is."""
        self._settings = settings
        self._worker = worker
        self._place = (host, port)
        self._stack = contextlib.AsyncExitStack()
        self._leaving = False
        self._gateway: Gateway
        self._api: Bridge
        self._mounts: Mapping[str, Bridge]
        self.port = port
        """The port that it listens on, once it does."""

    async def __aenter__(self) -> Broker:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        runtime = await self._stack.enter_async_context(open_runtime(self._settings))
        tallies = self._worker.tallies if self._worker is not None else None
        registry = create_registry(runtime, runtime)
        desk = QuoteDesk(runtime, read_demands)
        api = create_api(runtime, registry, desk, tallies)
        self._gateway = Gateway(runtime)
        self._api = Bridge(api)  # type: ignore[arg-type]  # Litestar's ASGI types
        self._mounts = {
            point.name: Bridge(when_asked(partial(_mounted, point, runtime)))
            for point in entry_points(group="broker.mounts")
        }
        await self._stack.enter_async_context(api.lifespan())
        listener = Listener(self._open, _limits(self._settings.limits))
        self._stack.push_async_callback(self._stop, listener, runtime)
        self.port = await listener.start(
            *self._place, self._worker.shared if self._worker is not None else None
        )
        if tallies is not None:
            counting = asyncio.create_task(tallies.keep(registry))
            self._stack.callback(counting.cancel)

    async def _stop(self, listener: Listener, runtime: Runtime) -> None:
        runtime.leaving = self._leaving = True
        await asyncio.sleep(self._settings.limits.stop_notice_s)
        runtime.stopping = True
        await listener.stop(STOP_LIMIT_S)

    def _open(self, request: Request) -> tuple[Handler, bool]:
        """Route by the first part of the path."""
        if self._leaving:
            request.keep_alive = False  # the caller's next request is for another process
        path = request.path
        if path.startswith(("/v1/", "/v2")):
            return self._gateway.open(request)
        if path == "/":
            return _to_console, True
        bridge = self._mounts.get(path.split("/", 2)[1])
        if bridge is None:
            if is_of_clients(plain := meant(path)):
                request.path = plain
                return self._gateway.open(request)  # whose refusals such clients can read
            bridge = self._api
        bridge.open(request)
        return bridge.handle, False


def _mounted(point: EntryPoint, runtime: Runtime) -> App:
    """Load what is mounted: the console is 3 MB, which most of several processes never show."""
    build: Callable[[Runtime], App] = point.load()
    return build(runtime)


async def _to_console(request: Request) -> None:
    request.answer(307, b"location: /console\r\n", b"")


def _limits(limits: Limits) -> ServerLimits:
    return ServerLimits(
        head_bytes_max=limits.head_bytes_max,
        head_s=limits.head_s,
        body_bytes_max=limits.body_bytes_max,
        body_s=limits.body_s,
        bodies_bytes_max=limits.bodies_bytes_max,
        connections_max=connections_max(limits.calls_in_flight_max),
        keep_alive_s=limits.keep_alive_s,
    )


async def serve(place: tuple[str, int], settings: Settings, started: asyncio.Future[int]) -> None:
    """Serve at `place`, a host and a port, until cancelled; `started` gets the port."""
    async with Broker(settings, *place) as broker:
        started.set_result(broker.port)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def _serve_until_told(
    settings: Settings, host: str, port: int, worker: Worker | None
) -> None:
    asked, begun = asyncio.Event(), False
    starting = asyncio.current_task()
    assert starting is not None

    def stop() -> None:
        if not (begun or asked.is_set()):
            starting.cancel()  # it may be waiting for a database that does not answer
        asked.set()

    with signals(stop):
        try:
            async with Broker(settings, host, port, worker):
                begun = True
                _collect_seldom()
                await asked.wait()
        except asyncio.CancelledError:
            if begun or not asked.is_set():
                raise


def _collect_seldom() -> None:
    """Let the garbage collector pass by what has been built, and look at the rest less often: it
    took 4.5 % of a busy process, and each full look at a large market tenths of a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])


def run(settings: Settings, host: str, port: int, worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    configure_logging()
    allow_files()
    uvloop.run(_serve_until_told(settings, host, port, worker))
