"""Whom a line is about: the texts that a spooled event or a dead letter gives as an entity or as a prediction's id."""

import json
import re
from collections.abc import Collection, Iterator

_NAMED = re.compile(r'"(?:entity|id)"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*)')
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_MOST, _LONGEST = 16, 1000  # names of one line, and characters of one


def names(line: bytes) -> list[str]:
    """Entities and ids that the line gives, wherever they stand in it, also where it is torn or no event."""
    text = line.decode("utf-8", "replace")
    found = [_unescaped(match[1].strip('"')) for match in _NAMED.finditer(text)]
    document = _parsed(text)
    if isinstance(document, dict):  # whose keys may be escaped as well
        found = [str(document[key]) for key in ("entity", "id") if document.get(key) is not None] + found
    return [name[:_LONGEST] for name in dict.fromkeys(found)][:_MOST]


def mentions(text: str, wanted: Collection[str]) -> bool:
    """Whether one of the wanted texts is a value of the JSON, or a whole word in what is no JSON."""
    document = _parsed(text)
    if document is not None:
        return any(value in wanted for value in _values(document))
    plain = _unescaped(text)
    return any(name in plain and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", plain) for name in wanted)


def _parsed(text: str) -> object:
    """None where it cannot be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _values(document: object) -> Iterator[str]:
    """Every key and every value that is a text or a number."""
    left = [document]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
        elif one is not None:
            yield str(one)


def _unescaped(text: str) -> str:
    """Without JSON's escapes; what is half of a pair becomes a question mark."""
    plain = _ESCAPED.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else _PLAIN.get(m[1], m[1]), text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
