"""A watch that is made again takes up its stored profiles and says what the one that never stopped says."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.detection.binning import Binning, Floats
from drift_pipeline.detection.hints import sample_day
from drift_pipeline.detection.verdict import Report, Verdict
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.loop.watch import Watch
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.synthetic import START
from drift_pipeline_tests.detection.worlds import rows, spec_of

REFERENCE_DAYS, AN_HOUR = 14, 400
SPEC = spec_of("x", "w", categorical=("kind",), outcome={"column": "y", "delay": "20m"})


@dataclass
class Lived:
    """A lake that has lived for some hours after the reference, with labels that come 20 minutes late."""

    lake: Lake
    spec: ModelSpec
    armed_at: datetime

    def watch(self, step: timedelta) -> Watch:
        span = Window(START, self.armed_at)
        champion = Version(RECORDED, RECORDED, span.start, span.start, None)
        return Watch(champion, span, self.armed_at, self.lake.versions(), lake=self.lake, spec=self.spec, step=step)


def land(lake: Lake, frame: pl.DataFrame, batch: int) -> None:
    frame = frame.with_columns(
        _id=pl.lit(f"{batch}-") + pl.int_range(pl.len()).cast(pl.String), _version=pl.lit(RECORDED)
    )
    lake.append("predictions", frame.drop("_label").with_columns(_recorded=pl.col("_score")), batch)
    known = frame.select("_id", "_label", _observed_at=pl.col("_time") + 20 * MINUTE)
    lake.append("outcomes", known, batch)


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[Lived]:
    lake, rng = Lake(tmp_path / "lake"), np.random.default_rng(0)
    land(lake, rows(rng, REFERENCE_DAYS, 24 * AN_HOUR), 0)
    yield Lived(lake, SPEC, START + REFERENCE_DAYS * DAY)
    lake.close()


def told(report: Report) -> tuple[list[object], list[object]]:
    return [kpi.to_json() for kpi in report.kpis.values()], [finding.to_json() for finding in report.features]


@pytest.mark.parametrize("step", [MINUTE, HOUR])
def test_a_watch_made_again_says_what_the_one_that_never_stopped_says(lived: Lived, step: timedelta) -> None:
    land(lived.lake, rows(np.random.default_rng(1), 4, 24 * AN_HOUR, REFERENCE_DAYS), 1)
    steady = lived.watch(step)
    for hours in (25.0, 60.0, 70.5, 71.2):
        steady.observe(lived.armed_at + hours * HOUR)
    for hours in (71.5, 71.75, 73.1, 90.0):
        now = lived.armed_at + hours * HOUR
        again = lived.watch(step)
        again.restore(now)
        assert told(again.observe(now)) == told(steady.observe(now))
        assert again.labelled_since(now - 5 * HOUR) == steady.labelled_since(now - 5 * HOUR) > 0


def test_what_is_stored_is_not_read_again(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    land(lived.lake, rows(np.random.default_rng(1), 2, 24 * AN_HOUR, REFERENCE_DAYS), 1)
    lived.watch(HOUR).observe(lived.armed_at + 40 * HOUR)
    again, starts, before = lived.watch(HOUR), [], Lake.read
    again.restore(lived.armed_at + 41 * HOUR)

    def read(lake: Lake, table: Table, window: Window, version: int | None = None) -> pl.DataFrame:
        starts.append(window.start)
        return before(lake, table, window, version)

    monkeypatch.setattr(Lake, "read", read)
    again.observe(lived.armed_at + 41 * HOUR)
    assert set(starts) == {lived.armed_at + 40 * HOUR}


def test_an_hour_is_stored_once_however_many_watches_tell_it_and_a_day_takes_its_hours_place(lived: Lived) -> None:
    land(lived.lake, rows(np.random.default_rng(1), 4, 24 * AN_HOUR, REFERENCE_DAYS), 1)
    for _ in range(2):
        watch = lived.watch(HOUR)
        for hours in range(1, 97):
            watch.observe(lived.armed_at + hours * HOUR)
    stored = lived.lake.read("profiles", Window(lived.armed_at, lived.armed_at + 10 * DAY))
    assert stored["_id"].is_unique().all()
    assert stored.filter(pl.col("hours") == 24)["_time"].to_list() == [lived.armed_at, lived.armed_at + DAY]
    assert max(map(len, stored["profile"].to_list())) <= 32 * 1024
    again = lived.watch(HOUR)
    again.restore(lived.armed_at + 96 * HOUR)
    assert again.labelled_since(lived.armed_at) == watch.labelled_since(lived.armed_at)


def test_the_multivariate_check_reads_each_day_once_and_needs_eight_of_them(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(lived.lake, rows(np.random.default_rng(1), 9, 24 * AN_HOUR, REFERENCE_DAYS), 1)
    told = spec_of("x", "w", categorical=("kind",), kpis={"multivariate": {}}, outcome={"column": "y", "delay": "20m"})
    watch, sampled = replace(lived, spec=told).watch(DAY), []

    def sample(binning: Binning, frame: pl.DataFrame, day: date) -> Floats:
        sampled.append(day)
        return sample_day(binning, frame, day)

    monkeypatch.setattr("drift_pipeline.loop.watch.sample_day", sample)
    verdicts = [watch.observe(lived.armed_at + day * DAY).kpis["multivariate"] for day in range(1, 10)]
    assert sampled == [(lived.armed_at + day * DAY).date() for day in range(9)]
    assert [kpi.value is not None for kpi in verdicts] == [False] * 7 + [True] * 2
    assert {kpi.verdict for kpi in verdicts} == {Verdict.INCONCLUSIVE}
