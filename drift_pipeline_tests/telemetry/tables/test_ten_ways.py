"""One table written in many ways is one table: the same comparison, the same history, figure by figure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from drift_pipeline.detection.comparing.comparison import compare_files
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.tables.table import Table

SPEC = ModelSpec.model_validate(
    {
        "name": "m",
        "owner": "o",
        "task": "binary_classification",
        "columns": {"timestamp": "ts", "prediction_id": "id", "latency_ms": "ms"},
        "features": {"x": "numeric", "price": "numeric", "on": "numeric", "grade": "categorical", "new": "categorical"},
        "prediction": {"score": "score"},
        "outcome": {"column": "y", "positive": True},
        "protected": {"site": "categorical"},
    }
)


def table(n: int, seed: int) -> pl.DataFrame:
    """Numbers, whole numbers with missing ones, truth values as number and as level, texts, times."""
    rng = np.random.default_rng(seed)
    start = pl.datetime(2026, 1, 1, time_zone="UTC")
    some = pl.Series(rng.random(n) < 0.03)
    return pl.DataFrame(
        {
            "id": pl.Series(np.arange(n) + 1_000_000 * seed),
            "x": rng.standard_normal(n),
            "price": (rng.lognormal(7, 1, n) * 100).round() / 100,
            "on": pl.Series(rng.random(n) < 0.3),
            "grade": rng.integers(1, 5, n),
            "new": pl.Series(rng.random(n) < 0.6),
            "score": rng.random(n).round(3),
            "y": pl.Series(rng.random(n) < 0.4),
            "ms": rng.exponential(40, n).round(1),
            "site": rng.choice(["A", "B", "01", "NA"], n, p=[0.5, 0.3, 0.15, 0.05]),
        }
    ).with_columns(
        (start + pl.duration(minutes=pl.int_range(n))).dt.cast_time_unit("us").alias("ts"),
        *(pl.when(~some).then(name).alias(name) for name in ("x", "grade", "y", "site", "new")),
    )


REFERENCE, CURRENT = table(3000, 1), table(1200, 2)


def as_pandas_writes_it(frame: pl.DataFrame) -> pl.DataFrame:
    """Whole numbers with missing ones are floats, true is True."""
    truth = [
        pl.when(name).then(pl.lit("True")).when(~pl.col(name)).then(pl.lit("False")).alias(name)
        for name in ("on", "new", "y")
    ]
    return frame.with_columns(*truth, pl.col("grade").cast(pl.Float64))


def csv(frame: pl.DataFrame, path: Path, **options: Any) -> Path:
    frame.write_csv(path, **options)
    return path


def decimal_comma(frame: pl.DataFrame, path: Path) -> Path:
    text = frame.with_columns(
        pl.col(name).map_elements("{:,.2f}".format, pl.String).str.replace_all(",", " ").str.replace(r"\.", ",")
        if name == "price"
        else pl.col(name).cast(pl.String).str.replace(r"\.", ",")
        for name in ("x", "price", "score", "ms")
    )
    return csv(text, path / "eu.csv", separator=";")


def thousands(frame: pl.DataFrame, path: Path) -> Path:
    spelled = pl.col("price").map_elements(" {:,.2f} ".format, pl.String)
    return csv(frame.with_columns(spelled, pl.col("x").cast(pl.String).fill_null("n/a")), path / "us.csv")


def folder(frame: pl.DataFrame, path: Path) -> Path:
    """Files with their columns in other orders, of other types and with another separator."""
    names = frame.columns
    frame[:400].write_csv(path / "1.csv")
    as_pandas_writes_it(frame[400:600]).select(sorted(names)).write_csv(path / "2.csv", separator="|")
    frame[600:700].select(names[::-1]).write_parquet(path / "3.parquet")
    frame[700:].with_columns(pl.col("grade").cast(pl.Float64), pl.col("on").cast(pl.Int8)).write_parquet(
        path / "4.parquet"
    )
    return path


def delta(frame: pl.DataFrame, path: Path) -> Path:
    frame[:500].write_delta(path / "table")
    frame[500:].write_delta(path / "table", mode="append")
    return path / "table"


def gz(frame: pl.DataFrame, path: Path) -> Path:
    import gzip

    (path / "rows.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + frame.write_csv().encode()))
    return path / "rows.csv.gz"


def text_parquet(frame: pl.DataFrame, path: Path) -> Path:
    as_pandas_writes_it(frame).with_columns(pl.exclude("ts").cast(pl.String)).write_parquet(path / "text.parquet")
    return path / "text.parquet"


def other_types(frame: pl.DataFrame, path: Path) -> Path:
    few = frame.cast({"grade": pl.UInt8, "id": pl.UInt64, "on": pl.Float32})
    few.cast({"site": pl.Categorical(), "price": pl.Decimal(18, 2)}).write_parquet(path / "types.parquet")
    return path / "types.parquet"


WAYS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "csv": lambda frame, path: csv(frame, path / "rows.csv"),
    "csv of pandas": lambda frame, path: csv(as_pandas_writes_it(frame), path / "rows.csv"),
    "semicolons": lambda frame, path: csv(frame, path / "rows.csv", separator=";"),
    "tabs": lambda frame, path: csv(frame, path / "rows.csv", separator="\t", line_terminator="\r\n"),
    "bars": lambda frame, path: csv(frame, path / "ROWS.CSV", separator="|", quote_style="always"),
    "decimal comma": decimal_comma,
    "thousands": thousands,
    "csv.gz with a byte order mark": gz,
    "parquet": lambda frame, path: frame.write_parquet(path / "rows.parquet") or path,
    "parquet of texts": text_parquet,
    "parquet of other types": other_types,
    "folder": folder,
    "delta": delta,
    "polars": lambda frame, _: frame,
    "lazy": lambda frame, _: frame.lazy(),
    "pandas": lambda frame, _: frame.to_pandas(),
    "pandas of numpy": lambda frame, _: frame.with_columns(pl.col("grade").cast(pl.Float64)).to_pandas(),
    "arrow": lambda frame, _: frame.to_arrow(),
}


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, Any], dict[str, Any], pl.DataFrame]:
    by_spec, inferred = (_figures(REFERENCE, CURRENT, spec) for spec in (SPEC, None))
    return by_spec, inferred, read_history(Table.of(CURRENT), SPEC).frame


def _figures(reference: object, current: object, spec: ModelSpec | None) -> dict[str, Any]:
    found = compare_files(Table.of(reference), Table.of(current), spec).to_json()
    return {name: found[name] for name in ("verdict", "rows", "features", "kpis")}


@pytest.mark.parametrize("way", WAYS)
def test_a_table_written_in_any_way_gives_the_same_figures_and_the_same_history(
    way: str, tmp_path: Path, expected: tuple[dict[str, Any], dict[str, Any], pl.DataFrame]
) -> None:
    by_spec, inferred, frame = expected
    for side in ("reference", "current"):
        (tmp_path / side).mkdir()
    before, after = (
        WAYS[way](rows, tmp_path / side) for side, rows in (("reference", REFERENCE), ("current", CURRENT))
    )
    assert _figures(REFERENCE, after, SPEC) == by_spec
    assert _figures(before, CURRENT, SPEC) == by_spec
    assert _figures(before, after, None) == inferred
    assert_frame_equal(read_history(Table.of(after), SPEC).frame, frame)
