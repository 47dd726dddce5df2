"""Docker's file patterns (`.dockerignore`, BuildKit's include, exclude and follow lists) over paths of a context.

The rules are those of moby/patternmatcher: `*` and `?` stop at a slash, `**` does not, the last pattern that matches
wins, `!` takes back, and whatever matches a directory holds for all in it.
"""

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping


class Patterns:
    """A list of patterns, ready to be asked about many paths. Raises `ValueError` for one that cannot be understood."""

    def __init__(self, patterns: Iterable[str]) -> None:
        rules: list[tuple[bool, re.Pattern[str]]] = []
        for text in patterns:
            text = text.strip()
            negative = text.startswith("!")
            clean = posixpath.normpath(text[1:].strip() if negative else text).lstrip("/") if text else ""
            if clean in ("", "."):
                continue
            try:
                rules.append((negative, re.compile(_expression(clean), re.DOTALL)))
            except re.error as error:
                raise ValueError(f"bad pattern `{text}`: {error}") from None
        self._rules = rules[::-1]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def match(self, path: str) -> bool:
        """Whether the path, or a directory that it is in, is matched at the end of the list."""
        for negative, expression in self._rules:
            if expression.match(path):
                return not negative
        return False


def _expression(pattern: str) -> str:
    out = ""
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*" and pattern.startswith("*", index):
            while pattern.startswith("*", index):
                index += 1
            if pattern.startswith("/", index):
                index += 1
            out += ".*" if index >= len(pattern) else "(?:.*/)?"
        elif char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[" and (end := pattern.find("]", index + 1)) > 0:
            inside = pattern[index:end].replace("[", r"\[")
            out += f"[{inside}]"
            index = end + 1
        elif char == "\\" and index < len(pattern):
            out += re.escape(pattern[index])
            index += 1
        else:
            out += re.escape(char)
    return out + r"(?:/.*)?\Z"


def ignore_lines(text: str) -> list[str]:
    """The patterns of a `.dockerignore`: without comments and blank lines."""
    lines = text.removeprefix("\ufeff").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def followed(paths: Collection[str], links: Mapping[str, str]) -> list[str]:
    """BuildKit's `followpaths` as include patterns: each path itself, and where the links on its way lead.

    `links` maps each symlink of the context to its target. An empty answer means everything.
    """
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [posixpath.normpath("/" + path).lstrip("/") for path in paths]
    for _ in range(10_000):  # a ring of links ends here
        if not waiting:
            break
        path = waiting.pop()
        if path == "":
            return []
        if path in seen:
            continue
        seen.add(path)
        found[path] = None
        for link, target in _targets(path, links):
            found[link] = None
            waiting.append(target)
    return list(found)


def _targets(path: str, links: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The links on the way along `path`, and where each leads it."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        head = "/".join(parts[:count])
        rest = parts[count:]
        if any(char in head for char in "*?["):
            matches = Patterns([head])
            hits = [link for link in links if link.count("/") == head.count("/") and matches.match(link)]
        else:
            hits = [head] if head in links else []
        for link in hits:
            target = posixpath.normpath(posixpath.join("/" + posixpath.dirname(link), links[link], *rest))
            yield link, target.lstrip("/")
