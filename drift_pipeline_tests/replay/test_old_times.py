"""A history of any century is replayed to its end: hours and days before 1970 are hours and days."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import Window
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.synthetic import synthetic_history
from drift_pipeline_tests.replay.worlds import MODEL, SPEC, drift

DAYS, REFERENCE = 40, 28
ALL = Window(datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("start", ["1949-01-01", "1969-11-25", "1970-01-01"])
def test_a_history_from_before_1970_is_replayed_to_its_end(tmp_path: Path, start: str) -> None:
    path, began = tmp_path / "h.parquet", datetime.fromisoformat(start).replace(tzinfo=UTC)
    synthetic_history(DAYS, 60, 0, start=began).write_parquet(path)
    (tmp_path / "s.yaml").write_text(SPEC)
    how = ("--reference", f"{REFERENCE}d", "--triggers", "drift")
    ended = drift("replay", path, "--spec", tmp_path / "s.yaml", "--out", tmp_path / "out", "--json", *how)
    assert ended.code == 0, ended.err
    summary = ended.summary
    assert (summary["evaluations"], summary["partial"], summary["incidents"]) == (DAYS - REFERENCE, False, 0)
    assert summary["from"].startswith(start)
    profiles = Lake(tmp_path / "out" / "lake" / MODEL, source="t").read("profiles", ALL)
    assert profiles["_time"].min() == began + timedelta(days=REFERENCE)
    assert profiles["_time"].dt.date().n_unique() >= DAYS - REFERENCE - 1
