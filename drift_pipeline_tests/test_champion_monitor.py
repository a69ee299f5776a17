"""A monitor that is made again takes up its stored profiles and says what the one that never stopped says."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.detection.counting.binning import Binning, Floats
from drift_pipeline.detection.judging.hints import sample_day
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.errors import ConflictError, UnavailableError
from drift_pipeline.loop.monitoring.baselines import new_baseline
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Cursor, Lake, Table
from drift_pipeline.telemetry.synthetic import START
from drift_pipeline_tests.detection.worlds import rows, spec_of

REFERENCE_DAYS, AN_HOUR = 14, 400
SPEC = spec_of("x", "w", categorical=("kind",), outcome={"column": "y", "delay": "20m"})


@dataclass
class Lived:
    """A lake that lives on after the reference: rows land as time passes, labels 20 minutes after them."""

    lake: Lake
    spec: ModelSpec
    baseline_at: datetime
    frame: pl.DataFrame
    batch: int = 1

    def land(self, until: datetime) -> None:
        """What came since the last call."""
        served, known = _served(self.frame), _known(self.frame)
        tables: tuple[tuple[Table, pl.DataFrame, str], ...]
        tables = (("predictions", served, "_time"), ("outcomes", known, "_observed_at"))
        for table, frame, time in tables:
            new = frame.filter(pl.col(time).is_between(self.landed_to[table], until, closed="left"))
            self.lake.append(table, new, self.batch)
            self.landed_to[table] = until
        self.batch += 1

    def __post_init__(self) -> None:
        self.landed_to: dict[Table, datetime] = dict.fromkeys(("predictions", "outcomes"), self.baseline_at)
        self.kept = {step: self._begun(step) for step in (MINUTE, HOUR, DAY)}

    def _begun(self, step: timedelta) -> ChampionMonitor:
        champion, span = Version(RECORDED, RECORDED, START, START, None), Window(START, self.baseline_at)
        baseline = new_baseline(champion, span, self.baseline_at, lake=self.lake, spec=self.spec, step=step)
        begun = ChampionMonitor(baseline, lake=self.lake, spec=self.spec, step=step)
        begun.restore(self.baseline_at)
        return begun

    def monitor(self, step: timedelta) -> ChampionMonitor:
        """As another process would make it, before it restores anything."""
        landed = {"predictions": Cursor(0), "outcomes": Cursor(0)}
        baseline = replace(self.kept[step].baseline, landed=landed)
        return ChampionMonitor(baseline, lake=Lake(self.lake.root), spec=self.spec, step=step)


def _served(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("_label").with_columns(_recorded=pl.col("_score"))


def _known(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("_id", "_label", _observed_at=pl.col("_time") + 20 * MINUTE)


def numbered(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    ids = pl.lit(f"{prefix}-") + pl.int_range(pl.len()).cast(pl.String)
    return frame.with_columns(_id=ids, _version=pl.lit(RECORDED), _route=pl.lit("stable"))


@pytest.fixture
def lived(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lived]:
    """In UTC, or in the time zone that a test asks for."""
    lake, rng = Lake(tmp_path / "lake"), np.random.default_rng(0)
    before = numbered(rows(rng, REFERENCE_DAYS, 24 * AN_HOUR), "before")
    lake.append("predictions", _served(before), 0)
    lake.append("outcomes", _known(before), 0)
    after = numbered(rows(np.random.default_rng(1), 9, 24 * AN_HOUR, REFERENCE_DAYS), "after")
    zone = getattr(request, "param", "UTC")
    yield Lived(lake, SPEC.model_copy(update={"timezone": zone}), START + REFERENCE_DAYS * DAY, after)
    lake.close()


def told(report: Report) -> tuple[list[object], list[object]]:
    return [kpi.to_json() for kpi in report.kpis.values()], [finding.to_json() for finding in report.features]


@pytest.mark.parametrize("step", [MINUTE, HOUR])
def test_a_monitor_made_again_says_what_the_one_that_never_stopped_says(lived: Lived, step: timedelta) -> None:
    steady = lived.kept[step]
    for hours in (25.0, 60.0, 70.5, 71.2):
        lived.land(lived.baseline_at + hours * HOUR)
        steady.observe(lived.baseline_at + hours * HOUR)
    for hours in (71.5, 71.75, 73.1, 90.0):
        now = lived.baseline_at + hours * HOUR
        lived.land(now)
        again = lived.monitor(step)
        again.restore(now)
        assert told(again.observe(now, keep=False)) == told(steady.observe(now))
        assert again.labelled_since(now - 5 * HOUR) == steady.labelled_since(now - 5 * HOUR) > 0


@pytest.mark.parametrize("lived", ["Asia/Kolkata", "America/New_York"], indirect=True)
def test_days_that_were_folded_by_the_clock_on_the_wall_come_back_whole(lived: Lived) -> None:
    steady = lived.kept[HOUR]
    for hours in (30.0, 80.0, 110.0, 130.0):
        now = lived.baseline_at + hours * HOUR
        lived.land(now)
        again = lived.monitor(HOUR)
        again.restore(now)
        assert told(again.observe(now, keep=False)) == told(steady.observe(now))
        assert again.labelled_since(now - 55 * HOUR) == steady.labelled_since(now - 55 * HOUR)
        assert again.rows_counted() == steady.rows_counted()


def test_rows_and_labels_count_once_however_late_they_land_and_in_the_hour_of_their_event(lived: Lived) -> None:
    """Half the rows land in order; of the other half each lands up to three hours late, some before their label."""
    prompt, late = lived.kept[HOUR], lived.monitor(HOUR)
    other = Lake(lived.lake.root, source="late")
    for hours in range(1, 30):
        now = lived.baseline_at + hours * HOUR
        lived.land(now)
        prompt.observe(now)
    rng, frame = np.random.default_rng(2), lived.frame.filter(pl.col("_time") < lived.baseline_at + 26 * HOUR)
    again = numbered(frame, "again").with_columns(_lag=pl.Series(rng.integers(0, 180, frame.height)))
    for hours in range(30, 34):
        part, now = again.filter(pl.col("_lag") // 60 == hours - 30).drop("_lag"), lived.baseline_at + hours * HOUR
        other.append("outcomes", _known(part).with_columns(_observed_at=pl.lit(now)), hours)
        late.observe(now, keep=False)
        other.append("predictions", _served(part), hours)
        late.observe(now, keep=False)
    expected = lived.frame.filter(pl.col("_time") < lived.baseline_at + 29 * HOUR).height + frame.height
    assert late.rows_counted() == expected
    for hours in (3, 10, 25):
        since = lived.baseline_at + hours * HOUR
        labelled = [f.filter(pl.col("_time") >= since).height for f in (frame, lived.frame)]
        waiting = lived.frame.filter(pl.col("_time") >= lived.baseline_at + 28 * HOUR + 40 * MINUTE).height
        assert late.labelled_since(since) == sum(labelled) - waiting


def test_what_is_stored_is_not_read_again(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = lived.kept[HOUR]
    for hours in (40, 41):
        lived.land(lived.baseline_at + hours * HOUR)
        monitor.observe(lived.baseline_at + hours * HOUR)
    lived.land(lived.baseline_at + 42 * HOUR)
    again, told, before = lived.monitor(HOUR), [], Lake.landed
    again.restore(lived.baseline_at + 42 * HOUR)

    def landed(lake: Lake, table: Table, since: Cursor) -> tuple[pl.DataFrame, Cursor]:
        told.append(before(lake, table, since))
        return told[-1]

    monkeypatch.setattr(Lake, "landed", landed)
    again.observe(lived.baseline_at + 42 * HOUR, keep=False)
    (served,) = [frame["_time"] for frame, _ in told if "_time" in frame.columns]
    assert len(served)
    assert (served >= lived.baseline_at + 41 * HOUR).all()


def test_two_who_store_one_hour_do_not_both_go_on(lived: Lived) -> None:
    first, second = lived.kept[HOUR], lived.monitor(HOUR)
    for monitor in (first, second):
        monitor.restore(lived.baseline_at)
    lived.land(lived.baseline_at + 6 * HOUR)
    first.observe(lived.baseline_at + 6 * HOUR)
    with pytest.raises(ConflictError, match="another process stored this hour's profiles"):
        second.observe(lived.baseline_at + 6 * HOUR)
    second = lived.monitor(HOUR)
    second.restore(lived.baseline_at + 6 * HOUR)
    assert told(second.observe(lived.baseline_at + 6 * HOUR)) == told(first.observe(lived.baseline_at + 6 * HOUR))


def test_an_hour_is_stored_once_and_a_day_takes_its_hours_place(lived: Lived) -> None:
    monitor = lived.kept[HOUR]
    for hours in range(1, 98):
        lived.land(lived.baseline_at + hours * HOUR)
        monitor.observe(lived.baseline_at + hours * HOUR)
    stored = lived.lake.read("profiles", Window(lived.baseline_at, lived.baseline_at + 10 * DAY))
    assert stored["_id"].is_unique().all()
    assert stored.filter(pl.col("hours") == 24)["_time"].to_list() == [lived.baseline_at, lived.baseline_at + DAY]
    assert max(map(len, stored["profile"].to_list())) <= 32 * 1024
    again = lived.monitor(HOUR)
    again.restore(lived.baseline_at + 97 * HOUR)
    again.observe(lived.baseline_at + 97 * HOUR, keep=False)
    assert again.labelled_since(lived.baseline_at) == monitor.labelled_since(lived.baseline_at)


def test_rows_whose_label_never_comes_wait_in_memory_for_the_delay_and_two_hours(lived: Lived) -> None:
    monitor, waits = lived.kept[HOUR], 2 * HOUR + 20 * MINUTE
    for hours in range(1, 40):
        now = lived.baseline_at + hours * HOUR
        lived.landed_to["outcomes"] = now  # none ever lands
        lived.land(now)
        monitor.observe(now)
        awaited = pl.col("_time").is_between(now - waits, now, closed="left")
        assert monitor.rows_waiting() == lived.frame.filter(awaited).height
    assert 20 * monitor.rows_waiting() < 2 * monitor.rows_counted()


@pytest.mark.parametrize(
    "made_again",
    [pytest.param((), id="never", marks=pytest.mark.live), pytest.param(tuple(range(1, 40)), id="each hour")],
)
def test_labels_that_come_hours_or_days_later_count_once(lived: Lived, made_again: tuple[int, ...]) -> None:
    """Each fifth label comes 3 to 15 hours late, some are corrected or told again after that, some ids are nobody's."""
    monitor, other = lived.kept[HOUR], Lake(lived.lake.root, source="labels")
    rng, frame = np.random.default_rng(4), lived.frame.filter(pl.col("_time") < lived.baseline_at + 20 * HOUR)
    late = frame.filter(pl.Series(rng.random(frame.height) < 0.2)).select("_id", "_label", "_time")
    late = late.with_columns(_after=pl.Series(rng.integers(180, 900, late.height)))
    lived.frame = lived.frame.filter(pl.col("_time") < lived.baseline_at + 20 * HOUR)
    known = lived.frame.join(late, on="_id", how="anti").filter(pl.col("_time") < lived.baseline_at + 20 * HOUR)
    said = [late, late.sample(fraction=0.3, seed=1).with_columns(pl.col("_label").neg() + 1, pl.col("_after") + 200)]
    said += [late.sample(fraction=0.3, seed=2).with_columns(pl.col("_after") + 70)]
    said += [late.head(50).with_columns(_id=pl.lit("nobody-") + pl.col("_id"))]
    told_late = pl.concat(said).with_columns(_observed_at=pl.col("_time") + pl.duration(minutes="_after"))
    for hours in range(1, 41):
        now = lived.baseline_at + hours * HOUR
        lived.lake.append("predictions", _served(_between(lived.frame, "_time", now)), hours)
        lived.lake.append("outcomes", _between(_known(known), "_observed_at", now), hours)
        lands = _between(told_late, "_observed_at", now).select("_id", "_label", "_observed_at")
        if lands.height:
            other.append("outcomes", lands, hours)
        if hours in made_again:
            monitor = lived.monitor(HOUR)
            monitor.restore(now)
        monitor.observe(now)
    assert monitor.rows_counted() == frame.height
    assert monitor.labelled_since(lived.baseline_at) == frame.height
    since = lived.baseline_at + 10 * HOUR
    assert monitor.labelled_since(since) == frame.filter(pl.col("_time") >= since).height


def test_a_disk_that_is_full_at_an_hour_s_end_counts_no_late_label_twice(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hour's profiles wait in memory then, and what they hold was looked up."""
    frame = lived.frame.filter(pl.col("_time") < lived.baseline_at + 6 * HOUR)
    known = frame.select("_id", "_label", _observed_at=pl.col("_time") + 4 * HOUR)
    monitor, flush, full = lived.kept[HOUR], Lake.flush, False

    def breakable(lake: Lake, table: Table) -> None:
        if full and table == "profiles":
            raise UnavailableError("the disk is full")
        flush(lake, table)

    monkeypatch.setattr(Lake, "flush", breakable)
    for hours in range(1, 16):
        now, full = lived.baseline_at + hours * HOUR, hours == 8
        lived.lake.append("predictions", _served(_between(lived.frame, "_time", now)), hours)
        lived.lake.append("outcomes", _between(known, "_observed_at", now), hours)
        try:
            monitor.observe(now)
        except UnavailableError:  # as the loop does: it goes on with this monitor
            assert full
        except ConflictError:  # and here with one that is made again
            monitor = ChampionMonitor(monitor.baseline, lake=lived.lake, spec=lived.spec, step=HOUR)
            monitor.restore(now)
            monitor.observe(now)
    assert monitor.labelled_since(lived.baseline_at) == frame.height


def _between(frame: pl.DataFrame, time: str, now: datetime) -> pl.DataFrame:
    """What landed in the hour that ends now."""
    return frame.filter(pl.col(time).is_between(now - HOUR, now, closed="left"))


def test_rows_of_a_maintenance_judge_nothing(lived: Lived) -> None:
    monitor, left_out = lived.kept[HOUR], Window(lived.baseline_at + 2 * HOUR, lived.baseline_at + 4 * HOUR)
    now = lived.baseline_at + 6 * HOUR
    lived.land(now)
    monitor.observe(now, [left_out])
    outside = pl.col("_time") < now
    inside = pl.col("_time").is_between(left_out.start, left_out.end, closed="left")
    assert monitor.rows_counted() == lived.frame.filter(outside & ~inside).height


def test_the_multivariate_check_reads_each_day_once_and_needs_eight_of_them(
    lived: Lived, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = spec_of("x", "w", categorical=("kind",), kpis={"multivariate": {}}, outcome={"column": "y", "delay": "20m"})
    world, sampled = replace(lived, spec=told), []
    monitor = world.kept[DAY]

    def sample(binning: Binning, frame: pl.DataFrame, day: date) -> Floats:
        sampled.append(day)
        return sample_day(binning, frame, day)

    monkeypatch.setattr("drift_pipeline.loop.monitoring.sampling.sample_day", sample)
    verdicts = []
    for day in range(1, 10):
        world.land(lived.baseline_at + day * DAY)
        verdicts.append(monitor.observe(lived.baseline_at + day * DAY).kpis["multivariate"])
    assert sampled[-9:] == [(lived.baseline_at + day * DAY).date() for day in range(9)]
    assert [kpi.value is not None for kpi in verdicts] == [False] * 7 + [True] * 2
    assert {kpi.verdict for kpi in verdicts} == {Verdict.INCONCLUSIVE}


def test_labels_that_came_are_counted_whoever_joins_them_and_whichever_process_asks(lived: Lived) -> None:
    """700 labels, 20 of predictions that nobody made: what a person counts in the table is what the screen says."""
    now = lived.baseline_at + 2 * HOUR
    lived.lake.append("predictions", _served(lived.frame[:700]), 1)
    strange = pl.concat([_known(lived.frame[:680]), _known(lived.frame[:20]).with_columns(_id="x" + pl.col("_id"))])
    lived.lake.append("outcomes", strange, 1)
    steady = lived.kept[MINUTE]
    expected = {"landed": 700, "joined": 680, "judged": 400}  # of the last hour before the labels' delay
    assert steady.labels(steady.observe(now)) == expected
    again = lived.monitor(MINUTE)
    again.restore(now)
    assert again.labels(again.observe(now, keep=False)) == expected
    lived.lake.append("outcomes", _known(lived.frame[680:700]), 2)
    for monitor in (steady, again):
        found = monitor.labels(monitor.observe(now + MINUTE, keep=False))
        assert (found["landed"], found["joined"]) == (720, 700)


def test_a_home_from_before_labels_were_counted_tells_those_that_were_joined(lived: Lived) -> None:
    now = lived.baseline_at + 2 * HOUR
    lived.land(now)
    old = lived.monitor(MINUTE)
    found = old.labels(old.observe(now, keep=False))
    assert found["landed"] == found["joined"] > 0
