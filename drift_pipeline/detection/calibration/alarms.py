"""How often a model's own healthy history alarms, window by window against the rest of itself.

Every window is judged by the live implementation as if it had not been part of its reference.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from drift_pipeline.clock import DAY, HOUR, MINUTE, format_duration
from drift_pipeline.detection.calibration.healthy import Healthy, Split, Varied, alarm, alarm_of_p_values, drawn
from drift_pipeline.detection.calibration.visible import visible_shift
from drift_pipeline.detection.comparing.timeless import window_kpis
from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.detection.judging.verdict import FeatureFinding, Verdict
from drift_pipeline.detection.reference.null import Null
from drift_pipeline.detection.thresholds import LEAST_ROWS, false_discovery_rate

MONTH = 30 * DAY
STRETCHES = 40
_ALARMS = {"residuals": (Verdict.WARN,)}  # it never breaches
Progress = Callable[[int, int, str], None]
_BUDGET = {15 * MINUTE: 0.4, HOUR: 0.3, DAY: 0.2}
_BUDGET_OF_A_LONGER = 0.05  # two of them


def budget(length: timedelta) -> float:
    """False incidents a month that windows of this length may cause; together at most 1."""
    return _BUDGET.get(length, _BUDGET_OF_A_LONGER)


@dataclass
class Told:
    """A KPI's value in each healthy window of one length, and the windows it breached in."""

    values: list[float] = field(default_factory=list)
    breaches: int = 0

    def to_json(self) -> dict[str, Any]:
        if not self.values:
            return {"windows": 0, "breaches": 0}
        quantiles = np.quantile(self.values, [0.01, 0.5, 0.99, 0.999]).tolist()
        names = ("p1", "median", "p99", "p99.9")
        ends = {"min": min(self.values), "max": max(self.values), "sd": float(np.std(self.values))}
        return {
            "windows": len(self.values),
            "breaches": self.breaches,
            **dict(zip(names, quantiles, strict=True)),
            **ends,
        }


@dataclass
class Evidence:
    """What the healthy windows of one length showed.

    windows: how many the history holds; rows: median of those that were judged; alone, before, after: (alarms, windows
    that could alarm) of i.i.d. p-values alone, of the verdict with rows taken for independent, and with the empirical
    null; episodes: alarms that began while `months` of sliding windows were looked at, before and after; null: of all
    windows; silent: why no column is judged; mute: the columns of which no claim is made; kpis: by name.
    """

    length: timedelta
    windows: int
    rows: int
    alone: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    episodes: tuple[int, int]
    months: float
    null: Null
    phi: dict[str, float]
    silent: str
    mute: tuple[str, ...]
    shifts: dict[str, float | None]
    kpis: dict[str, Told]

    def a_month(self, episodes: int) -> tuple[float, float] | None:
        """False alarms a month and their upper 95 % bound (Poisson); None where nothing was looked at."""
        from scipy.special import gammaincinv

        if not self.months:
            return None
        return episodes / self.months, float(gammaincinv(episodes + 1, 0.95)) / self.months

    def to_json(self) -> dict[str, Any]:
        def told(counted: tuple[int, int]) -> dict[str, Any]:
            return {
                "alarms": counted[0],
                "windows": counted[1],
                "share": counted[0] / counted[1] if counted[1] else None,
            }

        def monthly(episodes: int) -> dict[str, float] | None:
            found = self.a_month(episodes)
            return None if found is None else {"estimate": found[0], "upper": found[1]}

        return {
            "window": format_duration(self.length),
            "windows": self.windows,
            "rows": self.rows,
            "p_values_alone": told(self.alone),
            "before": told(self.before),
            "after": told(self.after),
            "false_alarms_a_month": {"before": monthly(self.episodes[0]), "after": monthly(self.episodes[1])},
            "budget_a_month": budget(self.length),
            "silent": self.silent or None,
            "no_claim_of": list(self.mute),
            "phi": {name: None if np.isnan(value) else value for name, value in worst_first(self.phi)},
            "n_effective": {
                name: None if np.isnan(value) else self.rows / max(value, 1.0) for name, value in worst_first(self.phi)
            },
            "least_p": self.null.least_p,
            "shift_seen_sd": self.shifts,
            "kpis": {name: told.to_json() for name, told in self.kpis.items()},
        }


def worst_first(phi: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(phi.items(), key=lambda item: -np.nan_to_num(item[1], nan=-1.0))


def measure(healthy: Healthy, length: timedelta, step: timedelta, progress: Progress = lambda *_: None) -> Evidence:
    """Judge the healthy windows of a length, and looks at some of them while they slide by the step."""
    splits, rate = healthy.splits(length), false_discovery_rate(length)
    varied, alone, before = Varied.of(healthy.reference.layout.names, splits), [], []
    for number, split in enumerate(splits):
        compared = healthy.as_independent(split)
        varied.put(number, compared)
        findings = compared.findings()
        alone.append(alarm_of_p_values(findings, rate))
        before.append(alarm(findings))
        progress(number, 2 * len(splits), f"windows of {format_duration(length)}")
    judged, kpis = _judge(healthy, splits, varied, progress)
    null = varied.values.null()
    return Evidence(
        length,
        healthy.reference.span.length // length,
        _median(split.own.rows for split in splits),
        _counted(alone),
        _counted(before),
        _counted([alarm(findings) for findings in judged]),
        *_episodes(healthy, splits, step, varied),
        null,
        varied.phi,
        _silence(judged, max((split.own.rows for split in splits), default=0)),
        _mute(judged),
        _shifts(healthy, null, splits, rate),
        kpis,
    )


def _median(rows: Iterable[int]) -> int:
    found = list(rows)
    return int(np.median(found)) if found else 0


def _counted(alarms: Sequence[bool | None]) -> tuple[int, int]:
    told = [found for found in alarms if found is not None]
    return sum(told), len(told)


def _judge(
    healthy: Healthy, splits: Sequence[Split], varied: Varied, progress: Progress
) -> tuple[list[list[FeatureFinding]], dict[str, Told]]:
    """Findings and KPIs of each window, with the null that the other windows give."""
    judged: list[list[FeatureFinding]] = []
    kpis: dict[str, Told] = {}
    for number, split in enumerate(splits):
        nulls = varied.nulls(split.window)
        judged.append(healthy.live(split, *nulls))
        if split.own.rows >= LEAST_ROWS:
            _tell(kpis, healthy, split, judged[-1], nulls)
        progress(len(splits) + number, 2 * len(splits), f"windows of {format_duration(split.window.length)}")
    return judged, kpis


def _tell(
    kpis: dict[str, Told], healthy: Healthy, split: Split, findings: list[FeatureFinding], nulls: tuple[Null, Null]
) -> None:
    results = window_kpis(healthy.without(split, *nulls), split.own, healthy.spec, findings, split.window.length)
    lower = max((finding.psi_lower for finding in findings), default=None)
    values = {name: result.value for name, result in results.items()} | {"psi": lower, "range_z": _excess(split)}
    for name, result in results.items():
        value = values[name]
        if value is not None and result.verdict != Verdict.NOT_CONFIGURED:
            told = kpis.setdefault(name, Told())
            told.values.append(float(value))
            told.breaches += result.verdict in _ALARMS.get(name, (Verdict.BREACH,))


def _excess(split: Split) -> float | None:
    """The largest excess of rows beyond the range threshold, of any numeric column."""
    found = []
    for name in split.own.binning.numeric:
        n, m = (int(side.bins(name).sum()) for side in (split.own, split.rest))
        if n and m and name != SCORE:
            found.append(split.own.beyond(name) / n - split.rest.beyond(name) / m)
    return max(found, default=None)


def _episodes(
    healthy: Healthy, splits: Sequence[Split], step: timedelta, varied: Varied
) -> tuple[tuple[int, int], float]:
    """Alarms that began while some windows moved on by their own length, before and after, and the months looked at."""
    enough = [split.window for split in splits if split.own.rows >= LEAST_ROWS]
    begun, looked = np.zeros(2, np.int64), timedelta()
    last: tuple[datetime, tuple[bool, bool]] | None = None
    for stretch in drawn(enough, STRETCHES):
        for number, window in enumerate(healthy.moved(stretch, step)):
            if last is not None and last[0] == window.end:
                continue  # the look that the stretch before ended with
            if healthy.rows(window).height < LEAST_ROWS:
                last = None
                continue
            now = _look(healthy, healthy.split(window), varied)
            goes_on = last if number else None
            begun += [here and not there for here, there in zip(now, goes_on[1] if goes_on else (0, 0), strict=True)]
            looked += window.end - goes_on[0] if goes_on else timedelta()
            last = window.end, now
    return (int(begun[0]), int(begun[1])), looked / MONTH


def _look(healthy: Healthy, split: Split, varied: Varied) -> tuple[bool, bool]:
    """Whether a window alarms, with rows taken for independent and with the empirical null."""
    findings = healthy.as_independent(split).findings()
    if all(finding.p_value > false_discovery_rate(split.window.length) for finding in findings):
        return False, False  # a null only makes p-values larger, and above the rate none is rejected
    return bool(alarm(findings)), bool(alarm(healthy.live(split, *varied.nulls(split.window))))


def _silence(judged: list[list[FeatureFinding]], most_rows: int) -> str:
    """Why no window of the length makes a claim, or nothing."""
    if most_rows < LEAST_ROWS:
        return f"no window has {LEAST_ROWS} rows"
    found = [finding for some in judged for finding in some]
    if any(finding.drift is not None for finding in found):
        return ""
    reasons = [finding.reason for finding in found if finding.reason]
    return max(set(reasons), key=reasons.count) if reasons else "no column has values"


def _mute(judged: list[list[FeatureFinding]]) -> tuple[str, ...]:
    """The columns of which no window makes a claim."""
    found = [finding for some in judged for finding in some]
    claimed = {finding.name for finding in found if finding.drift is not None}
    return tuple(dict.fromkeys(finding.name for finding in found if finding.name not in claimed))


def _shifts(healthy: Healthy, null: Null, splits: Sequence[Split], rate: float) -> dict[str, float | None]:
    """Of each numeric column, the smallest shift in sd that a window still calls drift."""
    judged = [split for split in splits if split.own.rows >= LEAST_ROWS]
    n, m = _median(split.own.rows for split in judged), _median(split.rest.rows for split in judged)
    layout = healthy.reference.layout
    phi = dict(zip(layout.names, null.overdispersion(layout.names), strict=True))
    return {
        name: visible_shift(
            float("nan") if np.isnan(null.phi[name]) else phi[name],
            null.least_p,
            n,
            m,
            rate / len(layout.names),
        )
        for name in layout.names[: layout.numeric]
        if name != SCORE
    }
