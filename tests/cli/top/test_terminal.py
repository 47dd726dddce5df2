"""`blacktree top` as a person has it: a real process on a real terminal, against a real farm."""

import json
import signal
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.running import one_line, run
from tests.parts.between import Between
from tests.parts.pseudo_terminal import SLOW, PseudoTerminal, open_terminal
from tests.parts.whole_farm import COMMAND, WholeFarm, open_whole_farm, script

pytestmark = pytest.mark.timeout(120)

TOP = [*COMMAND, "top"]
TALK = {"step": "1", "name": "talk", "lines": 400, "line": "word {n}"}
LONG = script(TALK, {"seconds": 600})


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeFarm]:
    with open_whole_farm(tmp_path_factory.mktemp("top")) as farm:
        farm.start("--slots", "6")
        yield farm


def ask(farm: WholeFarm, path: str, body: Any = None) -> Any:
    """A question to the farm's door: a process for each would take most of the time here."""
    token = (farm.state / "token").read_text().strip()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{farm.url}/api/v1{path}", data, headers)
    with urllib.request.urlopen(request, timeout=40) as answer:
        return json.load(answer)


def build(farm: WholeFarm, what: str, name: str = "/nowhere/app") -> str:
    return str(ask(farm, "/jobs", {"repository": name, "build_args": {"SCRIPT": what.partition("=")[2]}})["id"])


def is_as_before(terminal: PseudoTerminal) -> None:
    assert terminal.mode == terminal.before
    # The other screen was left last; the cursor is there.
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    is_clean(terminal)


def is_clean(terminal: PseudoTerminal) -> None:
    """Nothing was sent that is no colour of ours."""
    assert terminal.foreign() == []


def test_a_job_is_followed_read_back_canceled_and_retried(farm: WholeFarm) -> None:
    job = build(farm, LONG)
    with open_terminal(TOP, farm.environ) as terminal:
        terminal.until(lambda screen: job in screen and "running" in screen)
        terminal.send(f"/{job}\r")
        terminal.until(f"1 of 1 jobs: {job}")
        terminal.send("\r")
        terminal.until("word 400")
        terminal.send("\x1b[5~")
        terminal.until(lambda screen: "paused, " in screen and "word 400" not in screen)
        terminal.send("g")
        terminal.until("word 1\n")
        terminal.send("f")
        terminal.until(lambda screen: "word 400" in screen and "paused" not in screen)
        terminal.send("c")
        terminal.until(f"cancel job {job}? y/n")
        terminal.send("n")
        terminal.until("left alone")
        assert ask(farm, f"/jobs/{job}")["state"] == "running"
        terminal.send("cy")
        terminal.until("==> canceled")
        assert ask(farm, f"/jobs/{job}")["state"] == "canceled"
        terminal.send("r")
        again = terminal.until("is built again as").partition("is built again as ")[2].split()[0]
        terminal.until(lambda screen: again in screen.splitlines()[0] and "word 400" in screen)
        terminal.resize(20, 8)
        terminal.until(lambda screen: len(screen.splitlines()) == 8 and max(map(len, screen.splitlines())) <= 20)
        terminal.resize(200, 60)
        terminal.until(lambda screen: len(screen.splitlines()) == 60)
        terminal.send("\x1b")
        terminal.until("REPOSITORY")
        terminal.send("q")
        assert terminal.ended() == 0
        is_as_before(terminal)
    ask(farm, f"/jobs/{again}/cancel", {})


def test_a_worker_is_drained_and_comes_back(farm: WholeFarm) -> None:
    worker = ask(farm, "/workers")["workers"][0]["id"]
    with open_terminal(TOP, farm.environ) as terminal:
        terminal.send("\t")
        terminal.until(lambda screen: worker in screen and "worker_joined" in screen)
        terminal.send("d")
        terminal.until(lambda screen: "takes nothing more" in screen and "draining" in screen)
        terminal.send("d")
        terminal.until(lambda screen: "takes builds again" in screen and "draining" not in screen)
        terminal.send("?")
        terminal.until("drain it: takes nothing more; again: undo")
        terminal.signal(signal.SIGINT)
        assert terminal.ended() == 130
        is_as_before(terminal)


def test_nothing_that_a_build_prints_reaches_the_terminal(farm: WholeFarm) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x1b[?1049l\x9b31m\u202eevil \x1b[3"
    job = build(farm, script({"step": "1", "name": evil, "lines": 3, "line": evil + " {n}"}), "/nowhere/\u202eevil")
    with open_terminal(TOP, farm.environ) as terminal:
        terminal.until(job)
        terminal.send(f"/{job}\r\r")
        terminal.until(lambda screen: "evil" in screen and "succeeded" in screen)
        terminal.send("q")
        terminal.until("REPOSITORY")
        terminal.send("\x1bq")
        assert terminal.ended() == 0
        assert "\u202e" not in terminal.raw
        is_as_before(terminal)


def test_the_terminal_is_as_it_was_after_sigterm(farm: WholeFarm) -> None:
    with open_terminal(TOP, farm.environ) as terminal:
        terminal.until("REPOSITORY")
        terminal.signal(signal.SIGTERM)
        assert terminal.ended() == -signal.SIGTERM
        is_as_before(terminal)


def test_the_terminal_is_as_it_was_after_a_crash(farm: WholeFarm) -> None:
    crash = "import blacktree.cli.top.run as run\nfrom blacktree.cli.main import main\n"
    crash += "def boom(state, now): raise ZeroDivisionError('planted')\n"
    crash += "run.picture = boom\nmain()\n"
    with open_terminal([sys.executable, "-c", crash, "top"], farm.environ) as terminal:
        assert terminal.ended() == 70
        assert terminal.raw.rindex("planted") > terminal.raw.rindex("\x1b[?1049l")
        is_as_before(terminal)


def test_a_shell_stops_it_and_brings_it_back(farm: WholeFarm) -> None:
    shell = f"{' '.join(TOP)}; echo stopped $?; stty -a; read answer; fg; echo left $?"
    with open_terminal(["bash", "--norc", "-mc", shell], farm.environ) as terminal:
        terminal.until("REPOSITORY")
        terminal.send("\x1a")
        terminal.until_said("stopped 148")
        terminal.until_said("\x1b[?1049l")
        terminal.until_said(" echo ")
        at = len(terminal.raw)
        terminal.send("go\n")
        terminal.until_said("\x1b[?1049h", at)
        terminal.until_said("REPOSITORY", at)
        terminal.send("q")
        assert terminal.ended() == 0
        terminal.until_said("left 0")
        is_as_before(terminal)


def test_without_a_terminal_it_says_what_to_use() -> None:
    ran = run("top", env={"BLACKTREE_SERVER": "http://127.0.0.1:9", "BLACKTREE_TOKEN": "x"})
    assert (ran.code, ran.out) == (2, "")
    assert "blacktree events --follow" in one_line(ran)


def test_a_lost_connection_is_ridden_out_and_a_closed_window_is_the_end(farm: WholeFarm) -> None:
    job = build(farm, LONG)
    with Between(farm.url) as between:
        command = [*TOP, "--server", between.url, "--token", (farm.state / "token").read_text().strip()]
        with open_terminal(command, farm.environ) as terminal:
            terminal.until(job)
            terminal.send(f"/{job}\r\r")
            terminal.until("word 400")
            between.cut()
            terminal.until("✗")
            ask(farm, f"/jobs/{job}/cancel", {})
            between.join()
            terminal.until(lambda screen: "==> canceled" in screen and "✗" not in screen)
            # Nothing is there twice.
            assert terminal.screen.count("word 400") == 1
            terminal.send("\x1b")
            terminal.until(lambda screen: "REPOSITORY" in screen and "canceled" in screen)
            is_clean(terminal)
            terminal.hang_up()
            assert terminal.process.wait(SLOW) in (0, -signal.SIGHUP)
