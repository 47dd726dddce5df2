"""What a platform's name means to whoever looks for a worker that builds it. Pure."""

import re

# As engines normalize them (containerd's platform names).
_ALIASES = {"x86_64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
# GOOS and GOARCH: what images can be for.
_SYSTEM = "aix|android|darwin|dragonfly|freebsd|illumos|ios|js|linux|netbsd|openbsd|plan9|solaris|wasip1|windows"
_PROCESSOR = (
    "386|amd64|arm|arm64|armhf|armel|aarch64|i386|loong64|mips|mips64|mips64le|mipsle|ppc64|ppc64le|riscv64|s390x|wasm"
)
KNOWN = f"^(?:{_SYSTEM}|{_PROCESSOR}|(?:{_SYSTEM})/(?:{_PROCESSOR})(?:/[a-z0-9]+)?)$"
"""A system and a processor that there are, or one of the two: a regular expression."""
# What every processor of this kind runs without help.
_ALSO = {"linux/amd64": ("linux/386",)}


def family(platform: str) -> str:
    """`os/architecture` without the variant, which placing does not tell apart; empty for one that names neither.

    >>> family("linux/arm64/v8"), family("arm64"), family("linux")
    ('linux/arm64', 'linux/arm64', '')
    """
    os, _, rest = platform.partition("/")
    architecture = rest.partition("/")[0]
    if not rest:
        if os == "linux":
            return ""
        os, architecture = "linux", os
    return f"{os}/{_ALIASES.get(architecture, architecture)}"


def is_known(platform: str) -> bool:
    """Whether an engine can know it: a system and a processor that there are, in `system/processor[/variant]`.

    >>> is_known("linux/arm64/v8"), is_known("arm64"), is_known("linux"), is_known("linux/amd46"), is_known("amd64/v2")
    (True, True, True, False, False)
    """
    return re.fullmatch(KNOWN, platform) is not None


def runs(machine: str, os: str = "linux") -> list[str]:
    """The platforms that a machine runs by itself; `machine` as the kernel or an engine names it.

    >>> runs("x86_64")
    ['linux/amd64', 'linux/386']
    """
    own = family(f"{os}/{machine}")
    return [own, *_ALSO.get(own, ())]
