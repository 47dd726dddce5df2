"""What a platform's name means to whoever looks for a worker that builds it. Pure."""

# As engines normalize them (containerd's platform names).
_ALIASES = {"x86_64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
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


def runs(machine: str, os: str = "linux") -> list[str]:
    """The platforms that a machine runs by itself; `machine` as the kernel or an engine names it.

    >>> runs("x86_64")
    ['linux/amd64', 'linux/386']
    """
    own = family(f"{os}/{machine}")
    return [own, *_ALSO.get(own, ())]
