"""Keeps a process's facts fresh: keys and catalog, beats, the newest book."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.takes import Taken
from broker.errors import Unavailable
from broker.flows.market.facts import Facts
from broker.flows.market.price_newcomers import Newcomers
from broker.live.room import Live
from broker.live.sheet import Roster, judge
from broker.store import changes
from broker.store.access import keys
from broker.store.away import DATABASE_AWAY, told
from broker.store.market import prices
from broker.store.market.listed import Listed
from broker.store.money import plans
from broker.store.quality import domains
from broker.store.sealing import Sealer

_log = structlog.get_logger(__name__)

LOADED_EVERY_S: Final = 30.0
"""Everything is loaded anew so often, in case something changed it without a word."""
FORGETS_EVERY_S: Final = 60.0
"""How often it is looked which heartbeats are so old that nobody needs them."""
LOADS_WITHIN_S: Final = 5.0
FIRST_WITHIN_S: Final = 15.0
_AGAIN_S: Final = 0.2
SETTLES_S: Final = 0.02
"""What is heard within so short a time is looked up at once."""

_EVERYTHING: Final = frozenset({changes.KEYS, changes.CATALOG})


class Refresher:
    """Holds the newest facts of one process. What cannot be asked stays as it was last known."""

    def __init__(
        self,
        engine: AsyncEngine,
        sealer: Sealer,
        live: Live,
        *,
        clock: Callable[[], datetime],
        now_s: Callable[[], float] = time.monotonic,
        hears: Callable[[], bool] = lambda: False,
    ) -> None:
        """`hears` says whether every change of the database is told to `mark` now."""
        self._engine = engine
        self._listed = Listed(sealer)
        self._live = live
        self._clock = clock
        self._now_s = now_s
        self._hears = hears
        self._due = set(_EVERYTHING)
        self._all_due_at_s = 0.0
        self._forgets_at_s = 0.0
        self._takes_change_at: datetime | None = None
        self._complained = False
        self._woken = asyncio.Event()
        self._roster = Roster({})
        self._newcomers = Newcomers()
        self._taken = Taken()
        self.facts = Facts()

    def mark(self, what: str) -> None:
        """Be told that keys or catalog have changed, so that they are loaded at once."""
        self._due |= {what} & _EVERYTHING
        self.wake()

    def wake(self) -> None:
        """Be told that there is something new, such as a book in the feed."""
        self._woken.set()

    async def run(self, tick_s: float, apply: Callable[[Facts], None]) -> None:
        """Refresh each tick, and at once when woken, until cancelled; `apply` gets all facts."""
        told_at_s = self._now_s()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, told_at_s + tick_s - self._now_s())):
                    await self._woken.wait()
                    await asyncio.sleep(SETTLES_S)
            self._woken.clear()
            ticks = self._now_s() >= told_at_s + tick_s
            told_at_s = self._now_s() if ticks else told_at_s
            try:
                apply(await self.refresh(ticks=ticks))
            except Exception:  # one bad refresh must not leave the process blind for good
                _log.exception("the facts were not refreshed")

    async def first(self) -> Facts:
        """Return the first facts, with catalog and keys: whoever serves without them says that
        there are none. Raises Unavailable when the database stays away."""
        due_s = self._now_s() + FIRST_WITHIN_S
        while not (facts := await self.refresh(ticks=True)).loaded:
            if self._now_s() >= due_s:
                raise Unavailable("The database is away: there is no catalog to begin with.")
            await asyncio.sleep(_AGAIN_S)
        return facts

    async def refresh(self, *, ticks: bool = False) -> Facts:
        """Bring the facts up to date; once a tick the heartbeats as well."""
        if ticks:
            await self._live.beats.load()
        before = self.facts
        newest = await self._look_up(before, ticks=ticks)
        if newest.deployments is not before.deployments:
            ids = tuple(each.id for each in newest.deployments)
            if ids != self._roster.ids:
                self._roster = Roster({each.id: each.number for each in newest.deployments})
        if ticks and newest.loaded and not self._complained:
            await self._forget()
        presence = judge(self._live.beats.sheet(), self._roster, before.presence)
        self.facts = replace(
            newest,
            changed=(
                newest.endpoints is not before.endpoints
                or newest.book is not before.book
                or presence != before.presence
            ),
            presence=presence,
        )
        return self.facts

    async def _forget(self) -> None:
        """Forget the heartbeats of deployments that are neither listed nor heard any more."""
        now_s = self._now_s()
        if now_s >= self._forgets_at_s:
            self._forgets_at_s = now_s + FORGETS_EVERY_S
            await self._live.beats.forget(self._roster.ids)

    async def _look_up(self, before: Facts, *, ticks: bool) -> Facts:
        """Return the facts with what the database says, as far as there is a need to ask it."""
        now_s = self._now_s()
        deaf = not self._hears() and (ticks or not self._due)
        if deaf or now_s >= self._all_due_at_s:
            self._due |= _EVERYTHING
        if self._takes_change_at is not None and self._clock() >= self._takes_change_at:
            self._due.add(changes.CATALOG)
        due, self._due = self._due, set()
        newest = before
        try:
            async with asyncio.timeout(LOADS_WITHIN_S):
                if due or not self._live.books.listening:
                    async with self._engine.connect() as connection:
                        newest = await self._load(connection, before, due)
        except DATABASE_AWAY as error:
            self._due |= due
            if not self._complained:
                _log.warning("going on with the catalog last known", reason=told(error))
            self._complained = True
        else:
            self._complained = False
            if due == _EVERYTHING:
                self._all_due_at_s = now_s + LOADED_EVERY_S
        return self._filled_up(self._with_newest_book(newest))

    async def _load(self, connection: AsyncConnection, before: Facts, due: set[str]) -> Facts:
        newest = before
        if changes.KEYS in due:
            loaded_keys = await keys.load_all(connection, self._clock())
            newest = replace(newest, keys=loaded_keys)
        if changes.CATALOG in due:
            listed = self._listed
            await listed.read(connection)
            takes = await plans.load_takes(connection, self._clock())
            endpoints = self._taken.of(takes, listed.endpoints)
            self._takes_change_at = takes.changes_at
            taught = await domains.load_domains(connection, before.domains)
            # The same objects stay while nothing changed: others remember things by them.
            if listed.deployments is not before.deployments:
                newest = replace(newest, deployments=listed.deployments)
            if endpoints != before.endpoints:
                newest = replace(newest, endpoints=endpoints)
            if taught != before.domains:
                newest = replace(newest, domains=taught)
        known = self._with_newest_book(newest)
        version = await prices.latest_version(connection)
        if version != known.book.version:
            # A book is stored before it is told: less than what is known is a restored backup.
            epoch = known.epoch + (version < known.book.version)
            newest = replace(newest, book=await prices.latest_book(connection), epoch=epoch)
        return replace(newest, loaded=True)

    def _with_newest_book(self, newest: Facts) -> Facts:
        heard, epoch = self._live.books.newest, self._live.books.epoch
        if heard is not None and (epoch, heard.version) > (newest.epoch, newest.book.version):
            return replace(newest, book=heard, epoch=epoch)
        return newest

    def _filled_up(self, newest: Facts) -> Facts:
        """The facts with the list price, in the book, of what that does not know yet. To be asked
        once of each facts: what was told is known by what it was filled up to the last time."""
        book = self._newcomers.priced(newest.book, newest.endpoints)
        return newest if book is newest.book else replace(newest, book=book)
