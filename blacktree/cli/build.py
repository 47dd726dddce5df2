"""`blacktree build` and `blacktree retry`: submit a job and follow it to its end."""

import os
from typing import Any

import click

from blacktree.cli.completing import directory, ended_job, pool_name
from blacktree.cli.options import Duration, KeyValue, debug_option, json_option, server_options

EXITS = """
Exit codes: 0 built, 1 failed, 3 canceled, 4 timed out, 5 lost, 2 rejected, 6 server unreachable, 130 left running.
Ctrl-C asks for cancellation and waits until it is proven; a second one leaves the job alone."""

EPILOG = f"""\b
Examples:
  blacktree build -t owner/app:latest
  blacktree build https://github.com/owner/app.git --ref v1.2 -t owner/app:1.2 -t owner/app:latest
  blacktree build . --build-arg VERSION=3 --secret npm_token --timeout 15m
  blacktree build . -t registry.example/team/app:1.2 --platform linux/amd64 --platform linux/arm64 --push
  JOB=$(blacktree build https://github.com/owner/app.git --detach)

Without REPOSITORY, in a repository's directory: the newest pushed commit of what is checked out there, from its
remote. What is not committed or not pushed is told on stderr; with --ref, or an address, nothing is looked at.
{EXITS}
"""

RETRY_EPILOG = f"""\b
Example:
  blacktree retry 06f1s7x2h0c9q4rt
{EXITS}
"""


@click.command(epilog=EPILOG)
@click.argument("repository", required=False, shell_complete=directory)
@click.option("--ref", metavar="REF", help="Branch, tag or commit (default: the remote's HEAD).")
@click.option("--context", metavar="DIR", help="The build context inside the repository (default: its root).")
@click.option("-f", "--file", "dockerfile", metavar="DOCKERFILE", help="Relative to the context (default: Dockerfile).")
@click.option("-t", "--tag", "tags", multiple=True, metavar="IMAGE[:TAG]", help="Name of the image; repeatable.")
@click.option("--target", metavar="STAGE", help="Build this stage.")
@click.option(
    "--build-arg",
    "build_args",
    multiple=True,
    metavar="K=V",
    type=KeyValue(from_environment=True),
    help="A build argument; a bare K takes its value from the environment; repeatable.",
)
@click.option(
    "--label", "labels", multiple=True, metavar="K=V", type=KeyValue(), help="A label of the image; repeatable."
)
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A secret the farm holds; repeatable.")
@click.option("--platform", "platforms", multiple=True, metavar="P", help="E.g. linux/arm64; repeatable with --push.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@click.option("--pull", is_flag=True, help="Ask the registry for newer base images.")
@click.option("--cache-from", multiple=True, metavar="IMAGE", help="Take layers from this image; repeatable.")
@click.option(
    "--builder",
    type=click.Choice(["auto", "buildkit", "classic"]),
    help="The engine's builder (default: auto, BuildKit where it has it).",
)
@click.option("--push", is_flag=True, help="Push the image to its registry.")
@click.option("--pool", metavar="NAME", shell_complete=pool_name, help="The workers to choose from.")
@click.option("--priority", type=click.IntRange(0, 9), metavar="0-9", help="9 goes first (default 5).")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="For each attempt: 90s, 15m, 2h (default 1h).")
@click.option(
    "--max-attempts", type=click.IntRange(1, 20), metavar="N", help="In all, when workers or networks fail (default 3)."
)
@click.option("--key", metavar="IDEMPOTENCY-KEY", help="The same key again answers with the first job.")
@click.option("--detach", is_flag=True, help="Print the job's id and leave.")
@json_option
@server_options
@debug_option
@click.pass_context
def build(ctx: click.Context, /, repository: str | None, detach: bool, as_json: bool, **options: Any) -> None:
    """Build an image from a commit of REPOSITORY: an https, ssh or git address, or a path where the farm allows it."""
    from blacktree.cli.follow import run_and_follow

    key = options.pop("key")
    repository, options["ref"] = _looked_up(repository, options["ref"])
    spec = spec_of(repository, **options)
    ctx.exit(run_and_follow(lambda farm: farm.submit(spec, key=key), detach=detach, as_json=as_json))


@click.command(epilog=RETRY_EPILOG)
@click.argument("job", shell_complete=ended_job)
@click.option("--detach", is_flag=True, help="Print the new job's id and leave.")
@json_option
@server_options
@debug_option
@click.pass_context
def retry(ctx: click.Context, job: str, detach: bool, as_json: bool) -> None:
    """Make a new job with the spec and commit of JOB, which must have ended, and follow it."""
    from blacktree.cli.follow import run_and_follow

    ctx.exit(run_and_follow(lambda farm: farm.retry(job), detach=detach, as_json=as_json))


def _looked_up(repository: str | None, ref: str | None) -> tuple[str, str | None]:
    """What to build when not all of it was named; tells what will not be in it, on stderr."""
    from blacktree.cli.connection import say
    from blacktree.cli.worktree import here, uncommitted

    if repository == "":
        raise click.UsageError("REPOSITORY is empty: give an address or a path, or nothing for this directory's remote")
    if repository is None:
        found = here(ref=ref)
        for line in found.lines:
            say(line)
        return found.repository, found.ref
    if ref is None and os.path.isdir(path := source(repository)):
        for line in uncommitted(path):
            say(line)
    return repository, ref


def spec_of(
    repository: str,
    *,
    tags: tuple[str, ...] = (),
    platforms: tuple[str, ...] = (),
    timeout: float | None = None,
    **given: Any,
) -> dict[str, Any]:
    """The spec as it is sent: only what was asked for, so that the server's defaults hold."""
    spec: dict[str, Any] = {"repository": source(repository)}
    if os.path.isdir(spec["repository"]):
        from blacktree.cli.worktree import refuse_below

        refuse_below(spec["repository"])
    for name, value in given.items():
        match value:
            case None | False | ():
                continue
            case tuple() if name in ("build_args", "labels"):
                spec[name] = dict(value)
            case tuple():
                spec[name] = list(value)
            case _:
                spec[name] = value
    # One platform needs no registry to hold several together.
    if len(platforms) == 1:
        spec["platform"] = platforms[0]
    elif platforms:
        spec["platforms"] = list(platforms)
    if timeout is not None:
        spec["timeout_seconds"] = timeout
    if tags:
        image, names = image_and_tags(tags)
        spec["image"] = image
        if names:
            spec["tags"] = names
    return spec


def source(repository: str) -> str:
    """What the server is given: a path of this machine becomes absolute, an address stays as it is.

    Raises `UsageError` for what is neither.
    """
    if repository in (".", "..") or repository.startswith(("./", "../", "/")):
        return os.path.abspath(repository)
    if "://" in repository or ":" in repository.partition("/")[0]:
        return repository
    if os.path.isdir(repository):
        return os.path.abspath(repository)
    # A path from here means nothing to a farm.
    host, _, path = repository.partition("/")
    guess = f"https://{repository}" if path and "." in host else "an address such as https://github.com/owner/app"
    raise click.UsageError(f"there is no directory `{repository}` here, and it is no address; write {guess}, or a path")


def image_and_tags(names: tuple[str, ...]) -> tuple[str, list[str]]:
    """Image and tags from every `-t`. Raises `UsageError` for two images or a digest.

    >>> image_and_tags(("registry.example:5000/app:1", "registry.example:5000/app:latest"))
    ('registry.example:5000/app', ['1', 'latest'])
    """
    images: list[str] = []
    tags: list[str] = []
    for name in names:
        if "@" in name:
            raise click.UsageError(f"-t {name}: a name to be given cannot hold a digest; use IMAGE:TAG")
        head, slash, tail = name.rpartition("/")
        last, colon, tag = tail.partition(":")
        if not last or (colon and not tag):
            raise click.UsageError(f"-t {name!r} is not IMAGE or IMAGE:TAG")
        images.append(f"{head}{slash}{last}")
        # Several names, one of them bare: that one means `latest`, as everywhere.
        if tag or len(names) > 1:
            tags.append(tag or "latest")
    if len(set(images)) > 1:
        raise click.UsageError(
            f"every -t must name the same image, here are {', '.join(sorted(set(images)))}; submit one job for each"
        )
    return images[0], list(dict.fromkeys(tags))
