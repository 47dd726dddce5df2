"""Rules of submissions that types cannot say, as far as JSON Schema can: what the description adds to the structs.

Formats beside JSON Schema's own: `git-address` (https, ssh, git or scp-like), `image-name`, `container-path`,
`run-secret` (the name of one that the vault has), `repository-pattern` (such as `github.com/team/*`), `web-address`
(http or https, without user and password), and `event-pattern` (such as `job.*`).
"""

from typing import Any

from blacktree.platforms import KNOWN

_REF = r"^[^\-\u0000-\u001f\u007f][^\u0000-\u001f\u007f]*$"
_INSIDE = r"^(?![/])(?!(.*/)?\.\.(/|$))[^\u0000-\u001f\u007f]+$"
_LINE = r"^[^\u0000-\u001f\u007f]*$"

_TARGET: dict[str, dict[str, Any]] = {
    "url": {"format": "web-address"},
    "events": {"items": {"type": "string", "minLength": 1, "maxLength": 64, "format": "event-pattern"}},
    "repositories": {"items": {"type": "string", "format": "repository-pattern"}},
}

# By component, then by field.
FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "JobSpec": {
        "repository": {"format": "git-address"},
        "ref": {"pattern": _REF},
        "context": {"pattern": _INSIDE},
        "dockerfile": {"pattern": _INSIDE},
        "target": {"pattern": _LINE},
        "image": {"format": "image-name"},
        "tags": {"uniqueItems": True},
        "platform": {"pattern": KNOWN},
        "platforms": {"uniqueItems": True, "items": {"type": "string", "pattern": KNOWN, "maxLength": 64}},
        "build_args": {"propertyNames": {"minLength": 1, "maxLength": 256, "pattern": r"^[^=\u0000]+$"}},
    },
    "RunSpec": {
        "env": {"propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
        "ports": {"uniqueItems": True},
        "secrets": {"items": {"type": "string", "minLength": 1, "maxLength": 256, "format": "run-secret"}},
    },
    "Source": {"repository": {"format": "git-address"}, "forge_url": {"format": "uri", "pattern": "^https?://"}},
    "SourceChanges": {"repository": {"format": "git-address"}, "forge_url": {"format": "uri", "pattern": "^https?://"}},
    "Target": _TARGET,
    "TargetChanges": _TARGET,
    "NewToken": {
        "role": {"enum": ["view", "submit", "admin"]},
        "name": {"pattern": "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"},
        "repositories": {"items": {"type": "string", "format": "repository-pattern"}},
    },
    "RotateKey": {"new_key_file": {"pattern": r"^([/][^\u0000]*)?$"}},
    "Volume": {"target": {"format": "container-path"}, "source": {"format": "container-path"}},
    "SecretBody": {
        "value": {"minLength": 1},
        "sources": {"items": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}, "maxItems": 64},
        "repositories": {"items": {"type": "string", "format": "repository-pattern"}, "maxItems": 64},
        "value_base64": {"contentEncoding": "base64", "format": "byte", "minLength": 4},
    },
}

_GIVEN = {"not": {"type": "null"}}

FIELDS["DeployJob"] = FIELDS["JobSpec"]
WHOLE: dict[str, dict[str, Any]] = {
    "JobSpec": {
        # What is pushed has a name; several platforms are held together by a registry alone.
        "allOf": [
            {
                "if": {"properties": {"push": {"const": True}}, "required": ["push"]},
                "then": {"properties": {"image": {"type": "string"}}, "required": ["image"]},
            },
            {
                "if": {"properties": {"platforms": {"minItems": 1}}, "required": ["platforms"]},
                "then": {
                    "properties": {"push": {"const": True}, "platform": {"type": "null"}},
                    "required": ["push"],
                },
            },
        ]
    },
    "SecretBody": {
        "oneOf": [
            {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}
            for name, other in (("value", "value_base64"), ("value_base64", "value"))
        ]
    },
    "Health": {
        # At most one check.
        "allOf": [
            {
                "if": {"properties": {name: _GIVEN}, "required": [name]},
                "then": {"properties": {other: {"type": "null"} for other in others}},
            }
            for name, others in (("http", ("tcp", "command")), ("tcp", ("http", "command")))
        ]
    },
}
WHOLE["DeployJob"] = WHOLE["JobSpec"]
# Of a source's own, or to be said by what happens there.
_NOT_OF_A_TEMPLATE = ("repository", "ref", "idempotency_key")
_SOURCES = ("Source", "SourceChanges")
for _name in _SOURCES:
    WHOLE[_name] = {
        "if": {"properties": {"push": {"const": True}}, "required": ["push"]},
        "then": {"properties": {"spec": {"required": ["image"], "properties": {"image": {"type": "string"}}}}},
    }
WHOLE["Source"]["then"]["required"] = ["spec"]


def refine(components: dict[str, dict[str, Any]]) -> None:
    """Add the rules to the components that are there."""
    for name, fields in FIELDS.items():
        properties = components.get(name, {}).get("properties", {})
        for field, extra in fields.items():
            if field in properties:
                target = properties[field]
                # Of `string or null` it is the string that the rule is for.
                target = next((each for each in target.get("anyOf", ()) if each.get("type") != "null"), target)
                if "enum" in extra:
                    target.clear()
                target.update(extra)
    for name, extra in WHOLE.items():
        if name in components:
            components[name].update(extra)
    if "JobSpec" in components:
        fields = components["JobSpec"]["properties"]
        template = {name: each for name, each in fields.items() if name not in _NOT_OF_A_TEMPLATE}
        for name in _SOURCES:
            if name in components:
                spec = components[name]["properties"]["spec"]
                spec.update(WHOLE["JobSpec"], properties=template, additionalProperties=False)
