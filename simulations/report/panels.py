"""Draws plots that are no lines: means with their intervals, shares as bars, heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from simulations.measured.statistics import Interval
from simulations.report.scales import MINUS, TIMES, Scale, number, spanning

ROW = 26.0
NAMES = 150.0
CELL_W, CELL_H = 58.0, 34.0
WIDE = 9
"""Maps of no more columns have room to be drawn larger."""


@dataclass(frozen=True, slots=True)
class Row:
    """A mean with its interval, and in whose colour."""

    label: str
    css: str
    interval: Interval


def intervals_plot(rows: Sequence[Row], unit: str, width: float) -> str:
    """Means as dots and intervals as whiskers, around an upright line at zero where it is near."""
    told = [each for row in rows for each in _bounds(row.interval)]
    low, high = spanning([*told, 0.0])
    across = Scale(low, high, NAMES, width - 86.0)
    height = ROW * len(rows) + 34.0
    parts = []
    for tick in across.ticks(6):
        x, css = across(tick), "zero" if tick == 0.0 else "grid"
        parts.append(f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 26}"/>')
        parts.append(_text(x, height - 10, number(tick, unit), "tick", "middle"))
    for place, row in enumerate(rows):
        parts.append(_whisker(row, across, 18.0 + ROW * place, unit, width))
    return _svg(width, height, parts)


def _bounds(interval: Interval) -> list[float]:
    return [each for each in (interval.mean, interval.low, interval.high) if math.isfinite(each)]


def _whisker(row: Row, across: Scale, y: float, unit: str, width: float) -> str:
    parts = [_text(NAMES - 12, y + 4, row.label, f"name {row.css}", "end")]
    mean, told = row.interval.mean, _bounds(row.interval)
    if told:
        x1, x2 = across(min(told)), across(max(told))
        parts.append(
            f'<line class="whisker {row.css}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<circle class="dot {row.css}" cx="{across(mean):.1f}" cy="{y}" r="4.5"/>')
    parts.append(_text(width, y + 4, number(mean, unit), "figure", "end"))
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Stack:
    """A bar of shares that add up to 1: (name, colour, share) each."""

    label: str
    parts: Sequence[tuple[str, str, float]]


def stacks_plot(stacks: Sequence[Stack], width: float = 640.0) -> str:
    """Bars of one length, each cut into its shares."""
    across = Scale(0.0, 1.0, NAMES, width - 10.0)
    height, parts = ROW * len(stacks) + 30.0, []
    for place, stack in enumerate(stacks):
        y, begun = 4.0 + ROW * place, 0.0
        parts.append(_text(NAMES - 12, y + 15, stack.label, "name", "end"))
        for name, css, share in stack.parts:
            x, end = across(begun), across(min(begun + share, 1.0))
            told = escape(f"{stack.label}: {name} {number(share, '%')}")
            parts.append(
                f'<rect class="part {css}" x="{x:.2f}" y="{y}" width="{max(end - x, 0.0):.2f}"'
                f' height="{ROW - 6}"><title>{told}</title></rect>'
            )
            begun += share
    parts += [
        _text(across(tick), height - 8, number(tick, "%"), "tick", "middle")
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    return _svg(width, height, parts)


@dataclass(frozen=True, slots=True)
class Heat:
    """A table of numbers over two axes; NaN is a cell that is not there yet."""

    x_name: str
    x: Sequence[str]
    y_name: str
    y: Sequence[str]
    cells: Sequence[Sequence[float]]
    """Rows by y."""
    unit: str
    span: tuple[float, float]
    """Of all maps that share their colours."""
    best_is_high: bool | None = None
    """None: neither end is better, and no cell is marked."""


def heat_map(heat: Heat) -> str:
    """Cells coloured by their value, the number within, the best one framed."""
    left = 26.0 + 7.0 * max(map(len, heat.y), default=0) + 14.0
    width = left + CELL_W * len(heat.x) + 12.0
    height = CELL_H * len(heat.y) + 58.0
    parts = [
        _text(4, 14, heat.y_name, "tick"),
        _text(width - 8, height - 6, heat.x_name, "tick", "end"),
    ]
    best = _best(heat)
    for row, (label, values) in enumerate(zip(heat.y, heat.cells, strict=True)):
        y = 24.0 + CELL_H * row
        parts.append(_text(left - 8, y + CELL_H / 2 + 4, label, "tick", "end"))
        for column, value in enumerate(values):
            told = escape(
                f"{heat.x_name} {heat.x[column]}, {heat.y_name} {label}: {_told(value, heat)}"
            )
            place = (left + CELL_W * column, y)
            parts.append(_cell(place, value, heat, told, framed=(row, column) == best))
    for column, label in enumerate(heat.x):
        x = left + CELL_W * (column + 0.5)
        parts.append(_text(x, 24.0 + CELL_H * len(heat.y) + 15, label, "tick", "middle"))
    return _svg(width, height, parts, drawn=1.5 if len(heat.x) <= WIDE else 1.0)


def _best(heat: Heat) -> tuple[int, int] | None:
    known = [
        (value, (row, column))
        for row, values in enumerate(heat.cells)
        for column, value in enumerate(values)
        if math.isfinite(value)
    ]
    if heat.best_is_high is None or len(known) < 2:
        return None
    # Of those alike the first, as the words above the maps have it.
    return (max if heat.best_is_high else min)(known, key=lambda each: each[0])[1]


def _told(value: float, heat: Heat) -> str:
    """A number with as many decimals as all on maps of these colours, the largest in three digits;
    of very small and of large ones that would be too many."""
    largest = max(map(abs, heat.span)) * (100.0 if heat.unit.startswith("%") else 1.0)
    if not math.isfinite(value) or not 1e-2 <= largest < 1e4:
        return number(value, heat.unit)
    decimals = max(2 - math.floor(math.log10(largest)), 0)
    mark = "%" if heat.unit.startswith("%") else TIMES if heat.unit.startswith("x") else ""
    told = f"{100.0 * value if mark == '%' else value:,.{decimals}f}{mark}"
    return told.replace("-", MINUS)


def _cell(place: tuple[float, float], value: float, heat: Heat, told: str, *, framed: bool) -> str:
    x, y = place
    box = f'x="{x:.1f}" y="{y:.1f}" width="{CELL_W - 2}" height="{CELL_H - 2}" rx="3"'
    if not math.isfinite(value):
        return f'<rect class="missing" {box}><title>{told}</title></rect>'
    low, high = heat.span
    share = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5
    css = "on-dark" if share > 0.55 else "on-light"
    frame = ' class="best"' if framed else ""
    words = _told(value, heat)
    return f'<rect {box} fill="{shade(share)}"{frame}><title>{told}</title></rect>' + _text(
        x + CELL_W / 2 - 1, y + CELL_H / 2 + 4, words, f"cell {css}", "middle"
    )


_SHADES = ((247, 244, 236), (188, 214, 200), (94, 163, 160), (35, 102, 122), (18, 46, 76))
"""From paper to deep blue-green, even in lightness, and told apart without seeing red or green."""


def shade(share: float) -> str:
    """The colour of a share from 0 to 1."""
    place = share * (len(_SHADES) - 1)
    index = min(int(place), len(_SHADES) - 2)
    part = place - index
    mixed = (
        round(low + part * (high - low))
        for low, high in zip(_SHADES[index], _SHADES[index + 1], strict=True)
    )
    return "#" + "".join(f"{each:02x}" for each in mixed)


def _text(x: float, y: float, words: str, css: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(words)}</text>'
    )


def _svg(width: float, height: float, parts: Sequence[str], drawn: float = 1.0) -> str:
    style = f"max-width:{drawn * width:g}px"
    return (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" style="{style}" role="img">'
        f"{''.join(parts)}</svg>"
    )
