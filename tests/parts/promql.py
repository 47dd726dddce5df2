"""As much of PromQL as it takes to see what an expression names: metrics, labels asked of them, balanced brackets."""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[a-zA-Z_:][\w:]*)|(?P<number>\d[\w.]*)|(?P<duration>\$__\w+|\$\w+)"""
    r"""|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=,(){}\[\]])|(?P<space>\s+)|(?P<wrong>.)""",
    re.DOTALL,
)
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_FUNCTIONS = {"sum", "min", "max", "avg", "count", "rate", "increase", "absent", "histogram_quantile", "topk", "delta"}
_CLOSING = {")": "(", "}": "{", "]": "["}


@dataclass
class Named:
    """What an expression names: metrics, each with the labels of its selector, and the labels it groups by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def names_of(expression: str) -> Named:
    """Raises `ValueError` for what is no expression."""
    tokens = [
        (str(found.lastgroup), found.group()) for found in _TOKEN.finditer(expression) if found.lastgroup != "space"
    ]
    found, open_brackets, last_metric, listing = Named(), [""], "", False
    for index, (kind, text) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if kind == "wrong":
            raise ValueError(f"{text!r} in {expression}")
        if text in ("(", "{", "["):
            open_brackets.append(text)
        elif text in _CLOSING:
            if open_brackets.pop() != _CLOSING[text]:
                raise ValueError(f"brackets in {expression}")
            listing = False
        elif kind == "word" and open_brackets[-1] == "{":
            if following not in ("=", "!=", "=~", "!~"):
                raise ValueError(f"selector of {last_metric} in {expression}")
            found.metrics[last_metric].add(text)
        elif kind == "word" and text in _LISTS:
            listing = True
        elif kind == "word" and listing:
            found.grouped.add(text)
        elif kind == "word" and open_brackets[-1] != "[" and text not in _WORDS:
            if text in _FUNCTIONS:
                if following != "(" and following not in _LISTS:
                    raise ValueError(f"{text} without arguments in {expression}")
            else:
                last_metric = text
                found.metrics.setdefault(text, set())
    if open_brackets != [""] or not found.metrics:
        raise ValueError(f"unbalanced, or names nothing: {expression}")
    return found
