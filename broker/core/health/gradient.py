"""Learns from how long things take how many may be under way at once.

    gradient = clip(TOLERANCE / longer, 1/2, 1)
    limit <- (1 - SMOOTHING) * limit + SMOOTHING * (limit * gradient + sqrt(limit))

where `longer` is how many times as long things of a kind took, over a window, as such things take
where there is little to do. It is what TCP Vegas does with round-trip times (Brakmo & Peterson,
1995), in the form of Netflix's concurrency-limits (its GradientLimit, with the square root as the
queue that is allowed). What is alike in size is compared with its own kind alone, for an answer of
a thousand tokens takes longer than one of ten, and is not late for that.

Times of one kind differ by their nature, and now and then an answer comes out of a cache. So means
are of logarithms, a mean is compared with a mean, and no single time counts for much. What is given
up before its end would have taken longer; and what waits until it is given up was let in for
nothing, so that where more is given up than usual the limit is too high in any case.

Steps are small beside a large limit. Where all places are taken and yet nothing takes longer, it
leaps (`broker.core.health.leaps`), so that whoever was held back is not so for long.

What is usual is learned where there is little to do, and is not forgotten where there is much: else
a queue that stands would come to be taken for usual. So a limit is lowered to FEW for a moment now
and then, as BBR drains its queue to see the round trip alone (Cardwell et al., 2016).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from broker.core.columns import Numbers
from broker.core.health.alone import Alone
from broker.core.health.leaps import Leaps
from broker.core.health.usual import FEW, GROUP, Kinds

TOLERANCE: Final = 4.0
"""So many times as long is no sign of a queue: servers that batch slow down as they fill."""
LATER: Final = 2.3
"""Only where what ends takes so many times as long does it count what is given up: times of one
kind differ by nature, and callers in their patience."""
MANY_GIVEN_UP: Final = 0.2
"""Where so many more than usual are given up it is no longer a few hasty ones among others: then
they end the waiting of what ends too, which is late sooner."""
SMOOTHING: Final = 0.3
WINDOW_S: Final = 0.5
SAMPLES_MIN: Final = 8
SLOW_MIN: Final = 3
"""Windows in a row that are slow before a limit that is far off is brought near."""
LEAST: Final = 1.0
"""The limit goes no lower, so that there is always somebody to learn from."""
REFUSED_FACTOR: Final = 0.7
RELAX_AFTER_S: Final = 2.0
"""Where too few have ended for so long, the limit rises by itself: others may have taken all."""
_LATER: Final = math.log(LATER)
_LONG_AGO: Final = -math.inf  # one for all: each limit would make its own
HARMLESS_MS: Final = 25.0
"""Times up to this are alike: a call that is let in though others take a tenth of a second waits
less than one that is refused, which is told to come again in a second. Of a fast server that
shares its processor with others, or whose caller does, times are ten times as long now and then,
and with nobody else under way as well."""
_LOG_HARMLESS: Final = math.log(HARMLESS_MS)
_LONGER_MAX: Final = math.log(16.0)
"""One that took longer than so many times the usual counts no more than that."""
_CUT_STEP: Final = 0.02
"""Of the way that the usual share of what is given up goes with each that ends."""
_KINDS_MAX: Final = 256  # sizes go by powers of two of two counts, so there are hardly more


def kind_of(size_in: int, size_out: int) -> int:
    """Return a number for all things of about this size: each count to a power of two."""
    return (size_in >> 6).bit_length() << 6 | size_out.bit_length()


def kinds_of(size_in: Numbers, size_out: Numbers) -> Numbers:
    """The same of many; sizes must stay below 2^53."""
    kinds: Numbers = np.frexp(size_in >> 6)[1].astype(np.int64) << 6 | np.frexp(size_out)[1]
    return kinds


def is_of(kind: int, size_in: int) -> bool:
    """True for the kinds of about this size in, whatever their size out."""
    return kind >> 6 == (size_in >> 6).bit_length()


_UNTIL_FELT: Final = Alone(math.inf)
"""Of limits that were never felt, all the same: nothing is ever counted there."""


class Gradient(Kinds):
    """The limit of one thing, from `least` to `most`. Times are seconds of one clock."""

    __slots__ = (
        "_alone",
        "_begun_s",
        "_busiest",
        "_count",
        "_cut_share",
        "_cut_sum",
        "_cuts",
        "_due_s",
        "_lasting",
        "_later",
        "_leaps",
        "_least",
        "_refused_until_s",
        "_slow",
        "_sum",
        "_turned_s",
        "limit",
        "most",
    )

    def __init__(self, most: float, now_s: float, least: float = LEAST) -> None:
        super().__init__()
        self.most = most
        self._least = least
        self.limit = most
        self._sum = self._cut_sum = 0.0
        self._count = self._cuts = self._busiest = 0
        self._later = 0
        """Windows in a row in which what ended took longer."""
        self._slow = 0
        """Windows in a row in which things took long."""
        self._cut_share = 0.0
        """Of things that end where there is little to do, those that were late and given up."""
        self._due_s = now_s + WINDOW_S
        self._turned_s = self._begun_s = now_s
        self._refused_until_s = _LONG_AGO
        self._leaps: Leaps | None = None
        self._lasting = most
        """The limit to return to, while it is lowered for a moment."""
        self._alone = _UNTIL_FELT

    def allow(self, most: float) -> None:
        """Be told the most that may ever be under way, which changes now and then."""
        if most != self.most:
            unlimited = self.limit >= self.most
            self.most = most
            self.limit = most if unlimited else min(self.limit, most)

    def tell(self, kind: int, took_ms: float, under_way: int, now_s: float) -> bool:
        """Be told that one of a kind has ended with so many under way, itself counted; True when
        the limit has changed."""
        if self._alone.now:
            return self._tell_alone(kind, took_ms, under_way, now_s)
        self._take_in((kind,), (took_ms,), (under_way,))
        return self._turn_if_due(now_s, took_ms)

    def tell_many(
        self,
        kinds: Sequence[int],
        took_ms: Sequence[float],
        under_way: Sequence[int],
        at_s: Sequence[float],
    ) -> bool:
        """The same of many, one after the other."""
        changed, place, size = False, 0, len(kinds)
        while place < size:
            # Until a window is over nothing turns.
            alone = self._alone.now
            stop = place if alone else bisect_left(at_s, self._due_s, place)
            if stop > place:
                part = slice(place, stop)
                self._take_in(kinds[part], took_ms[part], under_way[part])
                place = stop
            else:
                changed |= self.tell(kinds[place], took_ms[place], under_way[place], at_s[place])
                place += 1
        return changed

    def _take_in(
        self, kinds: Sequence[int], took_ms: Sequence[float], under_way: Sequence[int]
    ) -> None:
        """Count them for their window, and for what is usual."""
        calm_most = self._calm_most()
        self._busiest = max(self._busiest, *under_way)
        for kind, took, beside in zip(kinds, took_ms, under_way, strict=True):
            usual = self._first if kind == self._kind else self._known(kind)
            if usual is None and (usual := self._begun(kind, _KINDS_MAX)) is None:
                continue
            log_ms = math.log(took) if took > HARMLESS_MS else _LOG_HARMLESS
            if usual.known:
                longer = log_ms - usual.mean
                self._sum += min(_LONGER_MAX, longer)
                self._count += 1
            if beside > calm_most:
                usual.calm = False
            elif self._cut_share:
                self._cut_share *= 1.0 - _CUT_STEP
            usual.sum += log_ms
            usual.count += 1
            if usual.count >= GROUP:
                usual.learn()

    def cut(
        self, of: Callable[[int], bool], lasted_ms: float, under_way: int, now_s: float
    ) -> bool:
        """Be told that one, of a kind that is one of these, was given up after so long, itself
        still counted among so many; True when the limit has changed.

        Where that is longer than all of its kinds usually take, it may be a sign of a queue, and
        counts if what ends by itself takes longer too; but for those who give up as often where
        there is little to do, of their haste.
        """
        usual = [each.mean for kind, each in self._every() if each.known and of(kind)]
        beyond = math.log(max(HARMLESS_MS, lasted_ms)) - max(usual, default=math.inf)
        if beyond <= 0.0:
            return False
        alone = self._alone.now
        if alone:
            hasty = self._alone.counts(lasted_ms, under_way, now_s)
        else:  # what ends must not be late either, or it is a server that is busy with the past
            hasty = under_way <= self._calm_most() and self._sum < 0.5 * beyond * self._count
        if hasty:
            self._cut_share += _CUT_STEP * (1.0 - self._cut_share)
        if alone:
            return self._go_on(now_s)
        self._cut_sum += (1.0 - self._cut_share) * min(_LONGER_MAX, beyond)
        self._cuts += 1
        self._busiest = max(self._busiest, under_way)
        return self._turn_if_due(now_s, lasted_ms)

    def refused(self, under_way: int, now_s: float) -> bool:
        """Be told that the server itself had no room with so many under way; True when the limit
        has changed. Of those that are refused together, the first alone counts."""
        if now_s < self._refused_until_s:
            return False
        self._refused_until_s = now_s + WINDOW_S
        self._turned_s = now_s
        self._leaping().meet_trouble(under_way)
        before = self.limit
        self.limit = max(min(before, REFUSED_FACTOR * under_way), self._least)
        return self.limit != before

    def relax(self, now_s: float) -> bool:
        """Be told that time passes; True when the limit has changed."""
        if self._alone.now:
            return self._go_on(now_s)
        if self.limit >= self.most or now_s < self._turned_s + RELAX_AFTER_S:
            return False
        self._turned_s = now_s
        self.limit = min(self.limit + math.sqrt(self.limit), self.most)
        return True

    def _calm_most(self) -> float:
        """With no more than so many under way there is little to do."""
        if self.limit <= FEW + 1:
            return math.inf
        # Far below a limit that is but declared, or that slow answers have just begun to lower,
        # there may be a queue already; one that was learned is to be believed.
        is_learned = not self._slow and self.limit < self.most
        return max(FEW, self.limit / 4) if is_learned else FEW

    def _turn_if_due(self, now_s: float, took_ms: float) -> bool:
        if now_s < self._due_s or self._count + self._cuts < min(SAMPLES_MIN, self.limit):
            return False
        return self._turn(now_s, took_ms / 1_000)

    def _turn(self, now_s: float, took_s: float) -> bool:
        given_up = self._given_up()
        longer, lost = self._judge(given_up)
        before, busiest = self.limit, self._busiest
        if given_up:
            self._leaping().meet_trouble(busiest)
        self._forget_window()
        self._due_s = now_s + WINDOW_S
        self._turned_s = now_s
        gradient = min(max(TOLERANCE / longer, 0.5), 1.0)
        self._slow = self._slow + 1 if gradient < 1.0 or lost else 0
        if not self._slow and 2 * busiest < before:
            return False  # far from the limit: nothing was learned of it
        # One far above what is under way would take long to come down; but not for one slow moment.
        begun = min(before, 2.0 * busiest) if self._slow >= SLOW_MIN else before
        wanted = begun * gradient + math.sqrt(begun)
        found = (begun + SMOOTHING * (wanted - begun)) * (1.0 - min(lost, 0.5))
        if not self._slow and not given_up and busiest + 1 > before:
            found = max(found, self._leaping().grow(before, busiest, longer, now_s, took_s))
        self.limit = min(max(found, self._least), self.most)
        felt = FEW < self.limit < self.most and busiest + 1 > before
        if felt:
            if self._alone is _UNTIL_FELT:
                self._alone = Alone(self._begun_s)
            if self._alone.is_due(now_s):
                self._begin_alone(now_s, took_s)
        return self.limit != before

    def _leaping(self) -> Leaps:
        if self._leaps is None:
            self._leaps = Leaps()
        return self._leaps

    def _forget_window(self) -> None:
        self._sum = self._cut_sum = 0.0
        self._count = self._cuts = self._busiest = 0

    def _judge(self, given_up: float) -> tuple[float, float]:
        """Return how many times as long as usual things took, and the share lost in vain."""
        log_longer = self._sum / self._count if self._count else math.inf
        self._later = self._later + 1 if log_longer > self._log_later(given_up) else 0
        if not self._cuts or (self._count and self._later < SLOW_MIN):
            return math.exp(log_longer), 0.0
        return math.exp((self._sum + self._cut_sum) / (self._count + self._cuts)), given_up

    def _log_later(self, given_up: float) -> float:
        """What ends has waited as well where it took so many times as long: half as many as what
        was given up (in logarithms), for impatient callers end all waiting sooner. Were there no
        queue, it would take no longer than usual."""
        if given_up < MANY_GIVEN_UP:
            return _LATER
        return min(_LATER, 0.5 * self._cut_sum / self._cuts / max(_CUT_STEP, 1.0 - self._cut_share))

    def _given_up(self) -> float:
        """Return the share that was given up beyond the usual; 0 where that may be chance."""
        if not self._cuts:
            return 0.0
        usual, count = self._cut_share, self._count + self._cuts
        # Two standard deviations: of so few, and of such steps.
        chance = 2.0 * math.sqrt(usual * (1.0 - usual) * (1.0 / count + _CUT_STEP / 2.0))
        return max(0.0, self._cuts / count - usual - chance)

    def _begin_alone(self, now_s: float, took_s: float) -> None:
        """Lower the limit, to learn how long things take with little to do."""
        self._alone.begin(now_s, took_s)
        self._lasting, self.limit = self.limit, max(FEW, self._least)

    def _tell_alone(self, kind: int, took_ms: float, under_way: int, now_s: float) -> bool:
        usual = self._known(kind) or self._begun(kind, _KINDS_MAX)
        if usual is None:
            return False
        if self._alone.counts(took_ms, under_way, now_s):
            usual.tell_alone(math.log(max(HARMLESS_MS, took_ms)))
            self._cut_share *= 1.0 - _CUT_STEP
        return self._go_on(now_s)

    def _go_on(self, now_s: float) -> bool:
        """Return to the limit once the time for learning is over."""
        if not self._alone.ends(now_s):
            return False
        for _, usual in self._every():
            usual.learn_alone()
        self.limit = min(self._lasting, self.most)
        self._forget_window()
        self._due_s = self._turned_s = now_s
        return True
