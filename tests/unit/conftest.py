"""Hypothesis with fixed examples and no deadline: a slow machine is not a failing test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
