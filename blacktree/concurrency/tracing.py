"""`Tracer`: finished spans on their way to a collector, by OTLP over HTTP in a thread of its own.

Whoever adds a span waits for nothing: the queue is bounded, and what does not fit is dropped and counted. A collector
that is slow, wrong or away harms nobody. Without the extra `traces` there is no tracer.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import trio

from blacktree import __version__
from blacktree.concurrency.threads import in_loose_thread
from blacktree.config import TracesConfig
from blacktree.errors import BadRequest
from blacktree.tracecontext import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

FLUSH_SECONDS = 1.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log = structlog.get_logger()


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span that is over. `parent` empty: it has none. `error`: what went wrong, if anything."""

    name: str
    context: TraceContext
    parent: str
    start: datetime
    end: datetime
    attributes: dict[str, str | int | bool] = {}
    error: str | None = None


class Tracer:
    """Takes spans; a daemon thread brings them away. No method waits but `aclose`, and that for a second."""

    def __init__(self, exporter: "SpanExporter", resource: "Resource", environ: Mapping[str, str]) -> None:
        self._exporter = exporter
        self._resource = resource
        self._batch = _number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
        self._delay = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
        self._queue: queue.Queue[Span] = queue.Queue(_number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._reachable = True
        self.results = {"exported": 0, "failed": 0, "dropped": 0}

    def start(self) -> None:
        """From now on spans are exported."""
        self._thread.start()

    def add(self, span: Span) -> None:
        """Export this one, sooner or later or never."""
        if not span.context.sampled:
            return
        try:
            self._queue.put_nowait(span)
        except queue.Full:
            self.results["dropped"] += 1

    async def aclose(self) -> None:
        """Export what is left, for a second at most."""
        self._ending.set()
        with trio.move_on_after(FLUSH_SECONDS, shield=True):
            await in_loose_thread(self._thread.join)

    def _run(self) -> None:
        while not (self._ending.is_set() and self._queue.empty()):
            if spans := self._next():
                self._export(spans)

    def _next(self) -> list[Span]:
        """A batch, once it is full, or its first one has waited for the delay."""
        spans: list[Span] = []
        until = time.monotonic() + self._delay
        while len(spans) < self._batch and not (self._ending.is_set() and self._queue.empty()):
            try:
                spans.append(self._queue.get(timeout=min(0.1, max(0.0, until - time.monotonic())) or 0.001))
            except queue.Empty:
                if time.monotonic() >= until:
                    break
        return spans

    def _export(self, spans: list[Span]) -> None:
        why = "the collector did not take them"
        try:
            from opentelemetry.sdk.trace.export import SpanExportResult

            done = self._exporter.export([_readable(span, self._resource) for span in spans])
            reached = done is SpanExportResult.SUCCESS
        except Exception as error:  # whatever a collector or a proxy on the way answers, the daemon goes on
            reached, why = False, f"{type(error).__name__}: {error}"
        self.results["exported" if reached else "failed"] += len(spans)
        if reached != self._reachable:
            self._reachable = reached
            if reached:
                log.info("traces are exported again")
            else:
                log.warning("traces not exported", reason=why)


@asynccontextmanager
async def open_tracer(config: TracesConfig, service: str, instance: str = "") -> AsyncIterator[Tracer | None]:
    """A tracer while this lasts, or None where none is wanted.

    Raises `BadRequest` (code `traces_not_installed`) where one is wanted by name and the extra is missing.
    """
    tracer = make_tracer(config, service, instance, os.environ)
    if tracer is None:
        yield None
        return
    tracer.start()
    try:
        yield tracer
    finally:
        await tracer.aclose()


def wanted(config: TracesConfig, environ: Mapping[str, str]) -> bool:
    """What the setting says, and with `auto` the standard variables."""
    if config.export == "off" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "otlp":
        return False
    return config.export == "on" or bool(config.endpoint) or any(environ.get(name) for name in _ENDPOINTS)


def make_tracer(config: TracesConfig, service: str, instance: str, environ: Mapping[str, str]) -> Tracer | None:
    """As `open_tracer`, not started. Nothing of OpenTelemetry is imported where none is wanted."""
    if not wanted(config, environ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
    except ImportError as error:
        if config.export == "on":
            raise BadRequest(
                f"`traces.export` is on, and OpenTelemetry is not installed: {error}",
                path="traces.export",
                code="traces_not_installed",
                advice="install blacktree with its extra: pip install 'blacktree[traces]'",
            ) from None
        log.warning("no traces: OpenTelemetry is not installed", advice="pip install 'blacktree[traces]'")
        return None
    # It tells of each failure by itself; ours is told once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    given: dict[str, Any] = {"service.name": environ.get("OTEL_SERVICE_NAME") or service}
    given |= {"service.version": __version__} | ({"service.instance.id": instance} if instance else {})
    endpoint = f"{config.endpoint.rstrip('/')}/v1/traces" if config.endpoint else None
    return Tracer(OTLPSpanExporter(endpoint=endpoint), Resource.create(given), environ)


def _readable(span: Span, resource: "Resource") -> "ReadableSpan":
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode

    def context(span_id: str) -> SpanContext:
        trace = int(span.context.trace_id, 16)
        return SpanContext(trace, int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        name=span.name,
        context=context(span.context.span_id),
        parent=context(span.parent) if span.parent else None,
        resource=resource,
        attributes=span.attributes,
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error is not None else Status(StatusCode.UNSET),
        start_time=_nanoseconds(span.start),
        end_time=max(_nanoseconds(span.start), _nanoseconds(span.end)),
    )


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 10_000_000 else default
