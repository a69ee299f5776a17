"""Canonical JSON (RFC 8785): one spelling a value, so that equal values have equal digests.

`rfc8785` defines it and writes whatever is unusual. Most values the C encoder of `json` spells just so, ten times as
fast, which is what a chain of a million records is verified with.
"""

import hashlib
import json
from contextlib import suppress
from typing import Any

import rfc8785

from drift_pipeline.errors import InputError, IntegrityError


def canonical(value: object) -> bytes:
    """The one spelling of a JSON value: RFC 8785, keys sorted, no spaces, UTF-8.

    Numbers follow JSON, which has no integers: 1.0 is written `1` and read back as the int 1.

    >>> canonical({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'

    Raises:
        InputError: NaN, an infinity, an int of 2**53 or more, a key that is no string, a type JSON lacks; says where.
    """
    if _usual(value):
        with suppress(ValueError):  # a lone surrogate
            return _USUAL.encode(value).encode()
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # what it refuses is told below
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_culprit(value)} cannot be written as canonical JSON: {error}") from error


def read_canonical(data: bytes | str) -> Any:
    """Read what `canonical` wrote; a value has one spelling, so no other one was ever hashed or signed.

    Raises:
        IntegrityError: not JSON, or JSON in another spelling (spaces, key order, a key twice, 1.0 for 1).
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        try:
            value, spelt = _read_usual(text)
        except _UnusualError:
            value = _READER.decode(text)
            spelt = canonical(value).decode()
        if spelt == text:
            return value
    except (ValueError, RecursionError, InputError) as error:
        raise IntegrityError(f"not canonical JSON: {error}") from error
    raise IntegrityError("not canonical JSON: the value is spelled otherwise than RFC 8785 spells it")


def sha256(data: bytes) -> str:
    """Digest in the form that records and attestations carry: `sha256:<64 hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


_USUAL = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), sort_keys=True)
_DEEPEST = 50
_SIMPLE = (str, bool, type(None))  # a StrEnum is for rfc8785 to judge


def _usual(value: object, depth: int = 0) -> bool:
    """Whether `json` spells it as RFC 8785 does: its keys are ASCII, where the order of code points is that of UTF-16,
    and its numbers have the same digits in Python and in JavaScript, without an exponent in either."""
    kind = type(value)
    if kind is dict:
        usual = depth < _DEEPEST
        for key, part in value.items():  # type: ignore[attr-defined]
            usual = usual and type(key) is str and key.isascii() and (type(part) is str or _usual(part, depth + 1))
        return usual
    if kind is list or kind is tuple:
        return depth < _DEEPEST and all(_usual(part, depth + 1) for part in value)  # type: ignore[attr-defined]
    if kind is int:
        return -(2**53) < value < 2**53  # type: ignore[operator]
    if kind is float:
        return 1e-4 <= abs(value) < 1e15 and not value.is_integer()  # type: ignore[arg-type,attr-defined]
    return kind in _SIMPLE


class _UnusualError(Exception):
    """`json` may spell it otherwise than RFC 8785 does."""


def _read_usual(text: str) -> tuple[Any, str]:
    """A value, and how `json` spells it, judged as `_usual` judges but while it is read, which takes half the time.

    Raises _UnusualError for one that is not usual.
    """
    if not text.isascii() or text.count("{") + text.count("[") > _DEEPEST:
        raise _UnusualError
    value = _USUAL_READER.decode(text)
    return value, _USUAL.encode(value)


def _usual_number(digits: str) -> int | float:
    number = float(digits) if "." in digits or "e" in digits or "E" in digits else int(digits)
    if not _usual(number):
        raise _UnusualError
    return number


def _number(digits: str) -> int | float:
    """1e17 is written as digits alone; beyond 2**53 they were a float."""
    number = int(digits)
    return number if abs(number) < 2**53 else float(digits)


_READER = json.JSONDecoder(parse_int=_number)
_USUAL_READER = json.JSONDecoder(parse_int=_usual_number, parse_float=_usual_number, parse_constant=_usual_number)


def _culprit(value: object, path: str = "$") -> str:
    """JSON path of the deepest part that does not serialise by itself."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        try:
            rfc8785.dumps(part)
        except ValueError:
            return _culprit(part, f"{path}.{key}")
        except RecursionError:
            break
    return path
