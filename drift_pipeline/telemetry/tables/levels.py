"""Levels: the text of a category's value, the same whatever type it has and whatever door it comes in by.

A categorical column has a form. A number's or a truth value's many spellings are one level of a form that holds such
values: 1, 1.0, "1" and "1.0" of `integer` and `decimal`; true, "True" and 1 of `boolean`. Of `text` a text is what it
is, so that "01" and "1" are two levels. What does not fit the form is a level of its own text.
"""

import math
import re
from collections.abc import Collection
from typing import get_args

import polars as pl

from drift_pipeline.spec import Form

BLANKS = " \t\n\r\v\f\x85\xa0\u2009\u202f\u3000"
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_TRUTHS = {"true": "1", "false": "0"}
_BOOLEANS = {"true": "true", "false": "false", "1": "true", "0": "false"}
# what `level` gives for a value that fits
CANONICAL: dict[Form, str] = {
    "text": r".*",
    "integer": r"^(0|-?[1-9][0-9]*)$",
    "decimal": r"^(0|-?[1-9][0-9]*|-?[0-9]+\.[0-9]+|-?[0-9](\.[0-9]+)?e[+-][0-9]+)$",
    "boolean": r"^(true|false)$",
}


def level(value: object, form: Form, missing: Collection[str] = ()) -> str | None:
    """The level of one value; None where it is missing: null, NaN, empty, or a text that `missing` lists.

    >>> level(1.0, "integer"), level("1.0", "integer"), level("01", "integer"), level(True, "integer")
    ('1', '1', '01', '1')
    >>> level("True", "boolean"), level(0, "boolean"), level(" DE ", "text"), level("0.50", "decimal")
    ('true', 'false', 'DE', '0.5')
    """
    text = _text(value)
    if text is None or text in missing:
        return None
    found = _of_form(text, form)
    return None if found in missing else found


def _text(value: object) -> str | None:
    """The shortest text of a value: 1.0 is 1, True is true."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.strip(BLANKS) or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if math.isnan(value) else _number(value)
    return str(value)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)


def _of_form(text: str, form: Form) -> str:
    match form:
        case "integer":
            fits = _INTEGER.fullmatch(truth := _TRUTHS.get(text.lower(), text))
            return text if fits is None else truth if truth is not text else _unsigned_zero(fits[1])
        case "decimal":
            truth = _TRUTHS.get(text.lower(), text)
            if fits := _INTEGER.fullmatch(truth):
                return _unsigned_zero(fits[1])  # exact, however many digits
            return _number(float(truth) + 0.0) if _DECIMAL.fullmatch(truth) else text
        case "boolean":
            fits = _INTEGER.fullmatch(text)
            return _BOOLEANS.get(_unsigned_zero(fits[1]) if fits else text.lower(), text)
        case _:
            return text


def _unsigned_zero(digits: str) -> str:
    return "0" if digits == "-0" else digits


def levels(values: pl.Series, form: Form, missing: Collection[str] = ()) -> pl.Series:
    """The level of each value, as `level` gives it.

    Raises:
        TypeError: the column's type has no levels, such as a list.
    """
    if values.dtype.is_nested() or values.dtype == pl.Object:
        raise TypeError(f"values of type {values.dtype} have no levels")
    plain = _plain(values, form)
    if plain is not None and not missing:
        return plain
    if values.dtype.is_temporal():
        values = text_of_times(values)
    elif values.dtype in (pl.Categorical, pl.Enum) or values.dtype.is_decimal():
        values = values.cast(pl.String)
    elif values.dtype == pl.Float32:  # 0.1 is 0.1, not 0.10000000149
        values = values.cast(pl.String).cast(pl.Float64)
    distinct = values.unique()
    known = [level(value, form, missing) for value in distinct.to_list()]
    table = pl.DataFrame({"value": distinct, "level": pl.Series(known, dtype=pl.String)})
    joined = (
        values.alias("value").to_frame().join(table, on="value", how="left", nulls_equal=True, maintain_order="left")
    )
    return joined["level"].alias(values.name)


def text_of_times(values: pl.Series) -> pl.Series:
    """One text a time, in whatever unit it is stored: a fraction only where there is one; durations as in ISO 8601."""
    if values.dtype == pl.Duration:
        return values.dt.to_string("iso")
    texts = values.dt.to_string("%H:%M:%S%.f") if values.dtype == pl.Time else values.cast(pl.String)
    return texts.str.replace(r"(\.\d*?)0+([+-].*)?$", "$1$2").str.replace(r"\.([+-].*)?$", "$1")


def _plain(values: pl.Series, form: Form) -> pl.Series | None:
    """What needs no look at each value: whole numbers as such, truth values as such, texts as such."""
    dtype = values.dtype
    if (dtype.is_integer() and form != "boolean") or (dtype == pl.Boolean and form in ("boolean", "text")):
        return values.cast(pl.String)
    if dtype == pl.String and form == "text" and _are_trimmed(values):
        return values
    if dtype == pl.String and form == "text":
        stripped = values.str.strip_chars(BLANKS)
        return stripped.set(stripped == "", None)
    return None


def _are_trimmed(values: pl.Series) -> bool:
    """Whether a look at the distinct texts, where they are few, shows that none has blanks about it or is empty."""
    distinct = values.unique()
    if 4 * len(distinct) > len(values):
        return False
    stripped = distinct.str.strip_chars(BLANKS)
    return bool(((stripped == distinct) & (stripped != "")).all())  # null is neither


def form_of(values: pl.Series, missing: Collection[str] = ()) -> Form:
    """The form of a reference's column: the narrowest that all its values fit, `text` of a column without values."""
    known = levels(values, "text", missing).drop_nulls().unique()
    if known.is_empty():
        return "text"
    if known.str.to_lowercase().is_in(list(_TRUTHS)).all():
        return "boolean"
    fits = {"integer": _INTEGER, "decimal": _DECIMAL}
    forms: tuple[Form, ...] = ("integer", "decimal")
    return next((form for form in forms if known.str.contains(f"^(?:{fits[form].pattern})$").all()), "text")


def off_form(known: pl.Series, form: Form) -> pl.Series:
    """Which levels do not fit the form; null where there is none."""
    return known.str.contains(CANONICAL[form]).not_()


assert set(CANONICAL) == set(get_args(Form))
