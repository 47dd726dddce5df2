"""The parts that need no engine: addresses, names, patterns, progress, the table of faults, housekeeping of text."""

import base64
import json
import stat
from pathlib import Path

import pytest
from docker.utils.build import PatternMatcher
from hypothesis import given
from hypothesis import strategies as st

from blacktree.errors import BadRequest
from blacktree.providers import open_provider
from blacktree.providers.base import Entry, Health, Login, ProviderSettings
from blacktree.providers.docker.address import Address, engine_address
from blacktree.providers.docker.classic import host_of, registries
from blacktree.providers.docker.engine import log_limits
from blacktree.providers.docker.faults import exit_code, failure
from blacktree.providers.docker.filesync import Wanted, modified, select, wanted
from blacktree.providers.docker.generated import buildkit_pb2 as wire
from blacktree.providers.docker.leftovers import Execution, claim
from blacktree.providers.docker.logins import read_login
from blacktree.providers.docker.patterns import Patterns, followed, ignore_lines
from blacktree.providers.docker.progress import Clipped, Event, Finished, Output, Progress, Started


def test_an_unknown_provider_is_refused_with_the_known_names() -> None:
    with pytest.raises(BadRequest, match="docker") as caught:
        open_provider("dokcer", ProviderSettings(owner="x"))
    assert caught.value.code == "unknown_provider"
    assert "did you mean `docker`" in caught.value.advice


@pytest.mark.parametrize(
    ("setting", "environ", "address"),
    [
        ("", {}, Address(path="/var/run/docker.sock")),
        ("/run/x.sock", {"DOCKER_HOST": "tcp://h:1"}, Address(path="/run/x.sock")),
        ("unix:///run/x.sock", {}, Address(path="/run/x.sock")),
        ("", {"DOCKER_HOST": "unix:///run/y.sock"}, Address(path="/run/y.sock")),
        ("", {"DOCKER_HOST": "tcp://10.0.0.1:2375"}, Address(host="10.0.0.1", port=2375)),
        ("tcp://[::1]:99", {}, Address(host="::1", port=99)),
    ],
)
def test_addresses(setting: str, environ: dict[str, str], address: Address) -> None:
    assert engine_address(setting, environ) == address


@pytest.mark.parametrize(
    ("setting", "environ"),
    [
        ("ssh://user@host", {}),
        ("npipe:////./pipe/x", {}),
        ("nonsense", {}),
        ("tcp://host:port", {}),
        ("", {"DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1"}),
    ],
)
def test_addresses_that_are_refused_with_advice(setting: str, environ: dict[str, str]) -> None:
    with pytest.raises(BadRequest) as caught:
        engine_address(setting, environ)
    assert caught.value.advice


@pytest.mark.parametrize(
    ("patterns", "path", "matched"),
    [
        (["*.md"], "a.md", True),
        (["*.md"], "d/a.md", False),
        (["**/*.md"], "a.md", True),
        (["**/*.md"], "d/e/a.md", True),
        (["d"], "d/e/f", True),
        (["/d/"], "d/e", True),
        (["d/*"], "d/e/f", True),
        (["d"], "dd", False),
        (["d/**"], "d/e/f", True),
        (["d/**"], "d", False),
        (["*", "!keep"], "keep", False),
        (["*", "!keep"], "keep/inside", False),
        (["*", "!keep", "keep/not"], "keep/not", True),
        (["a?c"], "abc", True),
        (["a?c"], "a/c", False),
        (["[a-c]x"], "bx", True),
        (["[^a-c]x"], "bx", False),
        (["a\\*b"], "a*b", True),
        (["a\\*b"], "axb", False),
        (["./x/../y"], "y", True),
        ([".", ""], "anything", False),
        (["a+b(c).$"], "a+b(c).$", True),
        (["a**b"], "a/x/b", True),
    ],
)
def test_patterns_follow_docker(patterns: list[str], path: str, matched: bool) -> None:
    assert Patterns(patterns).match(path) is matched


@given(st.lists(st.text("ab*?/!.[]\\^-", max_size=8), max_size=5), st.text("ab/.", min_size=1, max_size=8))
def test_no_pattern_is_a_crash(patterns: list[str], path: str) -> None:
    try:
        Patterns(patterns).match(path)
    except ValueError as error:
        # Most patterns are good ones.
        if "bad pattern" not in str(error):
            raise


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "*", "**", "a*"]), min_size=1, max_size=3).map("/".join), max_size=4),
    st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map("/".join),
)
def test_patterns_agree_with_the_engines_own_client_library(patterns: list[str], path: str) -> None:
    """On what both define alike; where a directory is matched deeper than the pattern is, the library is older."""
    if any("**" in each for each in patterns):
        return
    assert Patterns(patterns).match(path) is PatternMatcher(list(patterns)).matches(path)


def test_ignore_lines() -> None:
    assert ignore_lines("\ufeff# no\n\n  a  \n!b\r\n") == ["a", "!b"]


def test_followed_paths_lead_through_links() -> None:
    links = {"a": "d/e", "d/e": "../real", "loop": "loop"}
    assert set(followed(["a/file"], links)) == {"a/file", "a", "d/e/file", "d/e", "real/file"}
    assert followed(["."], {}) == []
    assert "loop" in followed(["loop"], links)


def entries(*paths: str) -> list[Entry]:
    return [Entry(path, 0o100644, 1, path) for path in paths]


def shown(files: list[Entry], ask: Wanted, links: dict[str, str] | None = None) -> list[str]:
    return [path + ("/" if entry is None else "") for path, entry in select(files, links or {}, ask)]


def test_directories_come_before_what_is_in_them() -> None:
    assert shown(entries("a/b/c", "a/d", "e"), Wanted()) == ["a/", "a/b/", "a/b/c", "a/d", "e"]


def test_what_is_hidden_stays_hidden_except_on_the_way_to_an_exception() -> None:
    ask = Wanted(exclude=["a", "!a/b/keep"])
    assert shown(entries("a/b/keep", "a/b/not", "a/x/y", "z"), ask) == ["a/", "a/b/", "a/b/keep", "z"]
    # The directory itself is not matched by `a/*`: an empty one is shown, as Docker does.
    assert shown(entries("a/b"), Wanted(exclude=["a/*"])) == ["a/"]


def test_followpaths_show_only_what_is_named() -> None:
    assert shown(entries("Dockerfile", "other", "d/x"), Wanted(follow=["Dockerfile", ".dockerignore"])) == [
        "Dockerfile"
    ]


def test_header_fields_may_be_escaped() -> None:
    assert wanted({"exclude-patterns": ["%C3%A4"], "exclude-patterns-encoded": ["1"]}).exclude == ["ä"]
    assert wanted({"exclude-patterns": ["%41"]}).exclude == ["%41"]


@given(st.text(max_size=64), st.text(max_size=64))
def test_the_time_of_a_file_names_its_content(one: str, two: str) -> None:
    assert modified(one) == modified(one)
    assert modified(one) // 10**9 == modified(two) // 10**9
    if one != two:
        assert modified(one) != modified(two)


def vertex(digest: str, name: str = "", **more: object) -> wire.StatusResponse:
    return wire.StatusResponse(vertexes=[wire.Vertex(digest=f"sha256:{digest}", name=name, **more)])


def run(*messages: wire.StatusResponse, ok: bool = True) -> tuple[list[Event], Progress]:
    progress = Progress()
    found = [event for message in messages for event in progress.feed(message)]
    return found + list(progress.end(ok=ok)), progress


def test_a_step_is_told_once_however_often_it_is_repeated() -> None:
    begun = wire.Time(seconds=10)
    ended = wire.Time(seconds=12, nanos=500_000_000)
    events, _ = run(
        vertex("a" * 64, "[2/2] RUN x"),
        vertex("a" * 64, "[2/2] RUN x", started=begun),
        vertex("a" * 64, "[2/2] RUN x", started=begun),
        vertex("a" * 64, "[2/2] RUN x", started=begun, completed=ended),
        vertex("a" * 64, "[2/2] RUN x", started=begun, completed=ended),
    )
    assert events == [Started("a" * 12, "[2/2] RUN x"), Finished("a" * 12, "[2/2] RUN x", False, 2.5, True)]


def test_cached_failed_and_unfinished_steps() -> None:
    now = wire.Time(seconds=1)
    events, progress = run(
        vertex("c", "RUN cached", cached=True, started=now, completed=now),
        vertex("f", "RUN failing", started=now, completed=now, error="exit code: 3"),
        vertex("o", "RUN other", started=now, completed=now, error="context canceled"),
        vertex("u", "RUN unfinished", started=now),
        ok=False,
    )
    ended = {event.name: (event.cached, event.ok) for event in events if isinstance(event, Finished)}
    assert ended == {
        "RUN cached": (True, True),
        "RUN failing": (False, False),
        "RUN other": (False, False),
        "RUN unfinished": (False, False),
    }
    found = progress.failing("something else")
    assert found is not None
    assert found.name == "RUN failing"


def test_output_of_a_step_starts_it_and_a_clip_is_told_once() -> None:
    clip = b"[output clipped, log limit 200KiB/s reached]\n"
    logs = [wire.VertexLog(vertex="sha256:l", stream=1, msg=b"12345")]
    logs += [wire.VertexLog(vertex="sha256:l", stream=2, msg=clip)] * 2
    events, _ = run(wire.StatusResponse(logs=logs))
    assert [type(event) for event in events[:5]] == [Started, Output, Output, Clipped, Output]
    assert events[3] == Clipped("l", "[output clipped, log limit 200KiB/s reached]", 5)


@pytest.mark.parametrize(
    ("message", "code", "number", "again"),
    [
        ("executor failed running [/bin/sh -c exit 7]: exit code: 7", "run_failed", 7, False),
        ('process "/bin/sh -c x" did not complete successfully: exit code: 137', "run_failed", 137, False),
        ("The command '/bin/sh -c false' returned a non-zero code: 1", "run_failed", 1, False),
        ("dockerfile parse error line 2: unknown instruction: X", "dockerfile_invalid", None, False),
        ("secret key: not found", "secret_missing", None, False),
        ('failed to compute cache key: "/x" not found: not found', "source_missing", None, False),
        ("docker.io/library/nope:latest: not found", "image_missing", None, False),
        ('unable to find image "sha256:8769dc"', "image_gone", None, True),
        ("No such image: sha256:8769dc", "image_gone", None, True),
        ("failed to get digest sha256:8769dc: open /x/8769dc: no such file or directory", "image_gone", None, True),
        ("No such image: app:latest", "image_missing", None, False),
        ("pull access denied, repository does not exist or may require authorization", "image_missing", None, False),
        ("failed to do request: dial tcp 1.2.3.4:443: i/o timeout", "registry_unreachable", None, True),
        ("dial tcp: lookup r.example: no such host", "registry_unreachable", None, True),
        ("write /x: no space left on device", "disk_full", None, True),
        ("something nobody has seen", "build_failed", None, False),
        ("", "build_failed", None, False),
    ],
)
def test_the_engines_words(message: str, code: str, number: int | None, again: bool) -> None:
    error = failure(message, step="s")
    assert (error.code, error.exit_code, error.again, error.step) == (code, number, again, "s")
    assert error.message


@given(st.text())
def test_any_message_is_a_failure(message: str) -> None:
    assert failure(message).code
    exit_code(message)


def test_registries_of_a_dockerfile() -> None:
    text = "ARG R=a.example\nFROM $R/x AS one\nFROM --platform=linux/amd64 ${S}/y:1\nFROM busybox\nFROM one\n"
    assert registries(text, {"S": "localhost:5000"}, ["b.example/z"]) == {
        "a.example",
        "localhost:5000",
        "docker.io",
        "b.example",
    }
    assert host_of("team/app") == "docker.io"


def execution(command: str, began: float) -> Execution:
    return Execution(f"id{began}", command, began, (1,), False)


def test_executions_are_claimed_by_text_time_and_owner() -> None:
    now = wire.Time(seconds=100)
    later = wire.Time(seconds=200)
    _, mine = run(vertex("m", "[2/2] RUN make  all", started=now))
    _, other = run(vertex("o", "[3/3] RUN make  all", started=later))
    found = [execution("make all", 100.2), execution("make all", 200.3), execution("elsewhere", 100.1)]
    builds = [("me", mine.vertexes.values()), ("you", other.vertexes.values())]
    assert [each.began for each in claim(found, builds, "me")] == [100.2]
    assert [each.began for each in claim(found, builds, "you")] == [200.3]
    # One vertex, two builds: it is nobody's alone.
    shared = [("me", mine.vertexes.values()), ("you", mine.vertexes.values())]
    assert claim(found[:1], shared, "me") == []


def test_log_limits_name_the_version() -> None:
    old = Health(name="docker", version="20.10.24", details={"buildkit": "yes"})
    assert "20.10.24" in log_limits(old)
    assert "--builder classic" in log_limits(old)
    assert "not been tried" in log_limits(Health(name="docker", version="28.1.0", details={"buildkit": "yes"}))
    assert log_limits(Health(name="docker", refusal="dead")).startswith("unknown")


def write_config(directory: Path, config: object) -> dict[str, str]:
    (directory / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(directory), "PATH": f"{directory}:/usr/bin:/bin"}


def test_logins_from_auths(tmp_path: Path) -> None:
    auth = base64.b64encode(b"alice:won:der").decode()
    environ = write_config(
        tmp_path, {"auths": {"r.example:5000": {"auth": auth}, "https://index.docker.io/v1/": {"auth": auth}, "x": {}}}
    )
    assert read_login("r.example:5000", environ) == Login("alice", "won:der")
    assert read_login("registry-1.docker.io", environ) == Login("alice", "won:der")
    assert read_login("x", environ) is None
    assert read_login("other.example", environ) is None
    assert "won" not in repr(read_login("r.example:5000", environ))


def test_logins_from_helpers(tmp_path: Path) -> None:
    """A helper is run without a shell, gets the server's name on its input, and may fail."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\n[ "$1" = get ] || exit 1\nread name\n[ "$name" = good.example ] || exit 1\n'
        'echo "{\\"Username\\": \\"bob\\", \\"Secret\\": \\"s3\\"}"\n'
    )
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    environ = write_config(tmp_path, {"credsStore": "test", "credHelpers": {"bad.example": "../../evil"}})
    assert read_login("good.example", environ) == Login("bob", "s3")
    assert read_login("nope.example", environ) is None
    assert read_login("bad.example", environ) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"auths": []}', '{"auths": {"h": {"auth": "%%%"}}}'])
def test_a_broken_configuration_is_no_login(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert read_login("h", {"DOCKER_CONFIG": str(tmp_path)}) is None
    assert read_login("h", {"DOCKER_CONFIG": str(tmp_path / "none")}) is None
