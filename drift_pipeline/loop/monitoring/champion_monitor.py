"""The monitor of one champion: reads what landed, has it counted, and has the windows that end now judged."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import polars as pl

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.counting.shape import Shape, shape_of
from drift_pipeline.detection.counting.windows import floor, sliding
from drift_pipeline.detection.judging.monitor import Monitor
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report
from drift_pipeline.detection.judging.waiting import prospects
from drift_pipeline.loop.monitoring.baselines import MonitoringBaseline
from drift_pipeline.loop.monitoring.counting import Counting, outside
from drift_pipeline.loop.monitoring.profiles import StoredProfiles
from drift_pipeline.loop.monitoring.sampling import DailySamples
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

MOST_SHAPES = 8
_SERVED = ("_id", "_producer", "_time", "_score", "_version", "_route")
_TOLD = ("_id", "_producer", "_told_at", "_observed_at", "_label")
_OUTCOME = ("_id", "_observed_at", "_label")


class ChampionMonitor:
    """Counts what lands in the order in which it lands, so that no row is missed or counted twice, however late it is.

    All it counts is in the lake: a monitor that is made again takes up the stored profiles, and what landed since.
    """

    def __init__(self, baseline: MonitoringBaseline, *, lake: Lake, spec: ModelSpec, step: timedelta) -> None:
        """
        Args:
            step: time between two ticks.
        """
        self.baseline = baseline
        self.champion, self.reference, self.baseline_at = baseline.champion, baseline.reference, baseline.since
        self._lake, self._spec = lake, spec
        self._landed, self._counted_until = dict(baseline.landed), baseline.since
        self._over_at = baseline.since  # by whose clock the last hour was taken for over
        self._labels_landed: int | None = None  # not counted yet
        self._judging = Monitor(baseline.reference, spec, baseline.since, step)
        self._slices = self._judging.slices
        self._counting = Counting(baseline, self._slices, spec.outcome.delay, self._judging.lengths[-1])
        self._profiles = StoredProfiles(baseline, lake, spec.name)
        self._samples = None if spec.kpis.multivariate is None else DailySamples(baseline, lake)

    def observe(self, now: datetime, leave_out: Sequence[Window] = (), *, keep: bool = True) -> Report:
        """Profile what landed since the last call and judge every KPI.

        Args:
            leave_out: rows of these spans of time stay out of the profiles.
            keep: store the profiles of each hour for whoever makes this monitor again.

        Raises:
            ConflictError: another process stored profiles of this champion meanwhile; make the monitor again.
        """
        labels = self._labels_until_now() if self._labels_landed is None else None
        # outcomes first: what is labelled by then has landed, and is read after
        outcomes, self._landed["outcomes"] = self._lake.landed("outcomes", self._landed["outcomes"])
        served, self._landed["predictions"] = self._lake.landed("predictions", self._landed["predictions"])
        self._labels_landed = (self._labels_landed or 0) + outcomes.height if labels is None else labels
        self._slices.see(served)
        counted = self._believed(now)
        self._counting.add(outside(served, leave_out), outcomes, counted)
        hour = floor(counted, HOUR)
        if keep and hour > self._counted_until:  # by now what is counted ends where the cursors stand
            self._add_late(counted, leave_out)
            self._counted_until, self._over_at = hour, now
            if parts := self._slices.new_parts():
                self._counting.stored(counted, hour)  # first: what the disk does not take yet is stored with the next
                self._profiles.append(parts, hour, self._landed)
        return self._judged(now, {})

    def look_back(self, now: datetime, versions: Mapping[str, int]) -> Report:
        """What a monitor that was just made would have said at an earlier time, of rows and labels from before it.

        Args:
            versions: Delta versions of `predictions` and `outcomes` to read; none = as they are now.
        """
        window = Window(self.baseline_at, now)
        served, outcomes = (self._lake.read(t, window, versions.get(t)) for t in ("predictions", "outcomes"))
        self._counting.add(served, outcomes, now)
        return self._judged(now, versions)

    def restore(self, now: datetime, leave_out: Sequence[Window] = ()) -> None:
        """Take up the stored profiles of this champion and reference; what landed since is read at the next
        `observe`."""
        found = self._profiles.read(now)
        if found is None:
            return
        self._slices.restore(found.parts)
        self._counted_until, self._landed = found.counted_until, found.landed
        until = self._over_at = min(found.counted_until, now)  # a clock that was ahead may have stored them
        before = found.before or self.baseline_at
        window = Window(self._counting.open_from(until, before), now + DAY)
        outcomes, rows = (self._before_cursor(table, window) for table in ("outcomes", "predictions"))
        self._slices.see(rows)
        since, _ = self._lake.landed("outcomes", found.outcomes_before or self.baseline.landed["outcomes"])
        since = since.join(outcomes, on=list(_OUTCOME), how="semi", nulls_equal=True) if since.height else since
        self._counting.take_up(rows, outcomes, since, (until, before), leave_out)

    def rows_counted(self) -> int:
        """Rows in the profiles that are at hand."""
        return self._slices.rows()

    def rows_waiting(self) -> int:
        """Rows that may still get a label."""
        return self._counting.waiting

    def labelled_since(self, moment: datetime) -> int:
        """Labelled rows of this monitor from the moment on; of its hour, which is not told apart, none count."""
        return self._slices.labelled.total() if moment <= self.baseline_at else self._slices.labelled.since(moment)

    def labels(self, report: Report) -> dict[str, int]:
        """The labels since this champion is monitored: those that landed, whosever they are, that were joined to its
        predictions, and of those how many the performance is judged on now."""
        kpi, joined = report.kpis.get(performance_of(self._spec).kpi), self._slices.labelled.total()
        judged = kpi.n if kpi is not None and kpi.judged else 0
        return {"landed": max(self._labels_landed or 0, joined), "joined": joined, "judged": judged}

    def prospects(self) -> list[str]:
        """What can be judged at the pace of the reference's rows: drift first, then performance."""
        return prospects(self.reference, self._spec, self._judging.lengths)

    def performance_now(self, report: Report) -> float | None:
        """The last estimate of the champion's performance: its newest window's, else the held-out one, if it has
        one."""
        performance, held_out = performance_of(self._spec), self.reference.baseline
        change = report.kpis[performance.kpi].value or 0.0
        return None if held_out is None else performance.after(held_out.value, change)

    def shapes(self, report: Report) -> list[tuple[FeatureFinding, Shape]]:
        """What drifts and how it is distributed beside the reference, the largest distance first.

        Each column in the window where it differs most; where none drifts, those that differ most, which says so.
        """
        by_size = sorted(report.features, key=lambda f: (not f.drift, -f.distance))
        found = {f.name: f for f in reversed(by_size) if f.n and (f.drift or not report.drifting)}
        chosen = sorted(found.values(), key=lambda f: -f.distance)[: MOST_SHAPES if report.drifting else 3]
        return [(finding, self._shape(finding, report.at)) for finding in chosen]

    def _add_late(self, now: datetime, leave_out: Sequence[Window]) -> None:
        """Labels that came later than rows wait in memory: each is looked up in the lake once."""
        labels, window = self._counting.late(now)
        if labels.is_empty() or window.start == window.end:
            return
        ids = pl.col("_id").is_in(labels["_id"].unique().to_list())
        inside = ids & pl.col("_time").is_between(window.start, window.end, closed="left")
        for table in ("predictions", "outcomes"):
            self._lake.flush(table)
        rows = outside(self._lake.find("predictions", inside, _SERVED, window), leave_out)
        if rows.height:
            outcomes = self._lake.find("outcomes", ids, _TOLD, Window(window.start, now + DAY))
            self._counting.add_late(rows, outcomes, labels, now)

    def _shape(self, finding: FeatureFinding, at: datetime) -> Shape:
        window = sliding(at, finding.window, self._slices.zone)
        return shape_of(finding.name, self.reference.matched(window).profile, self._slices.merge(window))

    def _labels_until_now(self) -> int:
        """Outcomes that landed since this champion is monitored, in whichever process, and were not erased."""
        return self._lake.landed_rows("outcomes", self.baseline.landed["outcomes"])

    def _judged(self, now: datetime, versions: Mapping[str, int]) -> Report:
        return self._judging.evaluate(now, self._samples.until(now, versions) if self._samples else ({}, {}))

    def _believed(self, now: datetime) -> datetime:
        """Until when hours and days are taken for over: not by a clock that is far ahead of all that was ever served,
        since what was stored of them as a whole is not told apart again."""
        newest = self._slices.newest or self.baseline_at
        patience = HOUR if now - self._over_at >= HOUR else timedelta()  # one hour more for each that passes
        return min(now, max(newest + HOUR, self._counted_until + patience))

    def _before_cursor(self, table: Literal["predictions", "outcomes"], window: Window) -> pl.DataFrame:
        """Rows of the window that had landed when the profiles were stored."""
        rows, (after, _) = self._lake.read(table, window), self._lake.landed(table, self._landed[table])
        key = ["_id", "_time" if table == "predictions" else "_observed_at"]
        return rows if rows.is_empty() or after.is_empty() else rows.join(after, on=key, how="anti")
