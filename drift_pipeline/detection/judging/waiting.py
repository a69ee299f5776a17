"""Waiting: when a KPI that is not judged yet can be, from how many rows and labels have come so far."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK, format_duration
from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.judging.cohorts import day_slides_by, first_end
from drift_pipeline.detection.judging.fairness import LEAST_DAYS
from drift_pipeline.detection.judging.fairness import NAME as PARITY
from drift_pipeline.detection.judging.labelled import LEAST_OF_A_CLASS
from drift_pipeline.detection.judging.tick import Tick
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.reference.null import Null
from drift_pipeline.detection.reference.reference import YEAR, Reference
from drift_pipeline.detection.statistics.parity import LEAST_OF_A_GROUP
from drift_pipeline.detection.thresholds import LEAST_ROWS, LEAST_WINDOWS
from drift_pipeline.spec import ModelSpec

BY_LABELS = ("auroc", "mae", "residuals")


@dataclass(frozen=True)
class Pace:
    """How many rows come in an hour, against which reference, and the lengths of the windows that there are."""

    rows_an_hour: float
    reference: Reference
    lengths: Sequence[timedelta]

    @classmethod
    def of_reference(cls, reference: Reference, lengths: Sequence[timedelta]) -> "Pace":
        return cls(reference.rows / (reference.span.length / HOUR), reference, lengths)

    @classmethod
    def so_far(cls, slices: Slices, reference: Reference, lengths: Sequence[timedelta], now: datetime) -> "Pace":
        """Since monitoring began; of the reference until there is an hour of it."""
        watched = min(now - slices.baseline_at, lengths[-1])
        if watched < HOUR or not (rows := slices.rows()):
            return cls.of_reference(reference, lengths)
        return cls(rows / (watched / HOUR), reference, lengths)

    def rows(self, length: timedelta) -> float:
        return self.rows_an_hour * (length / HOUR)

    def first(self, enough: Callable[[timedelta], bool]) -> timedelta | None:
        """The shortest window that is enough; None where none is."""
        return next((length for length in self.lengths if enough(length)), None)

    def drift(self) -> timedelta | None:
        """The shortest window in which some column can be judged for drift."""
        return self.first(lambda length: makes_claims(self.reference, length) and bool(self.judged_columns(length)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Without the score, which is no column of the data."""
        return tuple(name for name in self.reference.layout.names if name != SCORE)

    def judged_columns(self, length: timedelta) -> list[str]:
        """The watched columns of which a window of this length holds enough effective rows."""
        null, names = self.reference.nulls[length], self.columns
        phi = dict(zip(names, null.overdispersion(names).tolist(), strict=True))
        known = [name for name in names if not np.isnan(null.phi[name])]
        return [name for name in known if self.rows(length) / phi[name] >= LEAST_ROWS]

    def labels(self) -> timedelta | None:
        """The shortest window, a day or more, with enough labels, and of a classification with enough of each class."""
        baseline = self.reference.auroc
        share = min(baseline.positives, baseline.negatives) / baseline.rows if baseline and baseline.rows else 1.0
        return self.first(
            lambda length: (
                length >= DAY and self.rows(length) >= LEAST_ROWS and self.rows(length) * share >= LEAST_OF_A_CLASS
            )
        )

    def parity(self, block_days: int) -> timedelta | None:
        """The days until two groups of every protected column have 100 rows, seven blocks at least; None where no
        window is that long."""
        seconds = [
            float(np.sort(totals[:, : self.reference.binning.columns[name].bins].sum(axis=0))[-2:].min() / totals.sum())
            for name, (_, totals) in self.reference.group_days.items()
            if totals.sum()
        ]
        share = min(seconds, default=0.0)
        if not share:
            return None
        days = max(LEAST_DAYS * block_days, math.ceil(LEAST_OF_A_GROUP / (share * self.rows(DAY))))
        return days * DAY if days * DAY <= max(4 * WEEK, self.lengths[-1]) else None


def makes_claims(reference: Reference, length: timedelta) -> bool:
    """Whether healthy windows of this length tell how much columns vary by themselves."""
    known: Null = reference.nulls[length]
    return known.windows >= LEAST_WINDOWS and (length < 4 * WEEK or reference.span.length >= YEAR)


def waiting(tick: Tick, found: Mapping[str, KpiResult]) -> dict[str, KpiResult]:
    """The KPIs, those that are INCONCLUSIVE with the time from which they can be judged, and whether that is past."""
    silent = {name for name, kpi in found.items() if kpi.verdict is Verdict.INCONCLUSIVE and kpi.configured}
    if not silent:
        return dict(found)
    pace = Pace.so_far(tick.slices, tick.reference, tick.lengths, tick.now)
    return {name: _waits(tick, pace, kpi) if name in silent else kpi for name, kpi in found.items()}


def _waits(tick: Tick, pace: Pace, kpi: KpiResult) -> KpiResult:
    """Overdue: not judged for longer than its own window, which is a whole day at least, since nights are quiet."""
    window = _own_window(kpi.name, pace, tick.block_days)
    due = _ends(tick, kpi.name, max(window or _longest(kpi.name, tick), DAY))
    at = _ends(tick, kpi.name, window) if window else None
    reason = kpi.reason
    if kpi.name in BY_LABELS and window and at and tick.now < at and tick.reference.baseline is not None:
        reason = _labels_wait(tick.slices.labelled.total(), window, at)
    elif kpi.name == "psi" and window is None:
        reason = f"{_begins(pace)} never: {_never(pace)}"
    elif (last := _traffic_ended(tick, kpi.name in BY_LABELS)) is not None:
        ended, at = f"no traffic since {last:%Y-%m-%d %H:%M} UTC", None
        reason = ended if kpi.window is None else f"{reason}; {ended}"
    return replace(kpi, reason=reason, judged_at=at if at and at > tick.now else None, overdue=tick.now > due)


def _traffic_ended(tick: Tick, by_labels: bool) -> datetime | None:
    """The last row's time, if at the reference's pace it is so long ago that a window would have filled since; of what
    is judged by labels, if theirs would have come, too."""
    last = tick.slices.newest or tick.slices.baseline_at
    rows_an_hour = Pace.of_reference(tick.reference, tick.lengths).rows_an_hour
    least = max(HOUR, LEAST_ROWS / rows_an_hour * HOUR) + (tick.spec.outcome.delay if by_labels else timedelta())
    return last if tick.now - last >= least else None


def _labels_wait(labelled: int, window: timedelta, at: datetime) -> str:
    some = f"{labelled:,} labels wait" if labelled else "no label has come yet"
    return f"{some}: the first whole {format_duration(window)} window of labels ends {at:%Y-%m-%d %H:%M} UTC"


def _own_window(name: str, pace: Pace, block_days: int) -> timedelta | None:
    """The shortest window that the KPI can be judged in; None where none is long enough."""
    if name == "psi":
        return pace.drift()
    if name == PARITY:
        return pace.parity(block_days)
    if name in BY_LABELS:
        return pace.labels()
    return pace.first(lambda length: pace.rows(length) >= LEAST_ROWS)


def _longest(name: str, tick: Tick) -> timedelta:
    return tick.psi_window if name == "psi" else tick.lengths[-1]


def _ends(tick: Tick, name: str, window: timedelta) -> datetime:
    """When the first whole window since monitoring began ends, and its labels have come where it is judged by them."""
    by_labels = name in BY_LABELS
    unit = MINUTE if window < DAY else DAY if window > DAY else day_slides_by(tick) if by_labels else HOUR
    return first_end(tick, window, unit) + (tick.spec.outcome.delay if by_labels else timedelta())


# before anything is watched


def prospects(reference: Reference, spec: ModelSpec, lengths: Sequence[timedelta]) -> list[str]:
    """What the reference's own pace lets be judged: the first line of drift, the others of what can never be."""
    pace = Pace.of_reference(reference, lengths)
    begins = _begins(pace)
    told = [f"{begins} {_drift(pace)}"]
    if spec.kpis.auroc or spec.kpis.mae:
        told += _by_labels(pace, spec, begins)
    return told


def _begins(pace: Pace) -> str:
    rows = pace.rows(DAY)
    return f"at {rows:,.0f} rows a day" if rows >= 10 else f"at {rows:.1f} rows a day"


def _drift(pace: Pace) -> str:
    window = pace.drift()
    if window is not None:
        judged, of = len(pace.judged_columns(window)), len(pace.columns)
        return f"drift can be judged from windows of {format_duration(window)} on ({judged} of {of} columns)"
    return f"psi, the drift of columns, can never be judged: {_never(pace)}"


def _never(pace: Pace) -> str:
    """Why no window is one in which columns are judged for drift."""
    longest, days = pace.lengths[-1], pace.reference.span.length.days
    if pace.rows(longest) < LEAST_ROWS:
        needed = LEAST_ROWS / pace.rows_an_hour * HOUR
        return f"{LEAST_ROWS} rows take {needed / DAY:,.0f} d, and no window is longer than {format_duration(longest)}"
    return (
        f"the {days} d of the reference hold fewer than {LEAST_WINDOWS} healthy windows of any length with "
        f"{LEAST_ROWS} effective rows"
    )


def _by_labels(pace: Pace, spec: ModelSpec, begins: str) -> list[str]:
    name = "auroc" if spec.kpis.auroc else "mae"
    if pace.reference.baseline is None:
        return [f"{name} can never be judged: the held-out rows have no labels, or labels of one class"]
    if pace.labels() is None:
        asked = f"{LEAST_OF_A_CLASS} labels of each class and " if name == "auroc" else ""
        longest = format_duration(pace.lengths[-1])
        return [f"{begins} {name} can never be judged: no window of up to {longest} has {asked}{LEAST_ROWS} labels"]
    return []
