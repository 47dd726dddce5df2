"""A job's events and its end in words, for whoever prints them."""

import re
from collections.abc import Mapping
from typing import Any, TextIO

Event = Mapping[str, Any]

# What a build prints must not move the cursor or retitle the window of whoever reads it; colours may stay. Every escape
# is taken by one of these, however it is cut short (ECMA-48, section 5): colours, control sequences, strings, the rest.
_ESCAPES = re.compile(
    r"(\x1b\[[0-9;]*m)|\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
)
# A terminal obeys them in the middle of an escape, so they go first; a bell ends a string.
_CONTROLS = re.compile(r"[\x00-\x06\x08\x0b-\x1a\x1c-\x1f\x7f\x80-\x9f]")


def shown(line: str, *, terminal: bool) -> str:
    """A log line as it may be printed: untouched for a pipe, without control sequences for a terminal."""
    if not terminal:
        return line
    # A progress bar rewrites its line: what counts is what would be seen at the end.
    line = _CONTROLS.sub("", line.rstrip("\r").rsplit("\r", 1)[-1])
    line = _ESCAPES.sub(r"\1", line).replace("\x07", "")
    # Its colours end with it: concealed or black on black, whatever is printed next could not be seen.
    return f"{line}\x1b[0m" if "\x1b" in line and not line.endswith("\x1b[0m") else line


def printed(text: str, out: TextIO) -> str:
    """Any words with something of a build, a repository or a server in them, as they may be written to `out`."""
    return shown(text, terminal=out.isatty())


def seconds(value: float) -> str:
    """A duration for a person: `0.4 s`, `12 s`, `3 min 05 s`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def stamp(time: str) -> str:
    """An event's time in as many characters each time.

    >>> stamp("2026-01-31T12:00:00.5Z")
    '2026-01-31T12:00:00.500Z'
    """
    head, _, fraction = time.removesuffix("Z").partition(".")
    return f"{head}.{fraction[:3].ljust(3, '0')}Z"


def state_text(event: Event) -> str:
    """A `state` event in words."""
    attempt = f" (attempt {event['attempt']})" if event.get("attempt") else ""
    reason = f": {event['reason']}" if event.get("reason") else ""
    return f"{str(event['to']).replace('_', ' ')}{attempt}{reason}"


def progress_text(event: Event) -> str:
    """A `progress` event in words."""
    current, total, unit = event["current"], event["total"], event.get("unit", "")
    if unit in ("bytes", "B"):
        size, name, digits = (1e6, "MB", 1) if max(current, total) >= 1e6 else (1e3, "kB", 0)
        done = f"{current / size:.{digits}f}"
        return f"{done} of {total / size:.{digits}f} {name}" if total else f"{done} {name}"
    return f"{current} of {total} {unit}" if total else f"{current} {unit}"


def ending(job: Mapping[str, Any]) -> list[str]:
    """How a job ended, in lines: the image, or what broke, its last lines and what to do."""
    if job["state"] == "succeeded":
        image = job.get("image") or {}
        names = [image.get("reference", ""), *image.get("references", [])]
        lines = [f"image {name}" for name in dict.fromkeys(filter(None, names))]
        lines += [f"{key} {image[key]}" for key in ("id", "digest") if image.get(key)]
        return lines or [f"job {job['id']} succeeded"]
    error = job.get("error") or {}
    head = f"job {job['id']} {str(job['state']).replace('_', ' ')}"
    if job["state"] == "canceled" and job.get("cancel_reason"):
        head += f": {job['cancel_reason']}"
    if error.get("message"):
        head += f": {error['message']}"
    lines = [head]
    if error.get("step"):
        code = f", exit code {error['exit_code']}" if error.get("exit_code") is not None else ""
        lines.append(f"  in step {error['step']}{code}")
    lines += [f"  | {line}" for line in error.get("last_lines", [])[-10:]]
    # A retry is the last line's word, with the job's id.
    if error.get("advice") and "`blacktree retry`" not in error["advice"]:
        lines.append(f"  {error['advice']}")
    if job["state"] != "canceled":
        lines.append(f"  again: blacktree retry {job['id']}")
    return lines
