"""`blacktree up` and its clients as real processes, with the scripted provider in place of an engine."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.ports import free_port
from tests.parts.whole_farm import COMMAND, WholeFarm, command_line, open_whole_farm, script

LINES = {"step": "1", "name": "talk", "lines": 3, "line": "word {n}"}
LONG = script(LINES, {"seconds": 60})
BUILD = ("build", "/nowhere/app", "-t", "app:1")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFarm]:
    """One farm for everything that does not end it."""
    with open_whole_farm(tmp_path_factory.mktemp("farm")) as farm:
        farm.start("--slots", "3")
        yield farm


@pytest.fixture
def own(tmp_path: Path) -> Iterator[WholeFarm]:
    """A farm for a test that ends it."""
    with open_whole_farm(tmp_path) as farm:
        yield farm


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_it_says_where_everything_is(farm: WholeFarm) -> None:
    assert farm.said.startswith("The farm is ready.")
    assert f"{farm.url}/" in farm.said
    assert not farm.url.endswith(":0")
    assert str(farm.state / "token") in farm.said
    # No terminal: no link that lets whoever reads a log file in.
    assert "login" not in farm.said


def test_what_is_secret_is_private(farm: WholeFarm) -> None:
    assert stat.S_IMODE(farm.state.stat().st_mode) == 0o700
    token = (farm.state / "token").read_text().strip()
    for name in ("token", "join-token"):
        assert stat.S_IMODE((farm.state / name).stat().st_mode) == 0o600
    assert len(token) >= 32
    assert token not in farm.said + farm.log.read_text()
    assert token not in command_line(farm.worker_pid)
    assert (farm.state / "join-token").read_text().strip() not in command_line(farm.worker_pid)


def test_the_token_is_needed(farm: WholeFarm) -> None:
    assert urllib.request.urlopen(f"{farm.url}/healthz").status == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{farm.url}/api/v1/jobs")
    assert caught.value.code == 401
    caught.value.close()
    ran = farm.run("--server", farm.url, "--token", "wrong", "jobs", code=2)
    assert "token" in ran.stderr


def test_a_build_from_a_shell(farm: WholeFarm) -> None:
    ran = farm.run(*BUILD, "--build-arg", script(LINES))
    assert "==> talk\nword 1\nword 2\nword 3\n" in ran.stdout
    assert "==> succeeded (attempt 1)" in ran.stdout
    assert ran.stderr == ""


def test_a_build_for_a_program(farm: WholeFarm) -> None:
    ran = farm.run(*BUILD, "--json", "--build-arg", script(LINES))
    *events, last = events_of(ran.stdout)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["line"] for event in events if event["type"] == "log"] == ["word 1", "word 2", "word 3"]
    assert list(last) == ["job"]
    assert last["job"]["state"] == "succeeded"
    again = farm.run("logs", last["job"]["id"], "--json")
    assert events_of(again.stdout) == events
    follow = farm.run("logs", last["job"]["id"], "--json", "--follow", "--from", "3")
    assert events_of(follow.stdout) == events[2:]


def test_a_failing_build_is_exit_1_with_its_reason(farm: WholeFarm) -> None:
    ran = farm.run(*BUILD, "--build-arg", script(LINES, {"exit": 7}), code=1)
    assert "failed" in ran.stdout
    assert "exit code 7" in ran.stdout
    job_id = ran.stdout.splitlines()[0].removeprefix("==> job ")
    assert f"blacktree retry {job_id}" in ran.stdout
    assert farm.run("logs", job_id, "-f", code=1).stdout.count("word 2") == 1
    assert "word 3" in farm.run("logs", job_id).stdout
    assert farm.run("retry", job_id, code=1).stdout.splitlines()[0] != ran.stdout.splitlines()[0]


def test_a_timeout_is_exit_4(farm: WholeFarm) -> None:
    farm.run(*BUILD, "--timeout", "1s", "--build-arg", LONG, code=4)


def test_detached_then_canceled(farm: WholeFarm) -> None:
    ran = farm.run(*BUILD, "--detach", "--build-arg", LONG)
    job_id = ran.stdout.strip()
    assert ran.stdout == f"{job_id}\n"
    farm.wait_for(job_id, "running")
    assert job_id in farm.run("jobs", "--state", "running").stdout
    assert "canceled" in farm.run("cancel", job_id, "--reason", "not this one").stdout
    found = farm.job(job_id)
    assert found["state"] == "canceled"
    assert farm.run("cancel", job_id).returncode == 0
    assert "not this one" in farm.run("job", job_id).stdout
    assert "canceled" in farm.run("logs", job_id, "--follow", code=3).stdout


def test_lists_are_json_documents(farm: WholeFarm) -> None:
    for _ in range(2):
        farm.run(*BUILD)
    page = json.loads(farm.run("jobs", "--json", "--limit", "1").stdout)
    assert set(page) == {"jobs", "cursor"}
    assert len(page["jobs"]) == 1
    rest = json.loads(farm.run("jobs", "--json", "--limit", "1", "--cursor", page["cursor"]).stdout)
    assert rest["jobs"][0]["id"] != page["jobs"][0]["id"]
    workers = json.loads(farm.run("workers", "--json").stdout)
    assert [worker["slots"] for worker in workers["workers"]] == [3]
    types = [event["type"] for event in events_of(farm.run("events", "--json").stdout)]
    assert types[:2] == ["started", "worker_joined"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("job", "no-such-job"), "no-such-job"),
        (("logs", "no-such-job"), "no-such-job"),
        (("logs", "no-such-job", "-f"), "no-such-job"),
        (("cancel", "no-such-job"), "no-such-job"),
        (("retry", "../../etc"), "../../etc"),
        (("drain", "no-such-worker"), "no-such-worker"),
        (("build", "/x", "--push"), "push"),
        (("build", "--", "-x"), "directory"),
        (("build", "/x", "-t", "UPPER"), "image"),
        (("jobs", "--cursor", "%%%"), "cursor"),
    ],
)
def test_what_the_farm_rejects_is_exit_2_in_one_line(farm: WholeFarm, arguments: tuple[str, ...], hint: str) -> None:
    ran = farm.run(*arguments, code=2)
    assert ran.stdout == ""
    assert hint in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_the_same_key_is_the_same_job(farm: WholeFarm) -> None:
    first = farm.run(*BUILD, "--key", "k1", "--detach").stdout
    assert farm.run(*BUILD, "--key", "k1", "--detach").stdout == first
    assert "k1" in farm.run("build", "/other", "--key", "k1", "--detach", code=2).stderr


def test_drain_and_undo(farm: WholeFarm) -> None:
    worker = json.loads(farm.run("workers", "--json").stdout)["workers"][0]["id"]
    farm.run("drain", worker)
    assert "draining" in farm.run("workers").stdout
    job_id = farm.run(*BUILD, "--detach").stdout.strip()
    assert "drain" in farm.job(job_id)["waiting"]
    farm.run("drain", worker, "--undo")
    farm.wait_for(job_id, "succeeded")


def wait_for_line(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stdout is not None
    read = ""
    while word not in read:
        line = process.stdout.readline()
        assert line, read
        read += line
    return read


def test_ctrl_c_cancels_and_waits_for_the_proof(farm: WholeFarm) -> None:
    process = farm.begin(*BUILD, "--build-arg", LONG)
    read = wait_for_line(process, "word 3")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=40)
    assert process.returncode == 3
    assert "asking for cancellation" in err
    assert "canceled" in out
    assert farm.job(read.splitlines()[0].removeprefix("==> job "))["state"] == "canceled"


def test_a_second_ctrl_c_leaves_at_once(farm: WholeFarm) -> None:
    proven = farm.state.parent / "proven"
    stubborn = script(LINES | {"cancel_until": str(proven)}, {"seconds": 60})
    process = farm.begin(*BUILD, "--build-arg", stubborn)
    read = wait_for_line(process, "word 3")
    job_id = read.splitlines()[0].removeprefix("==> job ")
    process.send_signal(signal.SIGINT)
    farm.wait_for(job_id, "canceling")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert f"blacktree logs {job_id} --follow" in err
    proven.touch()
    farm.wait_for(job_id, "canceled")


def test_ctrl_c_of_a_reader_touches_no_job(farm: WholeFarm) -> None:
    job_id = farm.run(*BUILD, "--detach", "--build-arg", LONG).stdout.strip()
    process = farm.begin("logs", job_id, "--follow")
    wait_for_line(process, "word 3")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    assert process.returncode == 130
    assert farm.job(job_id)["state"] == "running"
    farm.run("cancel", job_id)


def test_a_reader_that_leaves_is_no_error(farm: WholeFarm) -> None:
    many = script({"step": "1", "lines": 20000})
    job_id = farm.run(*BUILD, "--detach", "--build-arg", many).stdout.strip()
    farm.wait_for(job_id, "succeeded")
    process = farm.begin("logs", job_id)
    wait_for_line(process, "line 3")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=40)
    assert err == ""


def test_a_second_farm_on_the_same_state_is_refused(farm: WholeFarm) -> None:
    ran = farm.run("up", "--state", str(farm.state), "--listen", "127.0.0.1:0", code=2)
    assert "another farm runs on the state directory" in ran.stderr
    assert "--state DIR" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line_with_advice(farm: WholeFarm, tmp_path: Path) -> None:
    where = farm.url.removeprefix("http://")
    ran = farm.run("up", "--state", str(tmp_path / "other"), "--listen", where, code=2)
    assert f"{where} is in use" in ran.stderr
    assert "--listen" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_doctor_sees_the_farm(farm: WholeFarm) -> None:
    ran = farm.run("doctor", "--json")
    found = {finding["part"]: finding for finding in json.loads(ran.stdout)["findings"]}
    assert found["server"]["status"] == "ok"
    assert farm.url in found["server"]["text"]
    assert "clocks" in found
    assert found["git"]["status"] == "ok"
    assert found["engine"]["status"] == "ok"
    assert "git" in farm.run("doctor").stdout


def test_sigterm_ends_everything_with_exit_0_and_the_build_goes_on_next_time(own: WholeFarm) -> None:
    own.start()
    go = own.state.parent / "go"
    job_id = own.run(*BUILD, "--detach", "--build-arg", script(LINES, {"until": str(go)})).stdout.strip()
    own.wait_for(job_id, "running")
    worker = own.worker_pid
    assert own.stop() == 0
    go.touch()
    assert command_line(worker) == ""
    own.run("jobs", code=6)
    own.start()
    found = own.wait_for(job_id, "succeeded")
    assert found["tries"] == 0
    assert found["attempt"] == 2
    assert own.stop(signal.SIGINT) == 0


def test_a_killed_worker_is_started_again(own: WholeFarm) -> None:
    own.start()
    first = own.worker_pid
    go = own.state.parent / "go"
    job_id = own.run(*BUILD, "--detach", "--build-arg", script(LINES, {"until": str(go)})).stdout.strip()
    own.wait_for(job_id, "running")
    os.kill(first, signal.SIGKILL)
    go.touch()
    assert own.wait_for(job_id, "succeeded")["attempt"] == 2
    assert own.worker_pid != first
    assert own.stop() == 0


def test_a_worker_outlives_a_crash_of_up_and_is_taken_over_with_its_build(own: WholeFarm) -> None:
    # Longer than any restart takes: a worker whose farm stays away for so long ends.
    own.environ["BLACKTREE_ORCHESTRATOR_LEASE_SECONDS"] = "120"
    listen = f"127.0.0.1:{free_port()}"
    own.start(listen=listen)
    talk: list[dict[str, Any]] = [{"step": "1", "lines": 5}, *({"seconds": 0.5, "lines": 5} for _ in range(8))]
    job_id = own.run(*BUILD, "--detach", "--build-arg", script(*talk)).stdout.strip()
    own.wait_for(job_id, "running")
    worker = own.worker_pid
    follower = own.begin("logs", job_id, "--follow", "--json")
    wait_for_line(follower, '"log"')
    own.stop(signal.SIGKILL)
    own.start(listen=listen)
    found = own.wait_for(job_id, "succeeded")
    assert (own.worker_pid, found["attempt"]) == (worker, 1)
    out, _ = follower.communicate(timeout=40)
    assert follower.returncode == 0
    whole = events_of(own.run("logs", job_id, "--json").stdout)
    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
    assert sum(event["type"] == "log" for event in whole) == 45
    assert events_of(out) == whole[-len(events_of(out)) :]
    assert own.stop() == 0
    assert command_line(worker) == ""


def test_a_worker_whose_farm_stays_away_ends_by_itself(tmp_path: Path) -> None:
    with open_whole_farm(tmp_path, BLACKTREE_ORCHESTRATOR_LEASE_SECONDS="2") as own:
        own.start()
        worker = own.worker_pid
        own.stop(signal.SIGKILL)
        deadline = time.monotonic() + 40
        while command_line(worker):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_other_settings_mean_another_worker(own: WholeFarm) -> None:
    own.start("--slots", "1")
    worker = own.worker_pid
    own.stop(signal.SIGKILL)
    own.start("--slots", "5")
    assert own.worker_pid != worker
    assert json.loads(own.run("workers", "--json").stdout)["workers"][0]["slots"] == 5
    assert own.stop() == 0


def test_a_frozen_worker_is_killed_by_its_guard_and_the_farm_goes_on(tmp_path: Path) -> None:
    with open_whole_farm(tmp_path, BLACKTREE_ORCHESTRATOR_LEASE_SECONDS="8") as own:
        own.start()
        worker = own.worker_pid
        go = tmp_path / "go"
        job_id = own.run(*BUILD, "--detach", "--build-arg", script(LINES, {"until": str(go)})).stdout.strip()
        own.wait_for(job_id, "running")
        os.kill(worker, signal.SIGSTOP)
        go.touch()
        found = own.wait_for(job_id, "succeeded", seconds=60)
        assert found["tries"] == 1
        assert own.worker_pid != worker
        assert own.stop() == 0


def test_nobody_else_is_disturbed_by_two_farms(tmp_path: Path) -> None:
    """Two farms of one user: each has its own sockets; a client that names none is told to."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with open_whole_farm(tmp_path / "a") as first, open_whole_farm(tmp_path / "b") as second:
        second.environ["XDG_RUNTIME_DIR"] = first.environ["XDG_RUNTIME_DIR"]
        first.start()
        second.start()
        assert "2 farms run on this machine" in first.run("jobs", code=2).stderr
        first.environ["BLACKTREE_SERVER"] = first.url
        assert first.run("jobs").returncode == 0
        assert second.stop() == 0
        del first.environ["BLACKTREE_SERVER"]
        assert first.run("jobs").returncode == 0
        assert first.stop() == 0


def test_a_busy_ipv6_or_odd_address_is_refused_clearly(own: WholeFarm) -> None:
    for listen in ("nonsense", "127.0.0.1:99999"):
        ran = own.run("up", "--state", str(own.state), "--listen", listen, code=2)
        assert "HOST:PORT" in ran.stderr
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        ran = own.run("up", "--state", str(own.state), "--listen", f"127.0.0.1:{sock.getsockname()[1]}", code=2)
        assert "in use" in ran.stderr


def test_a_state_directory_that_cannot_be_made_is_refused_clearly(own: WholeFarm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = own.run("up", "--state", str(tmp_path / "file" / "x"), code=2)
    assert "cannot be used" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_terminal_gets_a_live_picture_and_a_login_link(own: WholeFarm) -> None:
    """Both on a real pseudo-terminal: the build's picture, Ctrl-C typed on it, and the farm's one-time link."""
    own.start()
    talk = script(LINES, {"seconds": 0.4}, {"step": "2", "name": "second step", "seconds": 60})
    master, slave = pty.openpty()
    environ = own.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        [*COMMAND, *BUILD, "--build-arg", talk],
        env=environ,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    seen = read_terminal(master, "second step")
    assert "talk" in seen
    os.write(master, b"\x03")
    seen += read_terminal(master, None)
    assert process.wait(40) == 3
    assert "asking for cancellation" in seen
    assert "canceled" in seen
    os.close(master)
    assert own.stop() == 0

    master, slave = pty.openpty()
    up = [*COMMAND, "up", "--state", str(own.state), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(up, env=environ, stdout=slave, stderr=subprocess.DEVNULL, start_new_session=True)
    os.close(slave)
    seen = read_terminal(master, "Build something")
    link = re.search(r"(http://\S+/login\?\S+)", seen)
    assert link is not None
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    assert opener.open(link[1]).status == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0
    os.close(master)


def read_terminal(master: int, word: str | None, seconds: float = 60) -> str:
    """What the terminal shows until this word, or until its program has ended."""
    read = ""
    deadline = time.monotonic() + seconds
    while word is None or word not in read:
        assert time.monotonic() < deadline, read
        if select.select([master], [], [], 0.2)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:
                piece = b""
            if not piece:
                assert word is None, read
                return read
            read += piece.decode(errors="replace")
    return read


def test_a_copy_of_the_state_is_a_farm_of_its_own(own: WholeFarm, tmp_path: Path) -> None:
    """What a copied directory says of a worker is of the other farm: that one goes on."""
    own.start()
    worker = own.worker_pid
    (tmp_path / "second").mkdir()
    with open_whole_farm(tmp_path / "second") as copy:
        shutil.copytree(own.state, copy.state, ignore=shutil.ignore_patterns("worker", "*.lock"))
        copy.environ["BLACKTREE_WORKER_ID"] = "other"
        copy.start()
        assert copy.worker_pid != worker
        assert own.worker_pid == worker
        assert command_line(worker)
        assert copy.stop() == 0
    assert "==> succeeded (attempt 1)" in own.run("build", "/nowhere/app").stdout
    assert own.worker_pid == worker
