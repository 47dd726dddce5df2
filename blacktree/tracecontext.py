"""Where in a distributed trace something stands: W3C Trace Context's `traceparent` (Recommendation, 2021). Pure."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?:-.*)?\Z")
TraceParent = Annotated[str, Meta(max_length=55, pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")]


class TraceContext(msgspec.Struct, frozen=True):
    """A span, as what is caused by it knows it. Ids in hexadecimal, as on the wire."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    def child(self, span_id: str) -> "TraceContext":
        """Another span of the same trace."""
        return TraceContext(self.trace_id, span_id, self.sampled)


def parse(text: str | None) -> TraceContext | None:
    """What a `traceparent` says; None for one that is none, which the specification wants to be passed over."""
    found = _FORM.match(text.strip()) if text and len(text) < 256 else None
    if found is None or not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return TraceContext(found["trace"], found["span"], bool(int(found["flags"], 16) & 1))


def new_span_id() -> str:
    """Never all zeros."""
    return f"{secrets.randbits(64) or 1:016x}"


def attempt_span_id(trace_id: str, job_id: str, attempt: int) -> str:
    """The same on both daemons: what a worker told of an attempt's steps has its parent even if the worker is lost."""
    digest = hashlib.sha256(f"{trace_id}/{job_id}/{attempt}".encode()).digest()[:8]
    return digest.hex() if any(digest) else "0" * 15 + "1"


def begin(parent: TraceContext | None, environ: Mapping[str, str]) -> TraceContext:
    """The root span of something new: in its caller's trace, or in one of its own.

    Whether it is sampled says `OTEL_TRACES_SAMPLER` (`parentbased_always_on` without it) and `OTEL_TRACES_SAMPLER_ARG`.
    """
    trace_id = parent.trace_id if parent is not None else f"{secrets.randbits(128) or 1:032x}"
    name = environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").strip().lower()
    if parent is not None and name.startswith("parentbased_"):
        return TraceContext(trace_id, new_span_id(), parent.sampled)
    match name.removeprefix("parentbased_"):
        case "always_off":
            sampled = False
        case "traceidratio":
            # The lowest 64 bits are the random ones; as OpenTelemetry's own samplers decide.
            sampled = int(trace_id[16:], 16) < _ratio(environ.get("OTEL_TRACES_SAMPLER_ARG", "")) * 2.0**64
        case _:
            sampled = True
    return TraceContext(trace_id, new_span_id(), sampled)


def _ratio(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 1.0
