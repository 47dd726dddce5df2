"""JSON Schemas of the table's shapes, as OpenAPI and AsyncAPI share them."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from blacktree.api.examples import EXAMPLES
from blacktree.api.refinements import refine
from blacktree.api.table import COMMON_ERRORS, Operation, Shape
from blacktree.api.table.codes import numbers_of

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"
_BODY_ERRORS = ("bad_media_type", "malformed", "too_large", "too_slow")


class Schemas:
    """The schemas of these shapes: each by itself, and the components that they refer to."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        kinds = [kind for shape in shapes for kind in either(shape)]
        unique = list({repr(kind): kind for kind in kinds}.values())
        found, components = msgspec.json.schema_components(unique, ref_template=PREFIX + "{name}")
        self._of = {repr(kind): portable(schema) for kind, schema in zip(unique, found, strict=True)}
        self.components: dict[str, Schema] = {
            short_name(name): portable(schema) for name, schema in sorted(components.items())
        }
        refine(self.components)
        for name, example in EXAMPLES.items():
            if name in self.components:
                self.components[name]["examples"] = [example]

    def of(self, shape: Shape) -> Schema:
        """The schema of one of them: a reference, or written out."""
        kinds = [self._of[repr(kind)] for kind in either(shape)]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}

    @staticmethod
    def fields(struct: type[msgspec.Struct]) -> tuple[dict[str, Schema], list[str]]:
        """A struct's fields with their schemas, and the names of those that must be there."""
        component = msgspec.json.schema_components([struct], ref_template=PREFIX + "{name}")[1][struct.__name__]
        fields = {name: _without_null(each) for name, each in component.get("properties", {}).items()}
        return portable(fields), component.get("required", [])


def short_name(name: str) -> str:
    """A component's name: msgspec gives modules, too, where two structs are called the same.

    >>> short_name("Job"), short_name("blacktree.api.notify.ByName")
    ('Job', 'NotifyByName')
    """
    return name if "." not in name else "".join(part[:1].upper() + part[1:] for part in name.split(".")[-2:])


def _without_null(schema: Schema) -> Schema:
    """In a query there is no null: what is not given is left out."""
    rest = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return rest[0] if len(rest) == 1 else schema


def either(shape: Shape) -> tuple[Any, ...]:
    """The types of a shape."""
    if shape is None:
        return ()
    return shape if isinstance(shape, tuple) else (shape,)


def portable(value: Any) -> Any:
    """As JSON Schema 2020-12 has it: no `\\Z` in patterns."""
    if isinstance(value, dict):
        return {key: _portable(key, each) for key, each in value.items()}
    return [portable(each) for each in value] if isinstance(value, list) else value


def _portable(key: str, value: Any) -> Any:
    if key == "pattern" and isinstance(value, str):
        return value.replace(r"\Z", "$")
    if key == "$ref" and isinstance(value, str):
        return PREFIX + short_name(value.removeprefix(PREFIX))
    if key == "mapping" and isinstance(value, dict):
        return {name: _portable("$ref", each) for name, each in value.items()}
    return portable(value)


def codes_of(operation: Operation) -> list[str]:
    """Every error code that this can answer with."""
    codes = [*operation.errors]
    http = operation.http
    if http is not None and http.body is not None:
        codes += [*_BODY_ERRORS, *(("length_required",) if http.required else ())]
    if http is not None and http.query is not None:
        codes.append("bad_query")
    if http is not None and http.media != "*/*":
        codes.append("bad_accept")
    return list(dict.fromkeys([*codes, *COMMON_ERRORS]))


def statuses_of(operation: Operation) -> dict[int, list[str]]:
    """The HTTP statuses of its errors, with the codes of each."""
    found: dict[int, list[str]] = {}
    for code in codes_of(operation):
        found.setdefault(numbers_of(code)[1], []).append(code)
    return dict(sorted(found.items()))


def phrase(status: int) -> str:
    """What a status is called."""
    return HTTPStatus(status).phrase
