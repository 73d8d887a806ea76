"""How long earnings wait before they can be paid out: the better a provider is known, the less."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta


class Trust(enum.StrEnum):
    """How well a provider is known."""

    NEW = "new"
    KNOWN = "known"
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class MaturityTerms:
    """Days that earnings wait at each stage of trust, and what it takes to reach it."""

    days_new: int = 14
    days_known: int = 7
    days_trusted: int = 2
    known_after_days: int = 30
    known_after_calls: int = 1_000
    trusted_after_days: int = 180
    trusted_after_calls: int = 10_000
    blemish_days: int = 90
    """A lost dispute makes a provider new again for so long."""


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of a provider.

    `calls` are those that it was paid for, counted no further than the terms ask; `disputes_lost`
    those of the last `blemish_days`; `days_set` is what an operator has said instead of it all.
    """

    age_days: int
    calls: int
    disputes_lost: int
    days_set: int | None = None


def trust(track: Track, terms: MaturityTerms) -> Trust:
    """Return the stage that a provider has reached."""
    if track.disputes_lost:
        return Trust.NEW
    if track.age_days >= terms.trusted_after_days and track.calls >= terms.trusted_after_calls:
        return Trust.TRUSTED
    if track.age_days >= terms.known_after_days and track.calls >= terms.known_after_calls:
        return Trust.KNOWN
    return Trust.NEW


def delay(track: Track, terms: MaturityTerms) -> timedelta:
    """Return how long earnings wait."""
    if track.days_set is not None:
        return timedelta(days=track.days_set)
    days = {
        Trust.NEW: terms.days_new,
        Trust.KNOWN: terms.days_known,
        Trust.TRUSTED: terms.days_trusted,
    }
    return timedelta(days=days[trust(track, terms)])
