"""Reads the Prometheus text format, as far as gauges go.

A sample is taken by its exact name, so a gauge whose name ends in `_count` is as good as any
(Triton has one), and names with colons (vLLM, SGLang, llama.cpp) are nothing special.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_SAMPLE = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"  # name
    r"(?:\s*\{((?:[^\"}]|\"(?:\\.|[^\"\\])*\")*)\})?"  # labels
    r"\s+(\S+)"  # value; a timestamp or an exemplar may follow
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:\\.|[^"\\])*)"')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Series:
    """One series: its labels and its value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric to look for: its name, and labels its series must carry."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


Scrape = dict[str, list[Series]]


def parse(text: str) -> Scrape:
    """All series by name; lines that are no samples are passed over."""
    scrape: Scrape = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        labels = {name: _unescaped(raw) for name, raw in _LABEL.findall(match[2] or "")}
        scrape.setdefault(match[1], []).append(Series(labels, value))
    return scrape


def _unescaped(raw: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], raw)


def values(scrape: Scrape, metric: Metric) -> list[float]:
    """The finite values of the series of `metric`."""
    return [
        series.value
        for series in scrape.get(metric.name, [])
        if math.isfinite(series.value) and metric.labels.items() <= series.labels.items()
    ]
