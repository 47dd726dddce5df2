"""Declared sources: what they match, what they refuse, what jobs they make."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blacktree.errors import BadRequest
from blacktree.job import Origin
from blacktree.source import Source, filled_tags, fits, job_spec, repository_key, restricted, source_from

URL = "https://git.example.org/team/app.git"
COMMIT = "c" * 40


def source(**more: Any) -> Source:
    return source_from({"name": "app", "repository": URL, **more})


@pytest.mark.parametrize(
    ("name", "patterns", "found"),
    [
        ("main", ["main"], True),
        ("main", ["mai"], False),
        ("feature/a/b", ["feature/*"], True),
        ("feature/a/b", ["*"], True),
        ("v1.2", ["v[0-9]*"], True),
        ("Main", ["main"], False),
        ("wip", ["*", "!wip"], False),
        ("main", ["!wip"], False),
        ("main", [], False),
    ],
)
def test_patterns(name: str, patterns: list[str], found: bool) -> None:
    assert fits(name, patterns) is found


def test_without_patterns_every_branch_is_built_and_nothing_else() -> None:
    assert source().takes_branch("any")
    assert not source().takes_tag("v1")
    assert not source(tags=["v*"]).takes_branch("any")
    assert not source(pull_requests=True).takes_branch("any")
    assert source(pull_requests=True).takes_pull_request("any")
    assert not source(pull_requests=True, branches=["main"]).takes_pull_request("other")


FORMS = [
    "https://git.example.org/team/app",
    "https://GIT.example.org:443/team/app.git/",
    "http://git.example.org/Team/App.git",
    "git@git.example.org:team/app.git",
    "ssh://git@git.example.org/team/app.git",
    "ssh://git@git.example.org:22/team/app",
    "git://git.example.org/team/app.git",
    "https://git.example.org/team/%61pp.git",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_address_is_one_repository(form: str) -> None:
    assert repository_key(form) == "git.example.org/team/app"


def test_other_places_are_other_repositories() -> None:
    keys = {repository_key(form) for form in (URL, "https://git.example.org:8443/team/app", "https://x.org/team/app")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"repository": "/srv/app"}, "source.repository"),
        ({"repository": "file:///srv/app"}, "source.repository"),
        ({"repository": "https://user:word@git.example.org/team/app"}, "source.repository"),
        ({"name": "Not This"}, "source.name"),
        ({"forge": "svn"}, "source.forge"),
        ({"branch": ["main"]}, "source.branch"),
        ({"spec": {"repository": URL}}, "source.spec.repository"),
        ({"spec": {"ref": "main"}}, "source.spec.ref"),
        ({"spec": {"idempotency_key": "x"}}, "source.spec.idempotency_key"),
        ({"spec": {"priority": 99}}, "source.spec.priority"),
        ({"spec": {"tags": ["{unknown}"]}}, "source.spec.tags[0]"),
        ({"spec": {"tags": "latest"}}, "source.spec.tags"),
        ({"secrets": ["a b"]}, "source.secrets[0]"),
        ({"allow_forks": ["everything"]}, "source.allow_forks[0]"),
        ({"allow_forks": ["cache", "deployment"]}, "source.allow_forks[1]"),
        ({"forge_url": "https://user@api.example.org"}, "source.forge_url"),
        ({"forge_url": "ftp://api.example.org"}, "source.forge_url"),
        ({"webhook_secret": ""}, "source.webhook_secret"),
    ],
)
def test_what_cannot_work_is_refused_with_its_path(more: dict[str, Any], path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        source(**more)
    assert caught.value.path == path


def test_who_would_deploy_forks_is_told_that_they_never_are() -> None:
    with pytest.raises(BadRequest, match="from a fork is never deployed"):
        source(allow_forks=["deployment"])


def test_a_job_is_the_template_at_the_commit() -> None:
    made = source(spec={"context": "web", "secrets": ["a"]}, secrets=["b", "a"])
    spec = job_spec(made, Origin(source="app", branch="main", commit=COMMIT))
    assert (spec.repository, spec.ref, spec.context, spec.secrets) == (URL, COMMIT, "web", ["a", "b"])


def test_tags_are_filled_in() -> None:
    words = ["{short}", "{branch}", "{tag}", "pr-{pull_request}", "latest", "b-{branch}-{short}"]
    on_branch = Origin(source="app", branch="feature/é x", commit=COMMIT)
    assert filled_tags(words, on_branch) == [
        COMMIT[:12],
        "feature-x",
        "latest",
        f"b-feature-x-{COMMIT[:12]}",
    ]
    assert filled_tags(words, Origin(source="app", tag="v1", commit=COMMIT)) == [COMMIT[:12], "v1", "latest"]
    pull = Origin(source="app", branch="main", pull_request=3, commit=COMMIT)
    assert filled_tags(words, pull) == [COMMIT[:12], "pr-3", "latest"]


@given(st.sets(st.sampled_from(["secrets", "push", "cache"])), st.booleans())
def test_an_untrusted_origin_never_gets_more_than_is_allowed(allowed: set[str], trusted: bool) -> None:
    full = source(
        spec={"image": "r.example/team/app", "tags": ["latest"], "cache_from": ["r.example/team/app:cache"]},
        push=True,
        run={"name": "app"},
        secrets=["token"],
    )
    origin = Origin(source="app", pull_request=3, commit=COMMIT, trusted=trusted, allowed=sorted(allowed))
    spec = job_spec(full, origin)
    assert bool(spec.secrets) == (trusted or "secrets" in allowed)
    assert spec.push == (trusted or "push" in allowed)
    assert (spec.run is not None) == trusted
    assert (spec.tags == ["latest"]) == (trusted or "push" in allowed)
    assert bool(spec.cache_from) == (trusted or "cache" in allowed)
    assert spec.no_cache == (not trusted and "cache" not in allowed)
    assert restricted(spec, origin) == spec


@given(st.text(max_size=200))
def test_any_branch_name_makes_a_tag_that_an_image_can_have(branch: str) -> None:
    made = source(spec={"tags": ["b{branch}"]})
    spec = job_spec(made, Origin(source="app", branch=branch, commit=COMMIT))
    assert all(tag.startswith("b") and len(tag) <= 128 for tag in spec.tags)
