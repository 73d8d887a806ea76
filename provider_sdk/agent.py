"""Keeps a provider's deployments alive at a broker: signed heartbeats in batches.

It never dies because the broker is away, registers again when told to, and says that it is
draining before it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import Iterator, Sequence

from provider_sdk.backoff import Backoff
from provider_sdk.client import BrokerClient, ProviderError
from provider_sdk.deployment import Deployment
from provider_sdk.protocol import HeartbeatBatch, HeartbeatReply, HeartbeatResult, Registered
from provider_sdk.receipts import ReceiptSender
from provider_sdk.station import Station

log = logging.getLogger(__name__)

FIRST_INTERVAL_MS = 1000
INTERVAL_BOUNDS_MS = (20, 300_000)
JITTER = 0.1
AWAY_MOST_S = 10.0
LAST_WORD_TIMEOUT_S = 3.0
BATCH_MAX = 200


class Agent:
    """Registers deployments and keeps them alive until it is stopped."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        *,
        broker: str,
        key: str,
        retry_s: tuple[float, float] = (0.5, 30.0),
        drain_s: float = 30.0,
        batch_max: int = BATCH_MAX,
    ) -> None:
        """`retry_s`: first and longest pause between attempts to enrol; `drain_s`: how long calls
        through the front may take to end after a stop; `batch_max`: heartbeats in one request at
        most: the broker takes 10,000, but 200 hold up nobody. `OSError` when a front's port is
        taken, `KeyUnusable` when a key for receipts cannot be used."""
        self._rng = random.Random()  # noqa: S311 - spreads load, guards nothing
        self._client = BrokerClient(broker, key)
        self._drain_s = drain_s
        self._batch_max = batch_max
        self._stopping = False
        self._nudge = asyncio.Event()
        """Set when there is a reason not to wait for the next heartbeat's time."""
        self._interval_ms = FIRST_INTERVAL_MS
        self._away = Backoff(0.2, AWAY_MOST_S, self._rng)
        self._complaint = ""
        self.receipts = ReceiptSender(self._client, Backoff(*retry_s, self._rng))
        self.stations = [
            Station(
                deployment,
                self._client,
                Backoff(*retry_s, self._rng),
                self._begin_to_beat,
                self.receipts,
            )
            for deployment in deployments
        ]

    def stop(self) -> None:
        """Drain and end; `run` returns when that is done."""
        self._stopping = True
        self._nudge.set()

    def _begin_to_beat(self, registered: Registered) -> None:
        self._keep_interval(registered.heartbeat_interval_ms)
        self._nudge.set()

    def _keep_interval(self, interval_ms: int) -> None:
        least_ms, most_ms = INTERVAL_BOUNDS_MS
        self._interval_ms = min(most_ms, max(least_ms, interval_ms))

    async def run(self) -> None:
        """Run until `stop`, SIGTERM or SIGINT; a second signal does not wait for the drain."""
        for station in self.stations:
            station.open()
            station.enrol()
        watches = [asyncio.create_task(self._watch(station)) for station in self.stations]
        watches.append(asyncio.create_task(self.receipts.run()))
        try:
            with self._signals():
                await self._beat_until_stopped()
        finally:
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        patience = f" for {self._drain_s:g} s at most; once more cuts them off"
        fronted = any(station.front is not None for station in self.stations)
        log.info("draining%s", f": calls under way may end,{patience}" if fronted else "")
        await self._send(draining=True)
        await asyncio.gather(*(station.close(self._drain_s) for station in self.stations))
        await self.receipts.flush(LAST_WORD_TIMEOUT_S)
        await self._client.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        caught: list[signal.Signals] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            # only the main thread may, and not on every system
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self.stop)
                caught.append(number)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    async def _watch(self, station: Station) -> None:
        while True:
            try:
                await station.look()
            except Exception:
                log.exception("the state of %s could not be read", station.name)
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        return self._interval_ms / 1000 * self._rng.uniform(1 - JITTER, 1 + JITTER)

    async def _beat_until_stopped(self) -> None:
        while not self._stopping:
            reached = await self._send(draining=False)
            pause_s = self._pause_s()
            if reached:
                self._away.reset()
            else:
                pause_s = max(pause_s, self._away.next_s())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._nudge.wait()
            self._nudge.clear()

    async def _send(self, *, draining: bool) -> bool:
        """Send all heartbeats, in batches; whether the broker took them (or there were none)."""
        for begin in range(0, len(self.stations), self._batch_max):
            stations = self.stations[begin : begin + self._batch_max]
            beats = [station.heartbeat(draining=draining) for station in stations]
            signed = [beat for beat in beats if beat is not None]
            if not signed:
                continue
            try:
                reply = await self._client.heartbeat(
                    HeartbeatBatch(heartbeats=signed), timeout_s=LAST_WORD_TIMEOUT_S
                )
            except ProviderError as error:
                self._complain(str(error))
                return False
            self._complain("")
            self._obey(reply, stations)
        return True

    def _complain(self, complaint: str) -> None:
        """Log a trouble when it begins, changes and ends, not at each heartbeat."""
        if complaint and complaint != self._complaint:
            log.warning("heartbeats do not arrive: %s", complaint)
        elif self._complaint and not complaint:
            log.info("heartbeats arrive again")
        self._complaint = complaint

    def _obey(self, reply: HeartbeatReply, stations: Sequence[Station]) -> None:
        self._keep_interval(reply.interval_ms)
        by_id = {
            station.registered.deployment_id: station
            for station in stations
            if station.registered is not None
        }
        for result in reply.results:
            station = by_id.get(result.deployment_id)
            if station is not None and not result.accepted:
                self._mend(station, result)

    def _mend(self, station: Station, result: HeartbeatResult) -> None:
        log.warning("the broker did not accept a heartbeat of %s: %s", station.name, result.reason)
        if result.reason == "clock_skew":
            log.warning("the clocks of this machine and of the broker differ: set what is wrong")
        if result.register_again or result.reason == "unknown_deployment":
            station.enrol()


def run(*deployments: Deployment, broker: str, key: str) -> None:
    """Keep deployments alive at a broker until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)

    async def keep_alive() -> None:
        await Agent(deployments, broker=broker, key=key).run()

    asyncio.run(keep_alive())
