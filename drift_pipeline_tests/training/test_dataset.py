"""Which rows train, and which prove."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset, block_rows, split_newest
from drift_pipeline.training.sources.lake import LakeSource
from drift_pipeline_tests.training.worlds import START, history, spec

HOUR = timedelta(hours=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """600 minutes of traffic; each label is known six hours after its prediction."""
    rows = history(600)
    lake = Lake(tmp_path)
    lake.append("predictions", rows.drop("_label").with_columns(_score=0.5), batch=0)
    lake.append("outcomes", rows.select("_id", "_label", _observed_at=pl.col("_time") + 6 * HOUR), batch=0)
    return lake


def training_dataset(lake: Lake, spec: ModelSpec, now: datetime) -> Dataset:
    return LakeSource(lake, spec).rows(now)


def test_only_labels_known_at_the_moment_are_trained_on(lake: Lake) -> None:
    found = training_dataset(lake, spec(), START + 8 * HOUR)
    assert found.frame["_id"].to_list() == [str(minute) for minute in range(120)]
    assert found.frame.columns == ["amount", "age", "device", "region", "_label", "_time", "_id"]
    assert found.frame.schema["_label"] == pl.Int8
    assert (found.pin.kind, found.pin.versions) == ("lake", {"predictions": 0, "outcomes": 0})


def test_the_window_ends_now_and_has_the_length_of_the_spec(lake: Lake) -> None:
    found = training_dataset(lake, spec(window="7h"), START + 8 * HOUR)
    assert (found.window.start, found.window.end) == (START + HOUR, START + 8 * HOUR)
    assert (found.frame["_time"].min(), found.frame.height) == (START + HOUR, 60)


@pytest.mark.parametrize("zone", ["", "Z", "+00:00"])
def test_excluded_spans_are_half_open_and_in_utc(lake: Lake, zone: str) -> None:
    exclude = [{"start": f"2026-01-01T00:10:00{zone}", "end": f"2026-01-01T01:50:00{zone}"}]
    found = training_dataset(lake, spec(exclude=exclude), START + 8 * HOUR)
    assert found.frame["_id"].to_list() == [str(minute) for minute in [*range(10), *range(110, 120)]]


def test_an_exclusion_in_another_zone_is_moved_to_utc(lake: Lake) -> None:
    exclude = [{"start": "2026-01-01T02:00:00+02:00", "end": "2026-01-01T03:59:00+02:00"}]
    assert training_dataset(lake, spec(exclude=exclude), START + 8 * HOUR).frame["_id"].to_list() == ["119"]


def test_nothing_to_train_on_is_told(lake: Lake) -> None:
    with pytest.raises(InputError, match="no labelled row between"):
        training_dataset(lake, spec(), START + HOUR)
    with pytest.raises(InputError, match="leaves out all 120 labelled rows"):
        training_dataset(lake, spec(exclude=[{"start": "2025-01-01", "end": "2027-01-01"}]), START + 8 * HOUR)


def test_a_feature_that_was_never_captured_is_named(tmp_path: Path) -> None:
    rows = history(10)
    lake = Lake(tmp_path)
    lake.append("predictions", rows.drop("_label", "device"), batch=0)
    lake.append("outcomes", rows.select("_id", "_label", _observed_at="_time"), batch=0)
    with pytest.raises(InputError, match="no column device"):
        training_dataset(lake, spec(), START + HOUR)


@given(times=st.lists(st.integers(0, 8), max_size=40), rows=st.integers(-1, 45))
def test_a_cut_parts_all_rows_and_never_a_moment(times: list[int], rows: int) -> None:
    moments = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in sorted(times)]
    frame = pl.DataFrame({"_time": pl.Series(moments, dtype=pl.Datetime("us", "UTC"))})
    older, newest = split_newest(frame, rows)
    assert pl.concat([older, newest]).equals(frame)
    assert not set(older["_time"]) & set(newest["_time"])
    assert newest.height >= min(max(rows, 0), frame.height)
    if older.height and newest.height:
        assert newest.filter(pl.col("_time") > newest["_time"][0]).height < rows, "no moment more than needed"


@pytest.mark.parametrize(
    ("fresh", "total", "rows"),
    [
        (3000, 17_000, 1500),
        (200, 17_000, 500),
        (10**6, 10**6, 20_000),
        (700, 800, 400),
        (None, 17_000, 850),
        (None, 2000, 500),
        (None, 10**6, 20_000),
        (None, 10, 5),
    ],
)
def test_the_block_is_half_of_what_is_fresh_within_bounds(fresh: int | None, total: int, rows: int) -> None:
    assert block_rows(fresh, total) == rows
