"""Keeps a process's picture of the market fresh, and moves the prices while it leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any, Final

from broker.core.market import build_market, newcomers
from broker.core.quality.domains import Recogniser
from broker.core.quality.groups import Groups
from broker.core.quality.learning import taught_on
from broker.core.quality.lessons import Lessons
from broker.core.quality.syllabus import Domain
from broker.encoding.encoder import Encoder
from broker.flows.calls.watch import Watch
from broker.flows.market.agree import Accord, Own, own_of
from broker.flows.market.facts import Facts
from broker.flows.market.refresh import Refresher
from broker.flows.market.tick import TICK_S, Ticker
from broker.flows.process.clock import watch_clock
from broker.flows.process.give_back import give_back_now_and_then
from broker.flows.process.lateness import watch_lateness
from broker.flows.process.leave import Leave
from broker.flows.process.listen import ChangeListener
from broker.flows.quality.learn_domains import DomainSchool
from broker.flows.quality.learn_quality import QualitySchool, Scene
from broker.flows.runtime import Runtime
from broker.live.loads import RefusalMeter
from broker.store import changes
from broker.store.market.leadership import Leadership

LEARNS_WITHIN_S: Final = 5.0
"""So long a process waits, before it takes calls, until it recognises domains."""
_END_S = 0.5


class Background:
    """All that a broker process does without being asked."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._refusals = RefusalMeter(TICK_S)
        self._school = DomainSchool()
        self._taught: tuple[Domain, ...] = ()
        self._groups: Groups | None = None
        self._quality = QualitySchool(runtime.engine, runtime.clock, runtime.heard)
        self._listener = ChangeListener(settings.database_url, self._hear)
        self._refresher = Refresher(
            runtime.engine,
            runtime.sealer,
            runtime.live,
            clock=runtime.clock,
            now_s=runtime.now_s,
            hears=lambda: self._listener.listening,
        )
        self._accord = Accord(runtime.live, self._own, self._take_others, TICK_S)
        self._ticker = Ticker(
            runtime.engine,
            Leadership(settings.database_url),
            runtime.live,
            lambda: self._refresher.facts.endpoints,
            clock=runtime.clock,
        )

    @contextlib.asynccontextmanager
    async def running(self, leave: Leave) -> AsyncIterator[None]:
        """Look once before the block and learn the domains, and on and on while it runs. Raises
        Unavailable when the database stays away."""
        self._apply(await self._refresher.first())
        await self._accord.exchange()
        runtime = self._runtime
        work = (
            self._listener.run(),
            self._refresher.run(TICK_S, self._apply),
            self._accord.run(runtime.now_s),
            self._ticker.run(runtime.now_s),
            runtime.live.books.listen(self._refresher.wake),
            self._school.run(self._recognise, self._group),
            self._quality.run(self._scene, self._teach),
            Watch(runtime).run(),
            watch_lateness(runtime.now_s, runtime.throttle, runtime.live.beats.miss),
            watch_clock(runtime.engine, runtime.clock),
            give_back_now_and_then(),
        )
        tasks = [asyncio.create_task(each) for each in work]
        try:
            if self._taught:  # who calls first is to have its specialist too
                await self._school.first(LEARNS_WITHIN_S)
            yield
        finally:
            await leave.finish(_end, tasks)
            await leave.finish(self._quality.close)

    def _hear(self, what: str) -> None:
        if what == changes.CATALOG:
            self._runtime.heartbeats.forget_keys()
        self._refresher.mark(what)

    def _own(self) -> Own:
        runtime = self._runtime
        return own_of(runtime.pulse, self._refusals, runtime.now_s(), runtime.keyring)

    def _take_others(self) -> None:
        """Count what the other processes have under way, and pass by what they have ejected."""
        live, pulse = self._runtime.live, self._runtime.pulse
        now_s = self._runtime.now_s()
        in_flight = live.loads.others(pulse.others_in_flight.size).in_flight
        pulse.take_others(in_flight, live.ejections.elsewhere())
        pulse.recover(now_s)
        self._runtime.throttle.relax(now_s)
        self._runtime.targets.turn(now_s)
        self._runtime.keyring.take_others(live.callers.elsewhere())

    async def _count_tokens(self, facts: Facts) -> None:
        await self._runtime.tokens.prepare(facts.endpoints)

    def _apply(self, facts: Facts) -> None:
        """Put new facts where the calls look: keys, pulse, and, if it changed, the market."""
        runtime = self._runtime
        if facts.loaded:
            runtime.keyring.swap(facts.keys)
        runtime.pulse.fit(facts.endpoint_numbers, facts.deployment_numbers)
        if facts.changed:
            before = runtime.market
            runtime.market = build_market(facts.endpoints, facts.book, facts.presence, before)
            before.retire()
            runtime.origins.see(runtime.market)
            self._beside(self._count_tokens(facts))
        if facts.domains is not self._taught:
            self._taught = facts.domains
            self._school.ask(facts.domains)

    async def _recognise(self, recogniser: Recogniser | None, encoder: Encoder | None) -> None:
        """Let calls be of these domains, and go by what was learned of them in other groups until
        there are new ones; without domains by nothing."""
        runtime, lessons = self._runtime, None
        while recogniser is not None:
            before = runtime.market.lessons
            if before is not None:
                endpoints = self._refresher.facts.endpoints
                lessons = await asyncio.to_thread(taught_on, before, recogniser, endpoints)
            if runtime.market.lessons is before:
                break
        runtime.encoder = encoder
        runtime.market = replace(runtime.market, recogniser=recogniser, lessons=lessons)
        if lessons is None:
            self._quality.wake()

    def _group(self, groups: Groups) -> None:
        self._groups = groups
        self._quality.wake()

    def _scene(self) -> Scene:
        runtime = self._runtime
        endpoints, recogniser = self._refresher.facts.endpoints, runtime.market.recogniser
        return Scene(endpoints, recogniser, runtime.encoder, self._groups)

    def _teach(self, scene: Scene, lessons: Lessons) -> None:
        """Let calls go by what was learned, unless it was learned for domains that are no more; of
        who came since, go by the claims."""
        market = self._runtime.market
        if scene.recogniser is not market.recogniser:
            return
        if scene.endpoints is not self._refresher.facts.endpoints:
            listed = (market.endpoint(number) for number in market.by_name.values())
            known = {each.number for each in scene.endpoints}
            lessons = lessons.with_newcomers(newcomers(listed, known))
        self._runtime.market = replace(market, lessons=lessons)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._runtime.running.add(task)
        task.add_done_callback(self._runtime.running.discard)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until it is done: a client library may take a cancellation for its own time-out."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_END_S)
