"""What the parser complains of, in one short line: the option as the user names it, its value, and what it takes."""

from __future__ import annotations

import ast
import re

_TAKES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}
_OTHERS = {"dot": "a mapping of its options", "Path": "a path", "timedelta": "a time such as 8:00:00"}
_KEY = re.compile(r"Parser key \"([\w.]+)\"")
_END = re.compile(r"Got value: (.*?)(?= - | Given value| Subclass types|$)|Given value: (.*?)(?= - | Given value|$)")
"""What an alternative ends with: the value that it has refused."""
_NESTED = re.compile(r"NestedArg\(key='[\w.]+', val='?(.*?)'?\)")
_EXPECTED = re.compile(r"(?:Expected a|Not of type) (?:<class '(\w+)'>|typing\.Literal(\[.*?\])(?=[. ]|$)|(\w+))")


def explain(message: str) -> str:
    """Return a complaint of jsonargparse's as "OPTION is VALUE: give ..."; the message itself if it is of another kind.

    Args:
        message: On one line.
    """
    if unknown := re.search(r"Option '([\w.:]+)' is not accepted", message):
        return f"unrecognized arguments: --{'.'.join([*_KEY.findall(message[: unknown.start()]), unknown[1]])}"
    end = _END.search(message)
    keys = _KEY.findall(message[: end.start()]) if end else []
    if end is None or not keys:
        return message.removeprefix("Parser key ")
    # of the alternatives of a union the first that has looked deepest into the value
    innermost = message[: end.start()].rpartition("Parser key")[2]
    taken = _taken(innermost)
    value = next(part for part in end.groups() if part is not None)
    value = nested[1] if (nested := _NESTED.match(value)) else value
    return f"{'.'.join(keys)} is {value[:100]}: give {taken}" if taken else message.removeprefix("Parser key ")


def _taken(complaint: str) -> str:
    """Return what an option takes, such as "a whole number or null"."""
    kinds: list[str] = ["a list of mappings"] if "Not a valid subclass" in complaint else []
    for name, choices, other in _EXPECTED.findall(complaint):
        kinds += map(str, ast.literal_eval(choices)) if choices else [_TAKES.get(name) or _OTHERS.get(other, "")]
    kinds = list(dict.fromkeys(filter(None, kinds)))
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]]) if len(kinds) > 1 else "".join(kinds)
