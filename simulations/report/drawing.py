"""Draws plots as SVG: lines over time, intervals, stacked bars, heat maps.

Colours are classes that the page's style sheet defines, so a plot is dark where the page is. The
data of lines stand in the plot too, for the page's script to read off under the pointer; without
the script nothing is missing but that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape

from simulations.report.scales import (
    Scale,
    Written,
    clock,
    clock_unit,
    number,
    spanning,
    time_ticks,
)

LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 30.0
_LABEL_GAP = 13.0
_LABEL_ABOVE = 4.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line; NaN breaks it. `css` is its colour, `band` the bounds around it."""

    label: str
    css: str
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How a plot looks. `y_span` overrules what the data say; `room` is for labels at the right."""

    width: float = 640.0
    height: float = 260.0
    title: str = ""
    y_unit: str = ""
    is_log: bool = False
    zero: bool = False
    room: float = 96.0
    y_span: tuple[float, float] | None = None
    x_times: bool = True
    x_title: str = ""
    x_log: bool = False
    marks: Sequence[float] = ()
    """Upright lines, such as shocks."""
    before: float | None = None
    """What lies before this is shaded: the warm-up."""
    levels: Sequence[tuple[float, str]] = field(default=())
    """Level lines with names, such as a target."""


def lines_plot(x: Sequence[float], lines: Sequence[Line], look: Look) -> str:
    """Lines over x, each with its name at its end."""
    told = [each for line in lines for each in (*line.y, *_bounds(line))]
    told += [level for level, _ in look.levels]
    low, high = look.y_span or spanning(told, is_log=look.is_log, zero=look.zero)
    right = look.width - RIGHT - look.room
    across = Scale(x[0], x[-1], LEFT, right, look.x_log)
    up = Scale(low, high, look.height - BOTTOM, TOP, look.is_log)
    parts = [
        _shade(look, across, up),
        _grid(look, up, right),
        _times(look, across) if look.x_times else _values(look, across),
        *(_mark(at, across, look) for at in look.marks if x[0] <= at <= x[-1]),
        *(_segment((LEFT, right), (up(level), up(level)), "level") for level, _ in look.levels),
        *(_band(line, x, across, up) for line in lines if line.band),
        *(_path(line, x, across, up) for line in lines),
        # Over the lines, which would cross it out.
        *(_text(right - 4, up(at) - 4, name, "tick over", "end") for at, name in look.levels),
        _names(lines, up, right),
    ]
    data = {
        "x": [round(each, 3) for each in x],
        "lines": [[line.label, line.css, [_short(each) for each in line.y]] for line in lines],
        "box": [LEFT, right, TOP, look.height - BOTTOM],
        "unit": look.y_unit,
        "times": look.x_times,
        "x_title": look.x_title,
        "x_log": look.x_log,
    }
    return _svg(look, parts, data)


def _bounds(line: Line) -> Sequence[float]:
    return (*line.band[0], *line.band[1]) if line.band else ()


def _svg(look: Look, parts: Sequence[str], data: object = None) -> str:
    told = f" data-plot='{escape(json.dumps(data), quote=True)}'" if data else ""
    title = f"<title>{escape(look.title)}</title>" if look.title else ""
    size = f"{look.width:g} {look.height:g}"
    return (
        f'<svg class="plot" viewBox="0 0 {size}" style="max-width:{look.width:g}px" role="img"'
        f"{told}>{title}{''.join(parts)}</svg>"
    )


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _text(x: float, y: float, words: str, css: str = "", anchor: str = "start") -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def _segment(x: tuple[float, float], y: tuple[float, float], css: str) -> str:
    return f'<line class="{css}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'


def _shade(look: Look, across: Scale, up: Scale) -> str:
    if look.before is None or look.before <= across.low:
        return ""
    width = across(min(look.before, across.high)) - across.begin
    return (
        f'<rect class="warm-up" x="{across.begin:.1f}" y="{up.end:.1f}" width="{width:.1f}"'
        f' height="{up.begin - up.end:.1f}"><title>not counted</title></rect>'
    )


def _grid(look: Look, up: Scale, right: float) -> str:
    parts = []
    for tick in up.ticks(max(round(look.height / 55), 3)):
        y = up(tick)
        parts.append(_segment((LEFT, right), (y, y), "grid"))
        parts.append(_text(LEFT - 7, y + 3.5, number(tick, look.y_unit), "tick", "end"))
    return "".join(parts)


def _times(look: Look, across: Scale) -> str:
    ticks = time_ticks(across.low, across.high, max(round((across.end - across.begin) / 80), 3))
    title = look.x_title or clock_unit(across.high)
    return _below(replace(look, x_title=title), across, ticks, lambda at: clock(at, across.high))


def _values(look: Look, across: Scale) -> str:
    return _below(look, across, across.ticks(), lambda value: f"{value:g}")


def _below(look: Look, across: Scale, ticks: Sequence[float], written: Written) -> str:
    base = look.height - BOTTOM
    parts = [_segment((across.begin, across.end), (base, base), "axis")]
    parts += [_text(across(each), base + 16, written(each), "tick", "middle") for each in ticks]
    if look.x_title:
        parts.append(_text(across.end, base + 28, look.x_title, "tick", "end"))
    return "".join(parts)


def _mark(at: float, across: Scale, look: Look) -> str:
    return _segment((across(at), across(at)), (TOP, look.height - BOTTOM), "mark")


def _path(line: Line, x: Sequence[float], across: Scale, up: Scale) -> str:
    moves, pen = [], "M"
    for at, value in zip(x, line.y, strict=True):
        if not math.isfinite(value):
            pen = "M"
            continue
        moves.append(f"{pen}{across(at):.1f} {_held(up, value):.1f}")
        pen = "L"
    return f'<path class="line {line.css}" d="{"".join(moves)}"/>'


def _band(line: Line, x: Sequence[float], across: Scale, up: Scale) -> str:
    assert line.band is not None
    rows = [row for row in zip(x, *line.band, strict=True) if all(map(math.isfinite, row))]
    if len(rows) < 2:
        return ""
    there = [f"{across(at):.1f} {_held(up, low):.1f}" for at, low, _ in rows]
    back = [f"{across(at):.1f} {_held(up, high):.1f}" for at, _, high in reversed(rows)]
    return f'<path class="band {line.css}" d="M{"L".join((*there, *back))}Z"/>'


def _held(up: Scale, value: float) -> float:
    """The place of a value within the plot, at its edge where it lies beyond."""
    return min(max(up(value), up.end), up.begin)


def _names(lines: Sequence[Line], up: Scale, right: float) -> str:
    """The names of lines at their ends, moved apart where they would overlap."""
    ends = []
    for line in lines:
        known = [each for each in line.y if math.isfinite(each)]
        if known and line.label:
            ends.append((_held(up, known[-1]), line))
    ends.sort(key=lambda each: each[0])
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + _LABEL_GAP) if places else y)
    # What that pushed below the plot is pushed back up, and those above it with it.
    lowest = up.begin - _LABEL_ABOVE
    for place in range(len(places) - 1, -1, -1):
        places[place] = min(places[place], lowest)
        lowest = places[place] - _LABEL_GAP
    return "".join(
        _text(right + 6, at + 4, line.label, f"name {line.css}")
        for at, (_, line) in zip(places, ends, strict=True)
    )
