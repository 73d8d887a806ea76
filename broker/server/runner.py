"""Runs the handlers of one connection's requests: those that come whole one by one in one task.

Hot path: a task costs a call more than the future that its runner waits for.
"""

from __future__ import annotations

import asyncio

import structlog

from broker.server.blocks import blocks_of
from broker.server.neighbours import Server, Taker
from broker.server.request import Request

_log = structlog.get_logger()


class Runner:
    """What serves the requests of a connection; `next` is the one that waits for the one before."""

    __slots__ = ("_connection", "_server", "_task", "_turn", "next")

    def __init__(self, connection: Taker, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._task: asyncio.Task[None] | None = None
        """Serves what comes whole."""
        self._turn: asyncio.Future[None] | None = None
        """What it waits for while there is nothing to serve."""
        self.next: Request | None = None

    def start(self, request: Request) -> None:
        """Have a request served: the one before has been answered."""
        task = self._task
        if not request.whole:
            request.task = self._server.loop.create_task(self._run(request))
        elif task is None or task.done():
            self._task = request.task = self._server.loop.create_task(self._run(request))
        else:
            self.next, request.task = request, task
            self._wake()

    def leave(self, serving: Request | None) -> None:
        """The caller has left, and with it who waited for an answer, if somebody did."""
        if serving is not None:
            serving.left = True
            if serving.listener is not None:
                serving.listener.leave()
            elif serving.task is not None and serving is not self.next:
                serving.task.cancel()  # but not the one before, which has yet to end
                serving.task = self._task = None  # it may keep the error, and that all of us
        self._wake()

    def _wake(self) -> None:
        """Have the task look whether there is something to serve, or nothing more."""
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    async def _run(self, request: Request) -> None:
        """Serve a request, and one that comes whole after the other."""
        while True:
            try:
                await request.handler(request)
            except asyncio.CancelledError:
                # Kept in the task, the error would keep all that the call held, until the garbage
                # collector comes by: its frames lead to the connection, and that to the task.
                if not request.left:
                    raise
            except Exception as error:
                if not request.left:
                    _log.error("request_failed_unexpectedly", exc_info=error)
            finally:
                self._clear(request)
            if not request.whole:
                return
            del request  # and its body, which a caller who asks nothing more need not keep here
            while self.next is None:
                if self._connection.closed:
                    return
                self._turn = self._server.loop.create_future()
                await self._turn
            request, self.next = self.next, None
            if request.left:
                return

    def _clear(self, request: Request) -> None:
        """Keep nothing of a request that was served; the memory of a large body serves the next."""
        if not request.ended:
            self._connection.close()  # what broke off must not be taken for whole
        request.body, request.held = b"", None
        if request.rest:
            blocks, request.rest = blocks_of(request.rest), ()
            self._server.blocks.give_back(blocks)
