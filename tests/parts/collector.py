"""A stand-in for an OpenTelemetry collector: OTLP over HTTP on loopback, read with the real protobuf messages."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    start: int
    end: int
    error: str | None


class Collector:
    """`status`: what it answers; `hold`: cleared, it takes its time."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.status = 200
        self.asked = 0
        self.hold = threading.Event()
        self.hold.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.asked += 1
                collector.hold.wait(60)
                right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                status = collector.status if right else 404
                if status == 200:
                    collector.take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-type", "application/x-protobuf")
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A daemon that was ended left its connection."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Seen(
                            service=about["service.name"],
                            name=span.name,
                            trace=span.trace_id.hex(),
                            span=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            attributes={each.key: _value(each.value) for each in span.attributes},
                            start=span.start_time_unix_nano,
                            end=span.end_time_unix_nano,
                            error=span.status.message if span.status.code == 2 else None,
                        )
                    )

    def named(self, name: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.name == name]


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def open_collector() -> Iterator[Collector]:
    """A collector on loopback."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.hold.set()
        collector.server.shutdown()
        collector.server.server_close()
        thread.join(5)
