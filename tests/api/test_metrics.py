"""`/metrics`: what is served is what the page tells, what Prometheus' own parser takes, and what the files name."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from blacktree.api.catalogue import CATALOGUE
from blacktree.api.metrics import exposition
from blacktree.clock import now
from blacktree.event import StepFinished, StepStarted
from blacktree.histogram import Histogram, Spread
from blacktree.job import Failure, Image, Outcome
from blacktree.orchestrator.measures import step_kind
from tests.orchestrator.conftest import House, open_house
from tests.parts.promql import names_of
from tests.parts.toy_worker import lines

DOCS = Path(__file__).parents[2] / "docs"
OF_PROMETHEUS = {"le", "instance", "job"}
SLOW = 40.0


def families(body: bytes) -> dict[str, Metric]:
    """What is served, by the name with which it is served."""
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        found[family.name + ("_total" if family.type == "counter" else "")] = family
    return found


def value(house: House, name: str, **labels: str) -> float:
    """One sample, as Prometheus reads it."""
    for family in families(exposition(house.control.figures())).values():
        for sample in family.samples:
            if sample.name == f"blacktree_{name}" and sample.labels == labels:
                return float(sample.value)
    return 0.0


async def until(house: House, wanted: float, name: str, **labels: str) -> None:
    with trio.fail_after(SLOW):
        while value(house, name, **labels) != wanted:
            await trio.sleep(0.02)


def told() -> dict[str, tuple[str, list[str]]]:
    """The page's tables: name → kind and labels."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.+?) \|$", text, re.MULTILINE)
    assert len(rows) == len({row[0] for row in rows})
    return {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, _ in rows}


async def test_a_farm_that_did_something_and_the_page_agree(tmp_path: Path) -> None:
    async with open_house(tmp_path, lease_seconds=30.0) as house:
        worker = await house.worker(slots=1)
        job_id = await house.submit(repository="https://x/secret-name", pool="default")
        waiting = await house.submit(pool="nobody")
        first = await worker.next_assignment()
        moment = now()
        records = [
            StepStarted(time=moment, attempt=1, step="abc123", name="[2/3] RUN make"),
            StepFinished(
                time=moment, attempt=1, step="abc123", name="[2/3] RUN make", cached=False, seconds=3.5, ok=True
            ),
        ]
        await worker.say(first, *records, lines("one", "twö"))
        await worker.end(first, Outcome(state="succeeded", image=Image(reference="a:b", id="sha256:1")))
        await house.finished(job_id)
        failing = await house.submit()
        second = await worker.next_assignment()
        await worker.end(second, Outcome(state="failed", error=Failure(code="run_failed", message="no")))
        await house.finished(failing)
        # What waits is looked at now and then, the rest is there as soon as it is committed.
        await until(house, 1, "queue_jobs", pool="nobody")
        assert value(house, "job_wait_seconds_count", pool="default") == 2
        assert value(house, "job_dispatch_seconds_count") == 2
        assert value(house, "job_duration_seconds_count", outcome="succeeded") == 1
        assert value(house, "job_duration_seconds_count", outcome="failed") == 1
        assert value(house, "step_duration_seconds_sum", step="run", outcome="succeeded") == 3.5
        assert value(house, "step_duration_seconds_bucket", step="run", outcome="succeeded", le="5.0") == 1
        assert value(house, "step_duration_seconds_bucket", step="run", outcome="succeeded", le="2.5") == 0
        assert value(house, "attempts_total", outcome="succeeded") == 1
        assert value(house, "attempts_total", outcome="failed") == 1
        assert value(house, "log_lines_total") == 2
        assert value(house, "log_bytes_total") == len("one\ntwö\n".encode())
        assert value(house, "store_commit_seconds_count") > 4
        async with house.control.follow(waiting, 1):
            assert value(house, "log_readers") == 1
        body = exposition(house.control.figures())
        assert b"secret-name" not in body
        assert job_id.encode() not in body
    served = families(body)
    page = told()
    assert {name: family.type for name, family in served.items()} == {name: kind for name, (kind, _) in page.items()}
    for name, family in served.items():
        allowed = {*page[name][1], "le"}
        assert all(set(sample.labels) <= allowed for sample in family.samples), name
        assert family.documentation, name
    assert {f"blacktree_{name}": list(metric.labels) for name, metric in CATALOGUE.items()} == {
        name: labels for name, (_, labels) in page.items() if name.startswith("blacktree_")
    }


async def test_the_figures_of_the_parts_are_all_in_the_catalogue(tmp_path: Path) -> None:
    async with open_house(tmp_path, memory=True) as house:
        names = {key.partition("{")[0] for key in house.control.figures()}
        served = families(exposition(house.control.figures()))
    assert names - set(CATALOGUE) == set()
    # What a dashboard shows is there before anything happened.
    assert [sample.value for sample in served["blacktree_queue_jobs"].samples] == [0]
    assert [sample.value for sample in served["blacktree_queue_oldest_seconds"].samples] == [0]
    assert len(served["blacktree_jobs_ended_total"].samples) == 5


async def test_a_refused_hand_off_is_no_attempt(tmp_path: Path) -> None:
    from blacktree.rpc.peer import Answer

    async with open_house(tmp_path, memory=True) as house:
        worker = await house.worker()
        worker.refuse_with = Answer(accepted=False, code="busy", reason="not now")
        job_id = await house.submit()
        with trio.fail_after(SLOW):
            while not value(house, "hand_offs_refused_total"):
                await trio.sleep(0.02)
        await house.control.cancel(job_id)
        served = families(exposition(house.control.figures()))
        assert {sample.value for sample in served["blacktree_attempts_total"].samples} == {0}


def test_names_keep_the_conventions() -> None:
    for name, metric in CATALOGUE.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.kind != "histogram" or name.endswith("_seconds"), name
        assert not {"repository", "job", "image", "ref", "worker", "id"} & set(metric.labels), name


def test_a_histogram() -> None:
    times = Histogram((1.0, 2.0))
    for each in (-5.0, 1.0, 1.5, 99.0):
        times.observe(each)
    assert times.cumulative() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert (times.count, times.sum) == (4, 101.5)


def test_labels_do_not_grow_without_end() -> None:
    spread = Spread(most=2)
    for each in range(10):
        spread.observe(1.0, f"pool-{each}")
    assert {labels: part.count for labels, part in spread.parts.items()} == {
        ("pool-0",): 1,
        ("pool-1",): 1,
        ("other",): 8,
    }


@pytest.mark.parametrize(
    ("step", "name", "kind"),
    [
        ("sync", "fetch https://x RUN", "sync"),
        ("tag", "tag a:b", "tag"),
        ("push/0123", "push layer", "push_layer"),
        ("ab12", "[2/5] RUN make", "run"),
        ("ab12", "[linux/arm64] [builder 2/5] COPY . .", "copy"),
        ("1", "RUN make", "run"),
        ("ab12", "[internal] load build definition", "internal"),
        ("ab12", "exporting to image", "export"),
        ("ab12", "[2/5] EVIL-9321 x", "other"),
        ("ab12", "", "other"),
    ],
)
def test_kinds_of_steps(step: str, name: str, kind: str) -> None:
    assert step_kind(step, name) == kind


# The files for Grafana and Prometheus


def check(expression: str) -> None:
    """Every metric is served, and has the labels that are asked of it."""
    named = names_of(expression)
    allowed: set[str] = set(OF_PROMETHEUS)
    for metric, selected in named.metrics.items():
        page = told()
        base = metric if metric in page else re.sub(r"_(bucket|sum|count)$", "", metric)
        assert base in page, expression
        kind, labels = page[base]
        assert (kind == "histogram") == (base != metric), expression
        assert selected <= {*labels, *OF_PROMETHEUS}, expression
        allowed |= set(labels)
    assert named.grouped <= allowed, expression


def test_the_dashboard() -> None:
    board: dict[str, Any] = json.loads((DOCS / "grafana" / "blacktree.json").read_text(encoding="utf-8"))
    assert board["schemaVersion"] >= 36
    assert board["uid"]
    assert board["title"]
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    places: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert not places & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            check(target["expr"])
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label == "instance" or label in names_of(target["expr"]).grouped, target
    assert names_of(variables["instance"]["query"]["query"][len("label_values(") :].partition(",")[0]).metrics


def test_the_alert_rules() -> None:
    rules = yaml.safe_load((DOCS / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    assert set(rules) == {"groups"}
    seen = set()
    for group in rules["groups"]:
        assert set(group) == {"name", "rules"}
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"[A-Za-z]\w*", rule["alert"])
            assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert rule["annotations"]["summary"]
            check(rule["expr"])
            grouped = names_of(rule["expr"]).grouped
            for text in rule["annotations"].values():
                assert set(re.findall(r"\$labels\.(\w+)", text)) <= grouped, rule["alert"]
            seen.add(rule["alert"])
    assert len(seen) == sum(len(group["rules"]) for group in rules["groups"]) > 8


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_prometheus_takes_the_rules_and_the_page(tmp_path: Path) -> None:
    """By its own tool: the rules do what `alerts.test.yml` says, and the page has no fault."""
    with trio.fail_after(SLOW):
        await trio.run_process(["promtool", "test", "rules", "alerts.test.yml"], cwd=DOCS / "prometheus")
        async with open_house(tmp_path, memory=True) as house:
            page = exposition(house.control.figures())
        await trio.run_process(["promtool", "check", "metrics"], stdin=page)


@pytest.mark.parametrize("wrong", ["sum(blacktree_jobs", "rate(x[5m)", "a{b}", "", "1 + 1", "sum by (a) x)", "a;b"])
def test_what_is_no_expression_is_seen(wrong: str) -> None:
    with pytest.raises(ValueError):
        names_of(wrong)
