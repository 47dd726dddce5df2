"""Forms of the command line: durations, pairs, images, sources."""

import os
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.cli.build import image_and_tags, source, spec_of
from blacktree.cli.options import KeyValue, parse_duration
from blacktree.endpoints import check_broker_url
from blacktree.errors import BadRequest
from blacktree.spec import spec_from


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1.5m", 90), ("0.5", 0.5), (" 2H ", 7200)],
)
def test_durations(text: str, value: float) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "s", "h", "-3", "3d", "1m2h", "ten", "1 h", "3ms", "nan", "1e3", "٣s x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def test_pairs() -> None:
    assert KeyValue().convert("A=b=c", None, None) == ("A", "b=c")
    assert KeyValue().convert("A=", None, None) == ("A", "")


def test_a_bare_build_argument_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "1")
    assert KeyValue(from_environment=True).convert("FROM_HERE", None, None) == ("FROM_HERE", "1")
    with pytest.raises(click.BadParameter, match="no such variable"):
        KeyValue(from_environment=True).convert("FROM_NOWHERE", None, None)
    with pytest.raises(click.BadParameter, match="use FROM_HERE=VALUE"):
        KeyValue().convert("FROM_HERE", None, None)


@pytest.mark.parametrize(
    ("names", "image", "tags"),
    [
        (("app",), "app", []),
        (("team/app:1",), "team/app", ["1"]),
        (("host:5000/app",), "host:5000/app", []),
        (("host:5000/app:1", "host:5000/app:2"), "host:5000/app", ["1", "2"]),
        (("app", "app:1"), "app", ["latest", "1"]),
        (("app:1", "app:1"), "app", ["1"]),
    ],
)
def test_names_of_an_image(names: tuple[str, ...], image: str, tags: list[str]) -> None:
    assert image_and_tags(names) == (image, tags)


@pytest.mark.parametrize("names", [("a:1", "b:1"), ("a@sha256:00",), ("",), ("a:",), (":1",), ("h/",)])
def test_names_that_cannot_be_given(names: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        image_and_tags(names)


def test_paths_become_absolute_and_addresses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").mkdir()
    assert source(".") == str(tmp_path)
    assert source("./app") == str(tmp_path / "app")
    assert source("app") == str(tmp_path / "app")
    assert source("../x") == str(tmp_path.parent / "x")
    assert source("/srv/../app") == "/app"
    for address in ("https://h/a.git", "git@h:a.git", "ssh://h/a", "file:///srv/a"):
        assert source(address) == address
    for neither in ("nowhere", "owner/app", "git.example.org/owner/app"):
        with pytest.raises(click.UsageError, match=r"write .*https://g"):
            source(neither)


def test_a_spec_holds_only_what_was_asked_for() -> None:
    given_options = dict.fromkeys(("ref", "context", "dockerfile", "target", "platform", "builder", "pool", "priority"))
    spec = spec_of("https://h/a.git", timeout=None, no_cache=False, push=False, secrets=(), **given_options)
    assert spec == {"repository": "https://h/a.git"}


def test_every_option_reaches_the_spec() -> None:
    spec = spec_of(
        "https://h/a.git",
        ref="main",
        context="sub",
        dockerfile="D",
        tags=("r.example/app:1", "r.example/app:2"),
        target="t",
        build_args=(("A", "1"), ("B", "2")),
        labels=(("l", "v"),),
        secrets=("s",),
        platform="linux/amd64",
        no_cache=True,
        pull=True,
        cache_from=("c",),
        builder="classic",
        pool="arm",
        priority=0,
        timeout=90.0,
        max_attempts=2,
    )
    found = spec_from(spec)
    assert found.tags == ["1", "2"]
    assert found.image == "r.example/app"
    assert found.build_args == {"A": "1", "B": "2"}
    assert (found.priority, found.timeout_seconds, found.builder) == (0, 90, "classic")
    assert (found.no_cache, found.pull, found.pool, found.secrets) == (True, True, "arm", ["s"])


def test_one_platform_and_several() -> None:
    image = ("r.example/app:1",)
    assert spec_from(spec_of("https://h/a.git", platforms=("linux/arm64",))).platform == "linux/arm64"
    both = spec_of("https://h/a.git", tags=image, platforms=("linux/amd64", "linux/arm64"), push=True)
    assert spec_from(both).platforms == ["linux/amd64", "linux/arm64"]
    for refused in ({"push": False}, {"image": None}, {"platforms": ["linux/amd64", "linux/amd64"]}):
        with pytest.raises(BadRequest):
            spec_from(both | refused)
    with pytest.raises(BadRequest):
        spec_from(both | {"platform": "linux/amd64"})


def test_the_current_directory_is_not_read_twice() -> None:
    assert source(".") == os.getcwd()


@pytest.mark.parametrize("platform", ["nonsense", "linux/amd46", "amd64/v2", "linux/x/y"])
def test_a_platform_that_there_is_not_is_refused(platform: str) -> None:
    for spec in ({"platform": platform}, {"platforms": ["linux/amd64", platform], "push": True, "image": "a"}):
        with pytest.raises(BadRequest, match="write it like linux/arm64"):
            spec_from({"repository": "https://h/a.git"} | spec)


@pytest.mark.parametrize("url", ["nonsense", "http://x", "amqp://", "amqps://:1", "amqp://h:x", "amqp://[h"])
def test_what_is_no_broker_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadRequest, match="amqp://user:password@host"):
        check_broker_url(url)
