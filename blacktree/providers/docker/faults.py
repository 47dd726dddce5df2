"""The one table from the engine's words to our errors."""

import re

from blacktree.errors import BlacktreeError, EngineLost, StepFailed
from blacktree.providers.docker.stream import EngineRefused

_NAME = re.compile(r"invalid (?:repository name|reference format|tag format)|repository name must", re.IGNORECASE)
_EXIT = re.compile(r"(?:exit code: |returned a non-zero code: |exit status )(-?\d+)")

# First match wins. (pattern, code, again, advice)
_TABLE: tuple[tuple[re.Pattern[str], str, bool, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), code, again, advice)
    for pattern, code, again, advice in (
        (r"executor failed running|did not complete successfully|returned a non-zero code", "run_failed", False, ""),
        (
            r"secret .*not found|could not find secret|requires? .*secret",
            "secret_missing",
            False,
            "name the secret in `secrets`, and give the farm its value",
        ),
        (
            r"failed to read dockerfile|cannot locate specified dockerfile|dockerfile: no such file",
            "dockerfile_missing",
            False,
            "`dockerfile` is relative to `context`",
        ),
        (
            r"dockerfile parse error|unknown instruction|failed to parse|unknown flag|requires at least|"
            r"dockerfile cannot be empty|file with no instructions|no build stage|flag provided but not defined|"
            r"invalid reference format|requires (?:exactly )?\w+ argument",
            "dockerfile_invalid",
            False,
            "",
        ),
        (
            r"target stage .*could not be found|failed to reach build target|target stage \S+ not found",
            "target_missing",
            False,
            "`target` is the name of a stage: FROM … AS name",
        ),
        (
            r"unauthorized|authentication required|no basic auth credentials|insufficient_scope|denied: ",
            "registry_denied",
            False,
            "log in on the worker (docker login), or check the image's name",
        ),
        (
            r"toomanyrequests|429 too many|connection refused|connection reset|i/o timeout|no such host|"
            r"TLS handshake|server misbehaving|50[0234] |Client\.Timeout|deadline exceeded|network is unreachable|"
            r"temporary failure|no route to host|unexpected EOF|x509:|certificate",
            "registry_unreachable",
            True,
            "",
        ),
        (
            r"COPY failed|ADD failed|cache key: \"/|failed to calculate checksum|no source files",
            "source_missing",
            False,
            "COPY reads from `context` at that commit, after .dockerignore",
        ),
        (
            # The classic builder's, where another build's image is removed and takes a layer with it that both had.
            r"unable to find image \"sha256:|no such image: sha256:|failed to get digest sha256:",
            "image_gone",
            True,
            "if it goes on: a larger `image_budget_bytes` for the worker, or an engine that nobody else prunes",
        ),
        (
            r"pull access denied|manifest unknown|manifest for .* not found|repository does not exist|"
            r"no such image|: not found$|name unknown",
            "image_missing",
            False,
            "check the name in FROM; a private image needs a login on the worker",
        ),
        (
            r"no match for platform|does not match the specified platform|exec format error|unknown operating system",
            "platform_missing",
            False,
            "use a base image for this platform, or a worker that runs it",
        ),
        (r"requires? buildkit|the --mount option", "needs_buildkit", False, "leave `builder` at auto or buildkit"),
        (r"no space left on device", "disk_full", True, "free disk on the worker's engine"),
    )
)


def exit_code(message: str) -> int | None:
    """The exit code that a message names, if any."""
    found = _EXIT.search(message)
    return int(found[1]) if found else None


def failure(message: str, *, step: str = "", code: int | None = None) -> StepFailed:
    """A failed build from the engine's message. `code` is the exit code, where the engine gives it as a number."""
    text = message.strip() or "the engine failed without a message"
    known = code or exit_code(text)
    for pattern, name, again, advice in _TABLE:
        if pattern.search(text):
            return StepFailed(text, code=name, again=again, advice=advice, step=step, exit_code=known)
    return StepFailed(text, code="build_failed", again=False, step=step, exit_code=known)


def refused(error: EngineRefused, what: str, *, step: str = "") -> BlacktreeError:
    """The engine's HTTP error as ours. `what` is what was tried, e.g. `tag`."""
    if what == "tag" and _NAME.search(error.message):
        return StepFailed(
            f"the engine refuses the image's name: {error.message}",
            code="image_name_refused",
            again=False,
            step=step,
            advice="choose another `image` or other `tags`",
        )
    found = failure(error.message, step=step)
    if error.status in (502, 503, 504):
        return EngineLost(f"{what}: the engine says {error.status}: {error.message}")
    if found.code == "build_failed":
        code = {400: f"{what}_invalid", 404: "not_found", 409: "conflict"}.get(error.status, f"{what}_failed")
        return StepFailed(f"{what}: {error.message}", code=code, again=False, step=step)
    return found
