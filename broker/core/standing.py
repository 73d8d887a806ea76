"""How a few endpoints stand at the moment, kept up with what the pulse's journal says has changed.

Between two decisions calls come to, and end at, a few of them: only those are looked at anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.core.health.journal import Journal
from broker.core.health.pulse import Pulse


class Standing:
    """Columns are aligned with the endpoints; they change in place, so who keeps them copies."""

    __slots__ = (
        "_capacity",
        "_deployments",
        "_era",
        "_journal",
        "_numbers",
        "_on_server",
        "_place_of",
        "_read",
        "first_ms",
        "free",
        "load",
        "room",
        "token_ms",
    )

    def __init__(
        self, numbers: Sequence[int], deployments: Sequence[int], capacity: Sequence[float]
    ) -> None:
        none = [0.0] * len(numbers)
        self._numbers, self._deployments, self._capacity = numbers, deployments, capacity
        self._place_of = {number: place for place, number in enumerate(numbers)}
        self._on_server: dict[int, list[int]] = {}
        for place, deployment in enumerate(deployments):
            self._on_server.setdefault(deployment, []).append(place)
        self._journal: Journal | None = None
        self._era = 0
        self._read = (0, 0)
        """As far as the two parts of the journal have been read in that era."""
        self.load = none.copy()
        """Calls in flight over capacity."""
        self.first_ms = none.copy()
        """Expected until the first token: longer on a server that has more than it can do."""
        self.token_ms = none.copy()
        self.room = none.copy()
        """The part of a score that goes by availability, as in `scoring`."""
        self.free = none.copy()
        """Free capacity, never quite zero."""

    def follow(self, pulse: Pulse) -> None:
        """Look at whoever has changed since this was asked before."""
        journal, (moved, turned) = pulse.journal, self._read
        self._read = (len(journal.moved), len(journal.turned))
        servers = journal.moved[moved:]
        if (
            journal is not self._journal
            or journal.era != self._era
            or len(servers) > len(self._numbers)
        ):
            self._journal, self._era = journal, journal.era
            self._look(pulse, range(len(self._numbers)))
            return
        on_server, place_of = self._on_server, self._place_of
        changed = [place for each in servers if each in on_server for place in on_server[each]]
        if self._read[1] > turned:
            changed += [place_of[each] for each in journal.turned[turned:] if each in place_of]
        self._look(pulse, changed)

    def _look(self, pulse: Pulse, places: Iterable[int]) -> None:
        numbers, deployments, capacities = self._numbers, self._deployments, self._capacity
        in_flight, others = pulse.in_flight_at, pulse.others_in_flight_at
        for place in places:
            number, server, capacity = numbers[place], deployments[place], capacities[place]
            self.load[place] = load = (in_flight[server] + others[server]) / capacity
            first_ms = pulse.ttft_ms_at[number]
            self.first_ms[place] = first_ms * load if load > 1.0 else first_ms
            self.token_ms[place] = pulse.tpot_ms_at[number]
            room = 1.0 if load < 0.25 else 1.25 - load if load <= 1.2 else 0.05
            self.room[place] = room * pulse.availability_at[number]
            self.free[place] = (free if (free := 1.0 - load) > 0.01 else 0.01) * capacity
