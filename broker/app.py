"""The ASGI app of one broker process: the data plane, the control plane, and what is mounted."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import entry_points

import uvicorn
from litestar import Litestar

from broker.api.app import create_api
from broker.bootstrap import open_runtime
from broker.flows.runtime import Runtime
from broker.gateway.app import Gateway
from broker.gateway.asgi import Receive, Scope, Send, respond
from broker.logs import configure_logging
from broker.settings import Settings

Mounted = Callable[[Scope, Receive, Send], Awaitable[None]]

KEEP_ALIVE_S = 75
BACKLOG = 2_048
STOP_LIMIT_S = 30


class BrokerApp:
    """Routes by the first part of the path; builds everything when the server starts it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._gateway: Gateway | None = None
        self._api: Litestar | None = None
        self._mounts: Mapping[str, Mounted] = {}
        self._runtime: Runtime | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's own life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith(("/v1/", "/v2")):
            assert self._gateway is not None
            await self._gateway(scope, receive, send)
            return
        if path == "/":
            await respond(send, 307, [(b"location", b"/console")], b"")
            return
        mounted = self._mounts.get(path.split("/", 2)[1])
        if mounted is not None:
            await mounted(scope, receive, send)
            return
        assert self._api is not None
        await self._api(scope, receive, send)  # type: ignore[arg-type]  # Litestar's ASGI types

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._start()
                except Exception as error:
                    await self._stack.aclose()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._stack.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        runtime = await self._stack.enter_async_context(open_runtime(self._settings))
        self._runtime = runtime
        self._gateway = Gateway(runtime)
        self._api = create_api(runtime)
        mounts = {
            point.name: point.load()(runtime) for point in entry_points(group="broker.mounts")
        }
        await self._stack.enter_async_context(self._api.lifespan())
        self._mounts = mounts

    def stop_soon(self) -> None:
        """Take no new calls; those under way finish."""
        if self._runtime is not None:
            self._runtime.stopping = True


class _Server(uvicorn.Server):
    """Says that it is not ready from the moment it is asked to stop."""

    def __init__(self, config: uvicorn.Config, app: BrokerApp) -> None:
        super().__init__(config)
        self._broker = app

    def handle_exit(self, sig: int, frame: object) -> None:
        self._broker.stop_soon()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]  # passed on as it came


def create_server(settings: Settings, host: str, port: int) -> uvicorn.Server:
    """Return a server of one broker process; `port` 0 takes a free one."""
    app = BrokerApp(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        interface="asgi3",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_LIMIT_S,
    )
    return _Server(config, app)


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    configure_logging()
    create_server(settings, host, port).run()
