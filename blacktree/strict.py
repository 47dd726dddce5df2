"""Strict decoding of what comes from outside: unknown fields are refused with their path and the nearest name."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from blacktree.errors import BadRequest

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes that are damaged, or of another shape, raises."""


T = TypeVar("T")

_PATH = re.compile(r" - at `(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_UNKNOWN = re.compile(r"contains unknown field `(?P<name>.*)`", re.DOTALL)


def nearest(name: str, known: list[str]) -> str:
    """The known name that `name` was most likely meant to be, or an empty string."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return matches[0] if matches else ""


def dotted(path: str) -> str:
    """msgspec's `$.build_args[...]` as a dotted path: `build_args[...]`."""
    return path.removeprefix("$").lstrip(".")


def _fields_at(kind: Any, path: str) -> list[str]:
    """The field names of the struct found by walking `path` from `kind`; empty if it is no struct."""
    for part in [piece for piece in dotted(path).split(".") if piece]:
        fields = getattr(kind, "__struct_fields__", None)
        if fields is None:
            return []
        name = part.split("[")[0]
        hints = {field.name: field.type for field in msgspec.structs.fields(kind)}
        found = hints.get(name)
        candidates = [found, *getattr(found, "__args__", ())]
        kind = next((each for each in candidates if hasattr(each, "__struct_fields__")), None)
        if kind is None:
            return []
    return list(getattr(kind, "__struct_encode_fields__", ()))


def bad_request(error: msgspec.ValidationError, kind: Any, where: str) -> BadRequest:
    """A `BadRequest` with the dotted path (of the field itself, also where it is missing) and, for an unknown field,
    the nearest known one.

    `where` is the root's name in the message, such as `spec` or `config`.
    """
    text = str(error)
    found = _PATH.search(text)
    path = dotted(found["path"]) if found else ""
    message = _PATH.sub("", text)
    unknown = _UNKNOWN.search(message)
    advice = ""
    if unknown:
        name = unknown["name"]
        known = _fields_at(kind, path)
        path = f"{path}.{name}" if path else name
        guess = nearest(name, known)
        advice = f"did you mean `{guess}`?" if guess else f"known fields: {', '.join(known)}"
        message = f"unknown field `{name}`"
    if missing := _MISSING.search(message):
        path = f"{path}.{missing['name']}" if path else missing["name"]
    full = f"{where}.{path}" if path else where
    return BadRequest(f"{full}: {message}", path=full, code="invalid", advice=advice)


def decode_json(body: bytes | str, kind: type[T], *, where: str) -> T:
    """Decode and validate JSON as `kind`. Raises `BadRequest` for malformed JSON and for a wrong shape."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise bad_request(error, kind, where) from None
        # JSON knows one kind of number: 2.0 is a whole one, and some languages write them like that.
        try:
            whole = _whole(msgspec.json.decode(body))
        except RecursionError:
            raise _too_deep(where) from None
        return convert(whole, kind, where=where)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(
            f"{where} is not valid JSON: {error}", path=where, code="malformed", advice="send JSON in UTF-8"
        ) from None


def _whole(value: Any) -> Any:
    """The value with whole floats as integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def convert(value: Mapping[str, Any], kind: type[T], *, where: str, lenient: bool = False) -> T:
    """As `decode_json`, from plain dicts and lists. `lenient` accepts numbers and booleans as strings."""
    try:
        return msgspec.convert(value, type=kind, strict=not lenient)
    except msgspec.ValidationError as error:
        raise bad_request(error, kind, where) from None
    except RecursionError:
        raise _too_deep(where) from None


def _too_deep(where: str) -> BadRequest:
    return BadRequest(f"{where} is nested too deeply", path=where, code="malformed")
