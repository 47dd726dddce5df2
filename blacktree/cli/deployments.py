"""`blacktree deployments` (and `deployments delete`), `deployment`, `stop` and `restart`: what is kept running."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from blacktree.cli.completing import deployment_name
from blacktree.cli.options import debug_option, json_option, server_options

if TYPE_CHECKING:
    from blacktree.cli.server import Endpoint

_COLOURS = {"running": "green", "failed": "red", "stopped": "yellow"}


@click.group(
    invoke_without_command=True,
    epilog="\b\nExamples:\n  blacktree deployments --json\n  blacktree deployments delete app\n",
)
@json_option
@server_options
@debug_option
@click.pass_context
def deployments(ctx: click.Context, as_json: bool) -> None:
    """List the deployments: what serves, what is to take over, and where."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@deployments.command(epilog="\b\nExample:\n  blacktree deployments delete app\n")
@click.argument("name", shell_complete=deployment_name)
@click.option("--with-secrets", "secrets", is_flag=True, help="Also the run secrets that nothing else names.")
@json_option
@server_options
@debug_option
def delete(name: str, secrets: bool, as_json: bool) -> None:
    """Forget deployment NAME, which must be stopped: its versions and its log."""
    from blacktree.cli.connection import ask
    from blacktree.client.deployments import delete as forget

    was = ask(lambda farm: forget(farm, name, secrets=secrets))
    click.echo(json.dumps(was, ensure_ascii=False) if as_json else f"deployment {name} deleted")


def _list(as_json: bool) -> None:
    from blacktree.cli.connection import ask
    from blacktree.cli.jobs import age
    from blacktree.cli.table import print_table
    from blacktree.client.deployments import deployments as read

    found = ask(read)
    if as_json:
        click.echo(json.dumps({"deployments": found}, ensure_ascii=False))
        return
    if not found:
        click.echo("no deployments; start one with `blacktree deploy`", err=True)
        return
    rows = [("DEPLOYMENT", "STATE", "SERVING", "NEXT", "HEALTHY", "AGE", "PORTS", "NOTE")]
    for each in found:
        serving, target = each["serving"], each["target"]
        own = [row for row in each["replicas"] if row["version"] == serving and not row.get("incoming")]
        healthy = sum(row["state"] == "healthy" for row in own)
        shown = _version(each, serving) or _version(each, target) or {}
        ports = ", ".join(f"{port['address']}:{port['host']}" for port in shown.get("run", {}).get("ports", []))
        rows.append(
            (
                each["name"],
                each["state"],
                str(serving or "-"),
                str(target or "-"),
                f"{healthy}/{len(own)}" if own else "-",
                age(each["updated_at"]),
                ports or "-",
                _note(each),
            )
        )
    print_table(rows, colours=_COLOURS, column=1)


@click.command(epilog="\b\nExample:\n  blacktree deployment app --json\n")
@click.argument("name", shell_complete=deployment_name)
@json_option
@server_options
@debug_option
def deployment(name: str, as_json: bool) -> None:
    """Show deployment NAME whole: its versions, why they ended, and its containers."""
    from blacktree.cli.connection import ask
    from blacktree.client.deployments import deployment as read

    found = ask(lambda farm: read(farm, name))
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(deployment_lines(found)))


@click.command(epilog="\b\nExample:\n  blacktree stop app\n")
@click.argument("name", shell_complete=deployment_name)
@json_option
@server_options
@debug_option
@click.pass_context
def stop(ctx: click.Context, name: str, as_json: bool) -> None:
    """Stop deployment NAME: its containers drain and end, its versions stay on record. Waits until they are gone."""
    from blacktree.cli.connection import ask
    from blacktree.client.deployments import stop as end

    found = ask(lambda farm: end(farm, name))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    elif found["replicas"]:
        click.echo(f"deployment {name} is being stopped; {len(found['replicas'])} containers are left")
    else:
        click.echo(f"deployment {name} stopped")


@click.command(epilog="\b\nExample:\n  blacktree restart app\n")
@click.argument("name", shell_complete=deployment_name)
@click.option("--detach", is_flag=True, help="Do not wait until it is healthy again.")
@json_option
@server_options
@debug_option
@click.pass_context
def restart(ctx: click.Context, name: str, detach: bool, as_json: bool) -> None:
    """Give deployment NAME new containers, one replica after the other; start a stopped one again.

    With one replica there is a gap while it starts; to deploy the same image again leaves none."""
    import trio

    from blacktree.cli.server import endpoint

    ctx.exit(trio.run(_restart, endpoint(), name, detach, as_json))


async def _restart(where: "Endpoint", name: str, detach: bool, as_json: bool) -> int:
    from blacktree.cli.connection import open_farm, say
    from blacktree.cli.deploylog import follow_until
    from blacktree.cli.wording import printed
    from blacktree.client.deployments import deployment as read
    from blacktree.client.deployments import restart as start

    async with open_farm(where) as farm:
        found = await start(farm, name)
        code = 0
        if not detach:
            code = await follow_until(farm, name, settled, say)
            found = await read(farm, name)
        if as_json:
            click.echo(json.dumps(found, ensure_ascii=False))
        else:
            word = {"running": "runs" if not detach else "is being restarted"}.get(found["state"], found["state"])
            said = f"deployment {name} {word}{': ' + _note(found) if _note(found) else ''}"
            click.echo(printed(said, sys.stdout))
        return code


def settled(found: Mapping[str, Any]) -> int | None:
    """The exit code of a restart, once nothing is under way any more."""
    if found["target"] is not None:
        return None
    serving = _version(found, found["serving"])
    if serving is None:
        return 1
    rows = [each for each in found["replicas"] if each["version"] == serving["number"]]
    own = [each["state"] for each in rows if not each.get("incoming")]
    if serving["restarting"] or not all(state in ("healthy", "failed") for state in own):
        return None
    return 0 if all(state == "healthy" for state in own) else 1


def _version(found: Mapping[str, Any], number: int | None) -> dict[str, Any] | None:
    return next((each for each in found["versions"] if each["number"] == number), None)


def _note(found: Mapping[str, Any]) -> str:
    """What a person should know: what the next version waits for, why the newest one is not running or not reached."""
    from blacktree.cli.deploylog import closed_ports

    if found["waiting"]:
        return f"waits for {found['waiting']}"
    newest = found["versions"][-1] if found["versions"] else {}
    if newest.get("state") == "failed":
        return f"version {newest['number']} failed: {newest['reason']}"
    troubled = [each for each in found["replicas"] if each["state"] not in ("healthy", "stopping", "stopped")]
    if troubled:
        return f"replica {troubled[0]['index']} is {troubled[0]['state'].replace('_', ' ')}"
    return "; ".join(closed_ports(found, found["serving"] or 0))


def deployment_lines(found: Mapping[str, Any]) -> list[str]:
    """A deployment for a person."""
    from blacktree.cli.wording import shown

    rows = [
        ("deployment", found["name"]),
        ("state", found["state"]),
        ("serving", found["serving"] and f"version {found['serving']}"),
        ("next", found["target"] and f"version {found['target']}"),
        ("waits for", found["waiting"]),
        ("changed", found["updated_at"]),
    ]
    lines = [f"{name:<10} {value}" for name, value in rows if value]
    for version in reversed(found["versions"]):
        what = version["reference"] or version["image"] or f"build {version['job_id']}"
        back = f", as version {version['rollback_of']}" if version["rollback_of"] else ""
        why = f": {version['reason']}" if version["reason"] else ""
        state = "standing by" if version["drain_until"] else version["state"]
        lines.append(f"version {version['number']} {state}, {what}{back}{why}")
        lines += [f"  | {line}" for line in version["last_lines"][-10:]]
    for each in found["replicas"]:
        text = (
            f"replica {each['version']}/{each['index']} {each['state'].replace('_', ' ')} on worker {each['worker_id']}"
        )
        text += f", {each['address']}" if each["address"] else ""
        text += ", to take the place of the other" if each.get("incoming") else ""
        text += f", restarted {each['restarts']} times" if each["restarts"] else ""
        text += f": {each['reason']}" if each["reason"] else ""
        lines.append(text)
    return [shown(line, terminal=sys.stdout.isatty()) for line in lines]
