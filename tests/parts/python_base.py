"""A base image without network: this machine's Debian Python, git and ssh, and the packages of our environment."""

import io
import re
import subprocess
import sys
import tarfile
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ["coreutils", "dash", "sed", "git", "openssh-client"]
LEFT_OUT = re.compile(
    r"/(__pycache__|site-packages|dist-packages|test|tests|idlelib|lib2to3|ensurepip|config-3\.\d+[^/]*)(/|$)"
)


def import_python_base(name: str) -> None:
    """Import the image under this name into the engine that `docker` speaks to."""
    with subprocess.Popen(
        ["docker", "import", "-c", f"ENV PATH={sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin", "-", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as importer:
        assert importer.stdin is not None
        with tarfile.open(fileobj=importer.stdin, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            _fill(_Layer(tar))
        importer.stdin.close()
        assert importer.wait() == 0


class _Layer:
    """A tar that holds each path once: `docker import` refuses doubles."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: set[str] = set()

    def _new(self, path: str) -> bool:
        fresh = path not in self._seen
        self._seen.add(path)
        return fresh

    def directory(self, path: str, mode: int = 0o755) -> None:
        if self._new(path):
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, mode
            self._tar.addfile(info)

    def link(self, path: str, target: str) -> None:
        if self._new(path):
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            self._tar.addfile(info)

    def text(self, path: str, content: str, mode: int = 0o644) -> None:
        if self._new(path):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content.encode()), mode
            self._tar.addfile(info, io.BytesIO(content.encode()))

    def file(self, source: Path, path: str) -> None:
        """A file, its links followed, at `path` and with every directory above it."""
        for parent in reversed(Path(path).parents[:-1]):
            self.directory(str(parent))
        if not self._new(path):
            return
        real = source.resolve()
        info = tarfile.TarInfo(path)
        info.size, info.mode = real.stat().st_size, real.stat().st_mode & 0o777
        with real.open("rb") as content:
            self._tar.addfile(info, content)

    def tree(self, source: Path, path: str) -> None:
        for each in sorted(source.rglob("*")):
            inside = f"/{each.relative_to(source)}"
            if each.is_file() and not LEFT_OUT.search(inside):
                self.file(each, path + inside)


def _fill(layer: _Layer) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for path in (
        "usr",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "root",
        "var",
        "var/lib",
        "proc",
        "dev",
        "sys",
    ):
        layer.directory(path)
    layer.directory("tmp", 0o1777)
    for path in ("bin", "sbin", "lib", "lib64"):
        layer.link(path, f"usr/{path}")
    layer.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    layer.text("etc/group", "root:x:0:\n")
    python = Path(sys.base_prefix)
    ours = Path(sys.prefix) / "lib" / version / "site-packages"
    programs = _programs()
    real_python = Path(sys.executable).resolve()
    packages = _packages(ours)
    shared = [path for path in packages if ".so" in path.name]
    libraries = _libraries([*programs, real_python, *(python / "lib" / version / "lib-dynload").glob("*.so"), *shared])
    for program in programs:
        layer.file(program, f"usr/bin/{program.name}")
    for git_core in Path("/usr/lib/git-core").glob("git-remote-http*"):
        layer.file(git_core, str(git_core).lstrip("/"))
    for library in (each for each in libraries if not each.is_relative_to(ours)):
        # Debian's /lib is a link to /usr/lib, and a layer must not go through a link.
        path = f"/usr{library}" if str(library).startswith("/lib") else str(library)
        layer.file(library, path.lstrip("/"))
    home = str(python).lstrip("/")
    layer.file(real_python, f"{home}/bin/{version}")
    layer.tree(python / "lib" / version, f"{home}/lib/{version}")
    for name in ("python3", "python"):
        layer.link(f"usr/bin/{name}", f"/{home}/bin/{version}") if home != "usr" else layer.link(
            f"usr/bin/{name}", version
        )
    # Where this Python looks for packages that were not installed by Debian.
    place = subprocess.run(
        [real_python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for path in packages:
        inside = f"/{path.relative_to(ours)}"
        if not LEFT_OUT.search(inside):
            layer.file(path, place.lstrip("/") + inside)


def _packages(place: Path) -> list[Path]:
    """The files of what the program needs and of pip: a third of what development has here."""
    lines = (ROOT / "requirements.run.lock").read_text().splitlines()
    wanted = {line.partition("==")[0] for line in lines if "==" in line and line[0].isalnum()} | {"pip"}
    found: set[Path] = set()
    for each in distributions(path=[str(place)]):
        if re.sub(r"[-_.]+", "-", each.name).lower() in wanted:
            found |= {place / file for file in each.files or () if not str(file).startswith("..")}
    return sorted(path for path in found if path.is_file())


def _programs() -> list[Path]:
    found = []
    for package in PACKAGES:
        files = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True).stdout.split("\n")
        found += [Path(path) for path in files if re.fullmatch(r"(/usr)?/bin/[^/]+", path) and Path(path).exists()]
    shell = Path("/bin/sh")
    return [*found, shell]


def _libraries(binaries: list[Path]) -> list[Path]:
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    found = {Path(match[1]) for match in re.finditer(r"(?:=>\s+|^\s+)(/\S+) \(0x", said, re.MULTILINE)}
    # The C library loads these by name when a program asks for a user or a host.
    return sorted(found | set(Path("/lib/x86_64-linux-gnu").glob("libnss_*.so.2")))
