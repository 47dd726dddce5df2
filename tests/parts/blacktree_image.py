"""An image with Blacktree in it, built without network as `.ci/Dockerfile` says, from a base made here."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.python_base import import_python_base

ROOT = Path(__file__).parents[2]


@contextmanager
def blacktree_image(directory: Path) -> Iterator[str]:
    """Its name, while the context lasts. `directory` takes the build context."""
    base, image = f"blacktree-test/python-scaling-{os.getpid()}", f"blacktree-test/scaling-{os.getpid()}"
    context = directory / "context"
    context.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, context)
    shutil.copytree(ROOT / "blacktree", context / "blacktree", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        import_python_base(base)
        command = ["docker", "build", "-q", "-f", str(ROOT / ".ci" / "Dockerfile"), "--build-arg", f"BASE={base}"]
        built = subprocess.run(
            [*command, "--network", "none", "-t", image, str(context)], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stdout + built.stderr
        yield image
    finally:
        subprocess.run(["docker", "rmi", "-f", image, base], capture_output=True, check=False)
