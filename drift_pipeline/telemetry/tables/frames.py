"""Frames in memory, of Polars, pandas or Arrow, as one of Polars; and columns of several types as one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.tables.files import clean
from drift_pipeline.telemetry.tables.levels import levels, text_of_times
from drift_pipeline.telemetry.tables.lines import first_line

_NO_VALUE = ("None", "nan", "NaT", "<NA>")


def as_frame(data: Any) -> pl.DataFrame:
    """Raises InputError where it is no frame. pandas is told by its `iloc`, and not imported."""
    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if isinstance(data, pl.DataFrame):
        return data.with_columns(_series(column) for column in data if column.dtype == pl.Object)
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        names = clean([str(name) for name in data.columns], Path("the table"))
        return pl.DataFrame({name: _series(data.iloc[:, at]) for at, name in enumerate(names)})
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pl.DataFrame(data)
        except pl.exceptions.DuplicateError as error:
            raise InputError(f"the table: two columns have one name: {first_line(error)}") from error
    raise InputError(f"a {type(data).__name__} is no table; give a path, or a frame of Polars, pandas or Arrow")


def _series(values: Any) -> pl.Series:
    """Values of several Python types as texts, such as pandas writes them to a file."""
    try:
        is_period = str(getattr(values, "dtype", "")).startswith("period")  # Arrow would count months since 1970
        found = None if is_period else pl.Series(values)
    except (TypeError, ValueError, OverflowError):  # Arrow's errors among them
        found = None
    if found is not None and found.dtype != pl.Object:
        return found
    texts = [str(value) for value in values]
    return pl.Series(getattr(values, "name", ""), [None if text in _NO_VALUE else text for text in texts], pl.String)


def united(parts: Sequence[pl.Series]) -> pl.Series:
    """One series of what files of several types hold: numbers stay numbers, else all are texts."""
    types = {part.dtype for part in parts}
    if len(types) > 1 and not all(dtype.is_numeric() or dtype == pl.Null for dtype in types):
        parts = [text_of_times(part) if part.dtype.is_temporal() else levels(part, "text") for part in parts]
    elif len(types) > 1:  # 0.1 is 0.1 also where it has 32 bits
        parts = [part.cast(pl.String).cast(pl.Float64) if part.dtype == pl.Float32 else part for part in parts]
    return pl.concat([part.to_frame() for part in parts], how="vertical_relaxed").to_series()
