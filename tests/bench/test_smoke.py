"""`bin/bench` works: rows are computed from what ran, printed and saved. Not their values: those are for the bench."""

import doctest
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.bench import figure, reader_client
from tests.bench.bench import ROOT, environment, module
from tests.bench.figure import Failed, Figure, percentile, table
from tests.parts.engine import answers, can_start_engines
from tests.parts.rabbit import require_rabbitmq

pytestmark = pytest.mark.timeout(150)


def _bench(tmp_path: Path, *rows: str) -> tuple[str, list[dict[str, object]]]:
    saved = tmp_path / "bench.json"
    command = [*module("__main__", "--quick", "--json", str(saved)), *(f"--only={row}" for row in rows)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=140, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(saved.read_text())
    assert document["failures"] == []
    assert document["quick"] is True
    assert set(document["load"]) == set(rows)
    assert document["machine"]["python"]
    for each in document["figures"]:
        assert each["name"] in done.stdout
        assert each["value"] >= 0
        if each["beside_value"]:
            assert each["ratio"] == pytest.approx(each["value"] / each["beside_value"])
    return done.stdout, document["figures"]


@pytest.mark.slow
def test_rows_without_broker_or_engine(tmp_path: Path) -> None:
    _, figures = _bench(tmp_path, "readers", "shutdown", "memory")
    assert {each["row"] for each in figures} == {"readers", "shutdown", "memory"}
    floods = [each for each in figures if "bare loop" in str(each["beside"])]
    assert len(floods) == 4


@pytest.mark.slow
@pytest.mark.rabbitmq
def test_rows_with_a_peer_on_the_same_broker(tmp_path: Path) -> None:
    require_rabbitmq()
    said, figures = _bench(tmp_path, "jobs")
    assert len(figures) == 3
    assert all(each["ratio"] for each in figures)
    assert "Celery" in said


@pytest.mark.slow
@pytest.mark.docker
def test_rows_on_the_engine(tmp_path: Path) -> None:
    if not answers("/var/run/docker.sock") and not can_start_engines():
        if os.environ.get("CI"):
            pytest.fail("no container engine answers")
        pytest.skip("no container engine answers")
    _, figures = _bench(tmp_path, "output")
    assert [each["reached"] for each in figures if "lines kept" in str(each["name"])] == [True, True]


def test_a_row_that_cannot_be_measured_is_told_and_the_others_go_on() -> None:
    good = Figure(row="a", name="x", value=3.0, unit="ms", beside="ms y", beside_value=2.0, target="1", reached=False)
    said = table([good], [Failed("b", "no engine")])
    assert "| a: x   | 3 ms      | 2 ms y | 1.50  | 1        | NO      |" in said
    assert "b: NOT MEASURED: no engine" in said


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([5.0], 0.99) == 5.0
    assert doctest.testmod(figure).failed == 0


def test_the_readers_find_what_is_missing_or_double() -> None:
    def frame(*seqs: int) -> bytes:
        events = ",".join(f'{{"seq":{seq},"type":"log","line":"\\"seq\\":"}}' for seq in seqs)
        return f'{{"jsonrpc":"2.0","method":"job.events","params":{{"watch":1,"events":[{events}]}}}}'.encode()

    def read(*batches: tuple[int, ...]) -> tuple[int, int]:
        reader = reader_client.Reader.__new__(reader_client.Reader)
        reader.next_seq, reader.lines, reader.gaps = 1, 0, 0
        crowd = reader_client.Crowd(stamps=False, record=None)
        for batch in batches:
            crowd.take_text(reader, frame(*batch), 0.0)
        return reader.lines, reader.gaps

    assert read((1, 2, 3), (4,)) == (4, 0)
    assert read((1, 2), (4, 5)) == (4, 1)
    assert read((1, 2), (2, 3)) == (4, 1)
    assert read((1, 3)) == (2, 1)
