"""Which foreign programs this machine's kernel starts by itself, also inside containers (Linux, binfmt-misc.rst)."""

from pathlib import Path

from blacktree.platforms import family

_ENTRIES = Path("/proc/sys/fs/binfmt_misc")
# By the names under which qemu-user is registered everywhere; qemu's names of processors where images use others.
_QEMU = "qemu-"
_NAMES = {"mips64el": "mips64le", "loongarch64": "loong64"}
_OTHERS = {"rosetta": "linux/amd64"}


def emulated(entries: Path = _ENTRIES) -> list[str]:
    """The families of platforms, sorted. Empty where nothing is registered or nothing can be seen."""
    try:
        files = [each for each in entries.iterdir() if each.name.startswith(_QEMU) or each.name in _OTHERS]
        return sorted({_platform(each.name) for each in files if _works(each.read_text())})
    except OSError:
        return []


def _works(entry: str) -> bool:
    """Enabled, and with its interpreter opened beforehand (F): in a container's own tree there is none."""
    lines = entry.splitlines()
    return "enabled" in lines and any(line.startswith("flags:") and "F" in line[6:] for line in lines)


def _platform(name: str) -> str:
    machine = name.removeprefix(_QEMU)
    return _OTHERS.get(name) or family(f"linux/{_NAMES.get(machine, machine)}")
