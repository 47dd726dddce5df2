"""`blacktree systemd`: a hardened unit for each daemon."""

import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blacktree.cli.options import config_option, debug_option

if TYPE_CHECKING:
    from blacktree.config import Config

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|\d{1,10}")
EPILOG = """\b
Examples:
  blacktree systemd orchestrator --config /etc/blacktree/orchestrator.toml \\
      | sudo tee /etc/systemd/system/blacktree-orchestrator.service
  sudo systemctl daemon-reload && sudo systemctl enable --now blacktree-orchestrator
"""

WATCHDOG_SECONDS = 60
# What ending takes beyond the grace: proofs, last reports, the outbox.
ENDING_SECONDS = 30

WORDS = {
    "orchestrator": "Blacktree orchestrator: jobs, queue, logs and the door",
    "worker": "Blacktree worker: builds images on this machine's container engine",
    "up": "Blacktree farm: orchestrator and a worker on one machine",
}


@click.command(epilog=EPILOG)
@click.argument("part", type=click.Choice(list(WORDS)))
@config_option
@click.option("--user", metavar="NAME", help="Run as this user instead of one that systemd makes (DynamicUser).")
@click.option("--docker-group", metavar="NAME", default="docker", show_default=True, help="Who may use the engine.")
@debug_option
def systemd(part: str, config_file: str | None, user: str | None, docker_group: str) -> None:
    """Print a hardened systemd unit (Type=notify) for the orchestrator, a worker or a whole farm."""
    from blacktree.config import load

    for flag, name in (("--user", user), ("--docker-group", docker_group)):
        if name is not None and not _NAME.fullmatch(name):
            raise click.UsageError(f"{flag} {name!r} cannot name a user or group")
    config = load(config_file)[0]
    arguments = [part]
    if config_file:
        arguments += ["--config", str(Path(config_file).absolute())]
    click.echo(unit(part, config, own_program(), arguments, user=user, docker_group=docker_group), nl=False)


def own_program() -> list[str]:
    """This program's absolute path, or the interpreter's with `-m blacktree`."""
    installed = Path(sys.executable).with_name("blacktree")
    return [str(installed)] if os.access(installed, os.X_OK) else [sys.executable, "-m", "blacktree"]


def quoted(word: str) -> str:
    """A word of `ExecStart=`: systemd expands `%` and `$`, and splits at spaces (systemd.service(5))."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if any(char in word for char in " \t'\"\\"):
        return '"' + word.replace('"', '\\"') + '"'
    return word


def unit(
    part: str, config: "Config", program: list[str], arguments: list[str], *, user: str | None, docker_group: str
) -> str:
    """The unit's text."""
    builds = part in ("worker", "up")
    grace = config.orchestrator.shutdown_grace_seconds
    if part == "worker":
        grace = config.worker.shutdown_grace_seconds
    elif part == "up":
        grace += config.worker.shutdown_grace_seconds
    name = f"blacktree-{part}"
    # With `up` the worker is a child: it has no business with systemd's socket, `main` alone has.
    rows: list[tuple[str, str] | str] = [
        "[Unit]",
        ("Description", WORDS[part]),
        ("Wants", "network-online.target"),
        ("After", "network-online.target" + (" docker.service" if builds else "")),
        ("StartLimitIntervalSec", "300"),
        ("StartLimitBurst", "10"),
        "",
        "[Service]",
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", " ".join(quoted(word) for word in [*program, *arguments])),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("Restart", "on-failure"),
        ("RestartSec", "2"),
        ("WatchdogSec", str(WATCHDOG_SECONDS)),
        ("TimeoutStartSec", "120"),
        f"# Longer than the {grace:g} s of grace that running builds get.",
        ("TimeoutStopSec", str(math.ceil(grace) + ENDING_SECONDS)),
        "# The daemon ends its builds and children itself, in order.",
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        "",
        *([("User", user)] if user else [("DynamicUser", "yes")]),
    ]
    if builds:
        rows += [
            "# The engine's socket belongs to this group. Whoever may use the engine can be root on this machine.",
            ("SupplementaryGroups", docker_group),
        ]
    rows += [
        ("StateDirectory", name),
        ("StateDirectoryMode", "0700"),
        ("RuntimeDirectory", name),
        ("RuntimeDirectoryMode", "0700"),
        ("UMask", "0077"),
        "# Secrets can come as credentials: they are then under %d, which settings may name, e.g.",
        *_credentials(part),
        "",
        ("ProtectSystem", "strict"),
        *_writable(config.worker.state_directory if part == "worker" else config.orchestrator.state_directory),
        ("ProtectHome", _home(program)),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("DevicePolicy", "closed"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectHostname", "yes"),
        *([] if builds else [("ProtectProc", "invisible"), ("ProcSubset", "pid")]),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RemoveIPC", "yes"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        # A worker's git starts ssh, which gives up privileges it does not have: that call must be there.
        *([] if builds else [("SystemCallFilter", "~@privileged @resources")]),
        ("SystemCallErrorNumber", "EPERM"),
        ("LimitNOFILE", "65536"),
        "",
        "[Install]",
        ("WantedBy", "multi-user.target"),
    ]
    return "\n".join(row if isinstance(row, str) else f"{row[0]}={row[1]}" for row in rows) + "\n"


def _writable(state: str) -> list[tuple[str, str] | str]:
    """A state directory that the settings name; systemd's own is writable without a word."""
    if not state:
        return []
    return [
        "# Named in the settings: it must exist, and belong to the unit's user.",
        ("ReadWritePaths", quoted(os.path.abspath(state))),
    ]


def _home(program: list[str]) -> str:
    """Hidden, unless the program itself is installed in somebody's home."""
    return "read-only" if program[0].startswith(("/home/", "/root/", "/run/user/")) else "yes"


def _credentials(part: str) -> list[str]:
    if part == "worker":
        return [
            "#   LoadCredential=join-token:/etc/blacktree/join-token",
            "#   Environment=BLACKTREE_WORKER_JOIN_TOKEN_FILE=%d/join-token",
        ]
    return [
        "#   LoadCredential=token:/etc/blacktree/token",
        "#   Environment=BLACKTREE_ORCHESTRATOR_TOKEN_FILE=%d/token",
        "# and the key of the secret store, which is found by its name:",
        "#   LoadCredential=secrets-key:/etc/blacktree/secrets-key",
    ]
