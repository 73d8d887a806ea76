"""What has changed in the pulse, for those who keep up with it rather than look at all anew."""

from __future__ import annotations

JOURNAL_MAX = 20_000
"""So many changes are remembered."""


class Journal:
    """Changes in the order in which they came; when there are too many another era begins."""

    __slots__ = ("era", "moved", "turned")

    def __init__(self) -> None:
        self.era = 0
        self.moved: list[int] = []
        """Deployments that calls have come to or gone from in this era, each as often."""
        self.turned: list[int] = []
        """Endpoints of which something else has changed in this era."""

    def turn_page(self) -> None:
        """Begin another era where this one is too long."""
        if len(self.moved) + len(self.turned) > JOURNAL_MAX:
            self.begin_era()

    def begin_era(self) -> None:
        """Forget what has changed: whoever kept up looks at all anew."""
        self.era += 1
        self.moved.clear()
        self.turned.clear()
