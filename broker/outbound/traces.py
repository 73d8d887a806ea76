"""Sends spans of a share of the calls to an OpenTelemetry collector.

Where to, its own variables say (`OTEL_EXPORTER_OTLP_ENDPOINT` and their like). Its packages,
`opentelemetry-sdk` and `opentelemetry-exporter-otlp-proto-http`, are asked for only where traces
are turned on.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

from broker.errors import SettingInvalid

SERVICE: Final = "model-broker"
_NANOS: Final = 1_000_000_000


class Told(Protocol):
    """A span as it is told; times are seconds of the monotonic clock."""

    @property
    def trace_id(self) -> int: ...
    @property
    def span_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def started_s(self) -> float: ...
    @property
    def ended_s(self) -> float: ...
    @property
    def attributes(self) -> Mapping[str, str | int | float | bool]: ...
    @property
    def error(self) -> str | None: ...


class _Given:
    """The ids of the span that begins next: providers have been told them already."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        return False


class _Telling:
    """An exporter that tells what it has sent; `exporter` is a SpanExporter of the SDK."""

    def __init__(self, exporter: Any, sent: Callable[[], None]) -> None:
        self._exporter = exporter
        self._sent = sent

    def export(self, spans: Sequence[Any]) -> Any:
        result = self._exporter.export(spans)
        if result.name == "SUCCESS":
            self._sent()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


class Traces:
    """Draws whose calls are told, and tells them; `provider` is a TracerProvider of the SDK."""

    def __init__(self, provider: Any, share: float, chance: Callable[[], float]) -> None:
        """`chance` draws from 0 to 1."""
        self._provider = provider
        self._share = share
        self._chance = chance
        self._api = importlib.import_module("opentelemetry.trace")
        self._tracer = provider.get_tracer(SERVICE)
        self._tracer.id_generator = self._given = _Given()

    def sampled(self) -> bool:
        """Draw whether a call is told."""
        return self._chance() < self._share

    def tell(self, whole: Told, parts: Sequence[Told], parent_id: int | None) -> None:
        """Tell a call that has ended, and its attempts; `parent_id` is of its caller's span."""
        kind = self._api.SpanKind
        shift_ns = time.time_ns() - int(time.monotonic() * _NANOS)
        beyond = None if parent_id is None else self._beyond(whole.trace_id, parent_id)
        root = self._begin(whole, kind.SERVER, shift_ns, beyond)
        context = self._api.set_span_in_context(root)
        for part in parts:
            self._end(self._begin(part, kind.CLIENT, shift_ns, context), part, shift_ns)
        self._end(root, whole, shift_ns)

    def close(self) -> None:
        """Send what waits, and end; blocks for some seconds where nobody takes it."""
        self._provider.shutdown()

    def _beyond(self, trace_id: int, parent_id: int) -> Any:
        """Return the context of a caller's span. It counts as drawn, for its call was."""
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        context = self._api.SpanContext(trace_id, parent_id, is_remote=True, trace_flags=flags)
        return self._api.set_span_in_context(self._api.NonRecordingSpan(context))

    def _begin(self, told: Told, kind: Any, shift_ns: int, context: Any) -> Any:
        self._given.trace_id, self._given.span_id = told.trace_id, told.span_id
        return self._tracer.start_span(
            told.name,
            context=context,
            kind=kind,
            attributes=told.attributes,
            start_time=int(told.started_s * _NANOS) + shift_ns,
        )

    def _end(self, span: Any, told: Told, shift_ns: int) -> None:
        if told.error is not None:
            span.set_attribute("error.type", told.error)
            span.set_status(self._api.StatusCode.ERROR)
        span.end(end_time=int(told.ended_s * _NANOS) + shift_ns)


def _resource(resources: Any) -> Any:
    """Return who tells, as OpenTelemetry's own variables say; SERVICE where they say nothing."""
    told = resources.Resource.create({"service.version": version("model-broker")})
    if not told.attributes["service.name"].startswith("unknown_service"):
        return told
    return told.merge(resources.Resource({"service.name": SERVICE}))


def open_traces(
    share: float, chance: Callable[[], float], sent: Callable[[], None] = lambda: None
) -> Traces | None:
    """Return what sends the traces of a share of the calls; None for none. `sent` is called in a
    thread whenever some have arrived. Raises SettingInvalid where the packages are missing."""
    if not share:
        return None
    try:
        sdk = importlib.import_module("opentelemetry.sdk.trace")
        export = importlib.import_module("opentelemetry.sdk.trace.export")
        otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        resources = importlib.import_module("opentelemetry.sdk.resources")
    except ImportError:
        raise SettingInvalid(
            "BROKER_TRACES_SHARE needs the packages opentelemetry-sdk and "
            "opentelemetry-exporter-otlp-proto-http."
        ) from None
    provider = sdk.TracerProvider(resource=_resource(resources))
    exporter = _Telling(otlp.OTLPSpanExporter(), sent)
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return Traces(provider, share, chance)
