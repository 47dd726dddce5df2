"""`blacktree deploy` and `blacktree rollback`: a new version, followed until it runs or has failed."""

import json
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from blacktree.cli.completing import deployment_name, directory, pool_name
from blacktree.cli.options import Duration, KeyValue, debug_option, json_option, server_options
from blacktree.cli.runoptions import run_options, run_spec

if TYPE_CHECKING:
    from blacktree.cli.server import Endpoint
    from blacktree.client import Client

EXITS = """
Exit codes: 0 running, 1 failed (the version before it goes on serving), 3 stopped or superseded, 2 rejected,
6 server unreachable, 130 left alone by Ctrl-C."""

EPILOG = f"""\b
Examples:
  blacktree deploy registry.example/team/app:1.4 --name app --port 8080:80 --health-http 80/healthz
  blacktree deploy https://github.com/owner/app.git --name app --port 8080:3000 --env MODE=production --secret db
  blacktree deploy . --run-file run.json --detach
{EXITS}
"""

ROLLBACK_EPILOG = f"""\b
Examples:
  blacktree rollback app
  blacktree rollback app 3
{EXITS}
"""


@click.command(epilog=EPILOG)
@click.argument("image_or_repository", metavar="IMAGE|REPOSITORY", shell_complete=directory)
@run_options
@click.option("--ref", metavar="REF", help="Of a repository: branch, tag or commit.")
@click.option("--context", metavar="DIR", help="Of a repository: the build context.")
@click.option("-f", "--file", "dockerfile", metavar="DOCKERFILE", help="Of a repository: relative to the context.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="IMAGE[:TAG]", help="Of a repository: the image's name.")
@click.option("--target", metavar="STAGE", help="Of a repository: build this stage.")
@click.option(
    "--build-arg",
    "build_args",
    multiple=True,
    metavar="K=V",
    type=KeyValue(from_environment=True),
    help="A build argument; repeatable.",
)
@click.option("--build-secret", "secrets", multiple=True, metavar="NAME", help="A secret for the build; repeatable.")
@click.option("--push", is_flag=True, help="Of a repository: push the image, so that any worker can run it.")
@click.option("--timeout", type=Duration(), metavar="DURATION", help="Of a repository: for the build.")
@click.option("--pool", metavar="NAME", shell_complete=pool_name, help="The workers to choose from.")
@click.option("--key", metavar="IDEMPOTENCY-KEY", help="Of a repository: the same key again makes no second version.")
@click.option("--detach", is_flag=True, help="Print the version's number and leave.")
@json_option
@server_options
@debug_option
@click.pass_context
def deploy(ctx: click.Context, /, image_or_repository: str, detach: bool, as_json: bool, **options: Any) -> None:
    """Run IMAGE, or what REPOSITORY builds, as a new version of a named service, and follow it.

    The version that serves now goes on until the new one is healthy, and takes over again should that break."""
    import trio

    from blacktree.cli.server import endpoint
    from blacktree.client.deployments import deploy as start

    wanted = wanted_of(image_or_repository, options)
    ctx.exit(trio.run(_follow, endpoint(), lambda farm: start(farm, wanted), detach, as_json))


@click.command(epilog=ROLLBACK_EPILOG)
@click.argument("name", shell_complete=deployment_name)
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("--detach", is_flag=True, help="Print the new version's number and leave.")
@json_option
@server_options
@debug_option
@click.pass_context
def rollback(ctx: click.Context, name: str, version: int | None, detach: bool, as_json: bool) -> None:
    """Make a new version of NAME like VERSION, or like the one that ran before, and follow it."""
    import trio

    from blacktree.cli.server import endpoint
    from blacktree.client.deployments import rollback as start

    ctx.exit(trio.run(_follow, endpoint(), lambda farm: start(farm, name, version), detach, as_json))


async def _follow(
    where: "Endpoint", start: "Callable[[Client], Awaitable[dict[str, Any]]]", detach: bool, as_json: bool
) -> int:
    from blacktree.cli.connection import open_farm
    from blacktree.cli.deploylog import deployment_printer, follow_ports, follow_version, say_outcome
    from blacktree.cli.follow import follow
    from blacktree.cli.progress import printer_for
    from blacktree.client.deployments import deployment

    printer = deployment_printer(as_json=as_json)
    async with open_farm(where, printer.note) as farm:
        done = await start(farm)
        name, version, job = done["deployment"]["name"], done["version"], done["job"]
        if detach:
            click.echo(json.dumps(done, ensure_ascii=False) if as_json else version)
            return 0
        if job is not None and not _is_built(done):
            building = printer_for(as_json=as_json, whole=not as_json)
            with building:
                building.begin(job)
                code = await follow(farm, job, building, cancels=True)
            if code:
                return code
        with printer:
            printer.begin(name)
            code = await follow_version(farm, name, version, done["from_seq"], printer)
            if code == 0:
                code = await follow_ports(farm, name, version)
        if code != 130:
            found = await deployment(farm, name)
            if as_json:
                click.echo(json.dumps({"deployment": found, "version": version}, ensure_ascii=False))
            else:
                say_outcome(found, version)
        return code


def _is_built(done: dict[str, Any]) -> bool:
    versions = done["deployment"]["versions"]
    return any(each["number"] == done["version"] and each["image"] for each in versions)


def wanted_of(target: str, options: dict[str, Any]) -> dict[str, Any]:
    """What is sent: a job's spec with `run` for a repository, else the image and `run`. Raises `UsageError`."""
    from blacktree.cli.build import spec_of

    run, rest = run_spec(options)
    if is_repository(target):
        key = rest.pop("key")
        wanted = spec_of(target, **rest) | {"run": run}
        return wanted | ({"idempotency_key": key} if key else {})
    pool = rest.pop("pool")
    given = [name for name, value in rest.items() if value]
    if given:
        flag = {"dockerfile": "file", "tags": "tag", "build_args": "build-arg", "secrets": "build-secret"}
        first = flag.get(given[0], given[0]).replace("_", "-")
        raise click.UsageError(
            f"--{first} goes with a repository, and `{target}` is an image; for a path use ./{target}"
        )
    return {"image": target, "run": run} | ({"pool": pool} if pool else {})


def is_repository(target: str) -> bool:
    """Whether this names a repository: an address, or a directory; anything else is an image.

    >>> is_repository("git@github.com:owner/app.git"), is_repository("registry.example:5000/app:1")
    (True, False)
    """
    if "://" in target or target in (".", "..") or target.startswith(("./", "../", "/")):
        return True
    # `user@host:path`; in an image `@` stands before a digest.
    head, at, tail = target.partition("@")
    if at and not tail.startswith("sha256:") and "/" not in head and ":" in tail:
        return True
    return target.endswith(".git") or os.path.isdir(os.path.join(target, ".git"))
