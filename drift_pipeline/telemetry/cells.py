"""Cells: the values of a tensor or a JSON event, each brought to what it means in its column.

A level is looked up, not computed again: what callers send repeats itself, and a row has to be read in microseconds.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite

from drift_pipeline.spec import Form, ModelSpec
from drift_pipeline.telemetry.tables.levels import CANONICAL, level
from drift_pipeline.telemetry.tables.numbers import listed

# What JSON has that can be brought to a form. A text column takes no number: 1 might be "1", "01" or "1.0" there.
TYPES: Mapping[Form, tuple[type, ...]] = {
    "text": (str,),
    "integer": (str, int, float, bool),
    "decimal": (str, int, float),
    "boolean": (str, bool, int),
}
_WANTED: Mapping[Form, str] = {
    "text": "a text",
    "integer": "a whole number, or its text",
    "decimal": "a number, or its text",
    "boolean": "true or false, 1 or 0, or their text",
}
_MOST_KEPT, _LONGEST_KEPT = (
    10_000,
    200,
)  # values and characters: a caller who sends other ones each time fills no memory
_EXACT = 2.0**63  # from here on a float and a whole number of one size are told apart by their text


class Levels(dict[object, str | None]):
    """The level of each value that one column was sent; `off_form` are those that do not fit the column's form.

    Only types of the form are asked: among them, equal values have one level (1, 1.0 and true are "1" of `integer`).
    """

    def __init__(self, form: Form, missing: Collection[str] = ()) -> None:
        super().__init__()
        self.form, self._types, self._wanted = form, frozenset(TYPES[form]), _WANTED[form]
        self.off_form: set[str] = set()
        self.is_full = False
        self._missing, self._canonical = frozenset(missing), re.compile(CANONICAL[form], re.DOTALL)

    def __missing__(self, value: object) -> str | None:
        found = level(value, self.form, self._missing)
        if found is not None and not self._canonical.match(found):
            self.off_form.add(found)
        if len(value) <= _LONGEST_KEPT if isinstance(value, str) else _is_exact(value):
            self[value] = found
        self.is_full = len(self) > _MOST_KEPT or len(self.off_form) > _MOST_KEPT
        return found

    def of(self, values: Sequence[object]) -> list[str | None]:
        """The levels of values (n,), whose types are the form's."""
        if self.is_full:
            self.clear()
            self.off_form.clear()
            self.is_full = False
        return [self[value] for value in values]

    def count_off_form(self, levels: Sequence[object]) -> int:
        """How many of the levels that `of` gave last do not fit the form."""
        return sum(found in self.off_form for found in levels)

    def one(self, key: str, value: object) -> str | None:
        """The level of one value of an event. Raises ValueError, which names the key, where its type is not taken."""
        if type(value) not in self._types:
            raise ValueError(
                f"{key}: {value!r} cannot be brought to the column's form {self.form}; write {self._wanted}"
            )
        if type(value) is float and not isfinite(value):
            raise ValueError(f"{key}: {value} is not finite; write null where there is no value")
        return self.of((value,))[0]


def _is_exact(value: object) -> bool:
    return not isinstance(value, int | float) or abs(value) < _EXACT


@dataclass(frozen=True)
class Cells:
    """What a spec's columns take: of categorical ones by name; `missing` are the numbers that stand for no value."""

    levels: Mapping[str, Levels]
    missing: frozenset[float]


_KEPT: dict[int, tuple[ModelSpec, Cells]] = {}


def cells_of(spec: ModelSpec) -> Cells:
    """Made once for a spec. A column without a form is of text."""
    kept = _KEPT.get(id(spec))
    if kept is None or kept[0] is not spec:
        names = [name for name, kind in spec.watched.items() if kind == "categorical"]
        missing = listed(spec.missing)
        levels = {name: Levels(spec.forms.get(name, "text"), missing) for name in names}
        kept = spec, Cells(levels, frozenset(_numbers(spec.missing)))
        if len(_KEPT) > 1000:  # more than any home's models: tests
            _KEPT.clear()
        _KEPT[id(spec)] = kept
    return kept[1]


def _numbers(texts: Sequence[str]) -> Iterator[float]:
    for text in texts:
        with suppress(ValueError):
            yield float(text)
