"""Numbers: a column as floats, whatever type it has and however its texts are written.

Blanks around a number are taken off, the usual words for "no value" are null, true and false are 1 and 0. Thousands
separators and a decimal comma are read where the column as a whole says which is which: 1,234.5 and 1.234,5 do; 1,234
alone does not, and is refused.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

import polars as pl

from drift_pipeline.telemetry.tables.levels import BLANKS

Refuse = Callable[[pl.Series, str], None]  # (which values, the problem): raises where there is one, naming its place
Column = Callable[[], Iterable[pl.Series]]  # all of a column, batch by batch
Decimal = Literal[".", ","]

# what stands for no value in a numeric column, in small letters
_WORDS = ("na", "n/a", "#n/a", "#na", "n.a.", "<na>", "nan", "-nan", "nat", "null", "(null)", "nil", "none")
TOKENS = frozenset([*_WORDS, "#null!", "#div/0!", "-", "--", "—", "–", "?", ".", "\\n"])
SPELLED = frozenset(spelled for token in TOKENS for spelled in (token, token.upper(), token.capitalize(), "NaN", "NaT"))
_EXPONENT, _SIGN, _GROUP = r"(?:[eE][+-]?\d+)?", r"^[+-]?", r"\d{1,3}"
# How texts are written; the first two without thousands separators
_POINT, _COMMA = rf"{_SIGN}(?:\d+\.?\d*|\.\d+){_EXPONENT}$", rf"{_SIGN}\d*,\d+{_EXPONENT}$"
_BY_COMMAS, _BY_POINTS = (
    rf"{_SIGN}{_GROUP}(?:,\d{{3}})+(?:\.\d*)?$",
    rf"{_SIGN}{_GROUP}(?:\.\d{{3}})+(?:,\d*)?$",
)
_BLANK = r"[ '’\xa0\u2009\u202f]"
_BY_BLANKS = rf"{_SIGN}{_GROUP}(?:{_BLANK}\d{{3}})+"
_EITHER = rf"{_SIGN}[1-9]\d{{0,2}}[.,]\d{{3}}$"  # thousands or decimals
_MANY = 50  # 0.9 ** 50 is 0.5 %
_SEPARATED: dict[Decimal, str] = {
    ".": rf"{_BY_COMMAS}|{_BY_BLANKS}(?:\.\d*)?$",
    ",": rf"{_BY_POINTS}|{_BY_BLANKS}(?:,\d*)?$|{_COMMA}",
}
WRITTEN = "|".join((_POINT, *_SEPARATED.values()))
UNIT = r"(?i)^\s*(?:[$€£¥]|[a-z]{3}\s)?\s*[+-]?\d[\d.,]*\s*(?:%|[$€£¥°]|[a-zµ²³/°]{1,6})?\s*$"


def listed(missing: Collection[str]) -> frozenset[str]:
    """What a spec lists as missing; a whole number also as pandas writes it beside missing ones: -999.0."""
    return frozenset(missing) | {f"{token}.0" for token in missing if re.fullmatch(r"-?\d+", token)}


@dataclass
class Numbers:
    """Reads one column of a table, batch by batch.

    `problem`: what to say of a value that is no number. `missing`: texts and numbers that stand for no value, beside
    the usual tokens.
    """

    problem: str = "is not a number"
    missing: Collection[str] = ()
    _decimal: Decimal | None = field(default=None, init=False)  # None: as yet all were written plainly
    _begun: bool = field(default=False, init=False)  # with a decimal point

    def __call__(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series:
        """Floats, null where missing.

        Args:
            refuse: is told which values are none.
            column: all batches of the column, to find how it is written.
        """
        numbers = self._numbers(values, refuse, column)
        if gone := [number for number in map(as_number, self.missing) if number is not None]:
            numbers = numbers.set(numbers.is_in(gone).fill_null(value=False), None)
        return numbers.alias(values.name)

    def _numbers(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series:
        dtype = values.dtype
        if dtype in (pl.Null, pl.Boolean) or (dtype.is_numeric() and not _is_narrow(dtype)):
            return without_nan(values.cast(pl.Float64))
        if dtype in (pl.Categorical, pl.Enum) or dtype.is_numeric():  # 0.1 is 0.1 also where it has 32 bits
            values = values.cast(pl.String)
        if values.dtype != pl.String:
            refuse(values.is_not_null(), f"has the type {dtype}, which cannot be read; give text or numbers")
            return pl.Series([None] * len(values), dtype=pl.Float64)
        if self._decimal != "," and (self._begun or not may_be_grouped(values)):
            plain = values.cast(pl.Float64, strict=False)
            lost = plain.is_null() & values.is_not_null()
            if not lost.any() or self._is_missing(trimmed(values.filter(lost))).all():
                self._begun = True
                return without_nan(plain)
        return self._written(values, refuse, column)

    def _is_missing(self, text: pl.Series) -> pl.Series:
        return text.is_in([*self.missing, ""]) | text.str.to_lowercase().is_in([*TOKENS])

    def _written(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series:
        text = trimmed(values)
        text = text.set(self._is_missing(text), None)
        if self._decimal is None and (not self._begun or text.str.contains(rf",|{_BLANK}").any()):
            self._decimal = self._decided(text, refuse, column())
        numbers = read(text, self._decimal or ".")
        refuse(numbers.is_null() & text.is_not_null(), self.problem)
        self._begun = True
        return without_nan(numbers)

    def _decided(self, text: pl.Series, refuse: Refuse, column: Iterable[pl.Series]) -> Decimal:
        """The decimal sign, of all that the column shows."""
        seen = Evidence()
        for batch in column:
            seen += Evidence.of(trimmed(batch.cast(pl.String)))
        decimal = seen.decimal
        if seen.is_mixed or (decimal == "," and seen.either_point and self._begun):
            problem = "is written with a decimal comma, and others with a decimal point; write all in one way"
            refuse(text.str.contains(",", literal=True), problem)
            refuse(text.is_not_null(), problem)
        if decimal is None:
            problem = "may be thousands or decimals, and no other value shows which; write it without a comma"
            refuse(text.str.contains(",", literal=True), problem)
        return decimal or "."


def _is_narrow(dtype: pl.DataType) -> bool:
    return dtype.is_float() and dtype != pl.Float64


def may_be_grouped(text: pl.Series) -> bool:
    """Whether the first texts are all whole below 1000, or have a point before three digits, as thousands may."""
    first = text[:1000].drop_nulls()
    return (
        len(first) > 0
        and first.str.contains(rf"{_EITHER}|^-?\d{{1,3}}$").all()
        and first.str.contains(".", literal=True).any()
    )


def without_nan(numbers: pl.Series) -> pl.Series:
    return numbers.fill_nan(None) if numbers.is_nan().any() else numbers


def trimmed(text: pl.Series) -> pl.Series:
    return text.str.strip_chars(BLANKS).str.replace("−", "-", literal=True)


@dataclass(frozen=True)
class Evidence:
    """How many values of a column show a decimal comma, how many a decimal point.

    Of those with one comma or point before three digits nobody knows (`either_comma`, `either_point`), unless there are
    many, and every number below 1000 is whole (`small`) and none above is without a sign (`large`): then it is
    thousands, for of decimals a tenth would end with fewer digits.
    """

    comma: int = 0
    point: int = 0
    either_comma: int = 0
    either_point: int = 0
    small: int = 0
    large: int = 0

    @classmethod
    def of(cls, text: pl.Series) -> "Evidence":
        t = pl.col("t")
        has_comma, has_point = (t.str.contains(sign, literal=True) for sign in ",.")
        either, blanks = t.str.contains(_EITHER), t.str.contains(_BY_BLANKS)
        by_commas, by_points = t.str.contains(_BY_COMMAS), t.str.contains(_BY_POINTS)
        comma = (t.str.contains(_COMMA) & ~either) | (by_points & (has_comma | t.str.contains(r"\..*\.")))
        point = (t.str.contains(_POINT) & has_point & ~either) | (by_commas & (has_point | t.str.contains(",.*,")))
        kinds = {
            "comma": comma | (blanks & has_comma),
            "point": point | (blanks & has_point),
            "either_comma": either & has_comma,
            "either_point": either & has_point,
            "small": t.str.contains(r"^-?[1-9]\d{0,2}$"),
            "large": t.str.contains(r"^-?\d{4,}$"),
        }
        return cls(*text.alias("t").to_frame().select(shown.sum().alias(name) for name, shown in kinds.items()).row(0))

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def is_mixed(self) -> bool:
        unknown = not self.comma and not self.point and self.either_comma and self.either_point
        return bool((self.comma and self.point) or unknown)

    @property
    def decimal(self) -> Decimal | None:
        """None where nobody knows."""
        if self.comma or self.point:
            return "," if self.comma else "."
        grouped = self.either_comma + self.either_point >= _MANY and self.small > 0 and not self.large
        if self.either_comma:
            return "." if grouped else None
        return "," if self.either_point and grouped else "."


def read(text: pl.Series, decimal: Decimal) -> pl.Series:
    """Floats of trimmed texts; null where one is no number, or not written with this decimal sign."""
    t, small = pl.col("t"), pl.col("t").str.to_lowercase()
    signs = _BLANK + (r"|\." if decimal == "," else "|,")
    bare = t.str.replace_all(signs, "").str.replace(",", ".", literal=True)
    plain = t if decimal == "." else pl.when(~t.str.contains(".", literal=True)).then(t)
    number = pl.when(t.str.contains(_SEPARATED[decimal])).then(bare).otherwise(plain).cast(pl.Float64, strict=False)
    truth = pl.when(small == "true").then(1.0).when(small == "false").then(0.0)
    return text.alias("t").to_frame().select(pl.coalesce(number, truth)).to_series()


def as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
