"""Spans on their way: bounded, counted, never waited for; and who wants them at all."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from blacktree.clock import now
from blacktree.concurrency.tracing import Span, Tracer, make_tracer, wanted
from blacktree.config import TracesConfig
from blacktree.errors import BadRequest
from blacktree.tracecontext import TraceContext, attempt_span_id, begin, new_span_id, parse
from tests.parts.collector import Collector, open_collector

SLOW = 40.0
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with open_collector() as opened:
        yield opened


def a_span(name: str = "a", *, sampled: bool = True) -> Span:
    return Span(name=name, context=TraceContext("1" * 32, new_span_id(), sampled), parent="", start=now(), end=now())


def a_tracer(url: str, **variables: str) -> Tracer:
    environ = {ENDPOINT: url, "OTEL_BSP_SCHEDULE_DELAY": "10", **variables}
    tracer = make_tracer(TracesConfig(endpoint=url), "test", "", environ)
    assert tracer is not None
    return tracer


async def test_what_is_added_arrives_once_and_the_rest_is_flushed(collector: Collector) -> None:
    tracer = a_tracer(collector.url)
    tracer.start()
    tracer.add(a_span("first"))
    tracer.add(a_span("silent", sampled=False))
    with trio.fail_after(SLOW):
        while not collector.spans:
            await trio.sleep(0.01)
    tracer.add(a_span("last"))
    await tracer.aclose()
    with trio.fail_after(SLOW):
        while len(collector.spans) < 2:
            await trio.sleep(0.01)
    assert [span.name for span in collector.spans] == ["first", "last"]
    assert collector.spans[0].service == "test"


async def test_a_collector_that_hangs_costs_spans_and_nothing_else(collector: Collector) -> None:
    collector.hold.clear()
    tracer = a_tracer(collector.url, OTEL_BSP_MAX_QUEUE_SIZE="5", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1")
    tracer.start()
    tracer.add(a_span())
    with trio.fail_after(SLOW):
        while not collector.asked:
            await trio.sleep(0.01)
    for _ in range(20):
        tracer.add(a_span())
    assert tracer.results == {"exported": 0, "failed": 0, "dropped": 15}
    with trio.fail_after(SLOW):
        await tracer.aclose()
    assert threading.current_thread() is threading.main_thread()


async def test_a_collector_that_refuses_is_counted(collector: Collector) -> None:
    collector.status = 400
    tracer = a_tracer(collector.url)
    tracer.start()
    tracer.add(a_span())
    with trio.fail_after(SLOW):
        while not tracer.results["failed"]:
            await trio.sleep(0.01)
    collector.status = 200
    tracer.add(a_span("after"))
    with trio.fail_after(SLOW):
        while not tracer.results["exported"]:
            await trio.sleep(0.01)
    await tracer.aclose()


@pytest.mark.parametrize(
    ("config", "environ", "expected"),
    [
        (TracesConfig(), {}, False),
        (TracesConfig(), {ENDPOINT: "http://c:4318"}, True),
        (TracesConfig(), {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        (TracesConfig(endpoint="http://c:4318"), {}, True),
        (TracesConfig(export="on"), {}, True),
        (TracesConfig(export="off"), {ENDPOINT: "http://c:4318"}, False),
        (TracesConfig(export="on"), {"OTEL_SDK_DISABLED": "true"}, False),
        (TracesConfig(), {ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_when_it_is_wanted(config: TracesConfig, environ: dict[str, str], expected: bool) -> None:
    assert wanted(config, environ) is expected


def test_without_the_extra_it_is_refused_by_name_and_else_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(BadRequest, match=r"blacktree\[traces\]") as caught:
        make_tracer(TracesConfig(export="on"), "x", "", {})
    assert caught.value.code == "traces_not_installed"
    assert make_tracer(TracesConfig(), "x", "", {ENDPOINT: "http://c:4318"}) is None


def test_off_costs_no_import() -> None:
    """The daemons' modules and a tracer that is off load nothing of OpenTelemetry."""
    program = (
        "import sys, blacktree.orchestrator.daemon, blacktree.worker.daemon\n"
        "from blacktree.concurrency.tracing import make_tracer\n"
        "from blacktree.config import TracesConfig\n"
        "assert make_tracer(TracesConfig(), 'x', '', {}) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SLOW)


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "text",
    [None, "", "x", PARENT[:-1], PARENT.replace("4bf", "XYZ"), f"00-{'0' * 32}-00f067aa0ba902b7-01",
     f"00-{'1' * 32}-{'0' * 16}-01", "ff" + PARENT[2:], "1" * 10_000],
)  # fmt: skip
def test_what_is_no_traceparent_is_passed_over(text: str | None) -> None:
    assert parse(text) is None


def test_contexts() -> None:
    parent = parse(PARENT)
    assert parent is not None
    assert parent.traceparent == PARENT
    future = parse(PARENT.replace("00-", "01-", 1) + "-more")
    assert future == parent
    child = begin(parent, {})
    assert (child.trace_id, child.sampled) == (parent.trace_id, True)
    assert child.span_id != parent.span_id
    assert not begin(parse(PARENT[:-1] + "0"), {}).sampled
    assert begin(None, {}).sampled
    assert not begin(None, {"OTEL_TRACES_SAMPLER": "always_off"}).sampled
    assert begin(parent, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}).sampled
    ratio = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    taken = sum(begin(None, ratio).sampled for _ in range(2000))
    assert 700 < taken < 1300
    assert attempt_span_id("a", "b", 1) == attempt_span_id("a", "b", 1) != attempt_span_id("a", "b", 2)
