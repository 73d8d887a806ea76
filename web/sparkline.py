"""Draws a price over a window of time as the path of a small SVG, in steps as prices move."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 120.0
HEIGHT = 28.0
_MARGIN = 3.0
_SPAN_MIN = 0.02
"""Of the price: a smaller movement is not blown up to the full height."""

Point = tuple[float, float]
"""(seconds, price)"""


def path(points: Sequence[Point], since_s: float, until_s: float) -> str:
    """Return the `d` of a path from `since_s` to `until_s`; "" when there is no point.

    `points` are in order of time; the first may lie before the window.
    """
    if not points or until_s <= since_s:
        return ""
    prices = [price for _, price in points]
    low, high = min(prices), max(prices)
    middle, span = (low + high) / 2, max(high - low, _SPAN_MIN * high)
    drawn: list[str] = []
    for at_s, price in points:
        share = 0.5 + ((price - middle) / span if span else 0.0)
        x = min(max((at_s - since_s) / (until_s - since_s), 0.0), 1.0) * WIDTH
        y = HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN)
        drawn.append(f"H{x:.1f}V{y:.1f}" if drawn else f"M{x:.1f} {y:.1f}")
    return "".join([*drawn, f"H{WIDTH:.0f}"])


def under(path: str) -> str:
    """Return the `d` of what lies below a path; console.js makes the same."""
    return f"{path}V{HEIGHT:.0f}H{path[1:].split()[0]}Z" if path else ""


def change(points: Sequence[Point], since_s: float) -> float:
    """Return how much the last price is above that at `since_s`, as a share of it.

    0 where none was in force by then: the first price since is of no certain moment, for `points`
    tell only where prices stood after each step, and steps begin elsewhere at the next look.
    """
    if not points or points[0][0] > since_s or not points[0][1]:
        return 0.0
    return points[-1][1] / points[0][1] - 1
