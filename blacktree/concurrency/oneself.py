"""This program as a child process: its command line, its package, and what tells one process from another."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def own_command() -> list[str]:
    """This program, as a child's command line; without the current directory on Python's path."""
    return [sys.executable, "-P", "-m", "blacktree"]


def own_python_path(environ: Mapping[str, str]) -> str:
    """`PYTHONPATH` with which `own_command` finds this very package."""
    import blacktree

    home = str(Path(blacktree.__file__).parent.parent)
    return os.pathsep.join(dict.fromkeys([home, *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]))


def birth(pid: int) -> str:
    """When a process was started, in a form that no other process with its number can have; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    # proc(5): the name in parentheses may hold anything; the start time is the 22nd field, the 20th after it.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else f"{boot}:{fields[19]}"
