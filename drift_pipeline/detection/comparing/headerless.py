"""A CSV whose first row was taken for a header and is none: its names look like its values."""

import re
from collections.abc import Iterator
from itertools import pairwise

import polars as pl

from drift_pipeline.telemetry.tables.table import Table

_REPEATED = re.compile(r"_duplicated_\d+$")  # what a reader makes of a name that is there already


def told_headerless(table: Table, sample: pl.DataFrame) -> Iterator[str]:
    """A warning where at least half of the names of a CSV's columns that are compared are values: a level of their own
    column, or a number above a column of numbers. Numbers that count up are names: of pixels, hours or years.

    Args:
        sample: rows (n,) as they are compared: floats, and levels as texts.
    """
    names = [name for name in sample.columns if name in table.types]
    if table.parts[0].format != "csv" or not names:
        return
    numbers = [number for name in table.types if (number := _number(name)) is not None]
    if len(numbers) == len(table.types) and all(a < b for a, b in pairwise(numbers)):
        return
    values = [name for name in names if _is_value(_REPEATED.sub("", name), sample[name])]
    if 2 * len(values) >= len(names):
        shown = ", ".join(repr(_REPEATED.sub("", name)) for name in values[:3])
        yield (
            f"{table.short}: its first row looks like values, not like names of columns ({shown}), and was not "
            "compared; give the file a header"
        )


def _is_value(name: str, column: pl.Series) -> bool:
    return _number(name) is not None if column.dtype.is_numeric() else bool((column == name).any())


def _number(name: str) -> float | None:
    try:
        return float(_REPEATED.sub("", name))
    except ValueError:
        return None
