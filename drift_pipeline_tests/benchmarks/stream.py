"""False incidents of healthy models, a model and month, through the monitor and the incident machine: prints tables.

`python -m drift_pipeline_tests.benchmarks.stream [--full] [--seed N]`. Two passes over each scenario, whose rates add
up: the minute pass ticks every 60 s and has all windows; the hour pass looks only at windows from a day on, which
say nothing new in between, and so can last six months. Each of its reports stands for 60 ticks: it is stepped
three times. Rows are landed by the hour or day, ahead of the ticks that read them: no window reaches past the tick.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, HOUR, MINUTE, format_duration
from drift_pipeline.detection.judging.monitor import Monitor, window_lengths
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report, Verdict
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.detection.thresholds import LEAST_DISTANCE
from drift_pipeline.policy.incident import Change, Incident, step
from drift_pipeline_tests.benchmarks.traffic import Traffic, day_number, moment, spec_of

FEATURES = 20
REFERENCE_DAYS = 56
WARM_DAYS = 28  # landed before the first tick, so that every window is full
MONTH = 30 * DAY
SILENCE = HOUR  # a source that is heard again later begins a new episode
LEVELS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)

# Scenarios


def scenarios(seed: int) -> dict[str, Traffic]:
    seasonal = Traffic(2000, seed, amplitude=0.3, day_sd=0.1)
    return {
        "i.i.d., 2,000 rows/h": Traffic(2000, seed),
        "i.i.d., 800 rows/h": Traffic(800, seed),
        "daily cycle .3 sd, day effects .1 sd": seasonal,
        "the same, day effects AR(1) .7": replace(seasonal, memory=0.7),
    }


# Counting


@dataclass
class Source:
    """One KPI in one window: in how many ticks it alarmed, and how many episodes (2 of 3 ticks, an hour apart)."""

    ticks: int = 0
    episodes: int = 0
    recent: list[datetime] = field(default_factory=list)
    last: datetime | None = None

    def hear(self, at: datetime) -> None:
        self.ticks += 1
        self.recent = [earlier for earlier in self.recent if at - earlier <= 2 * MINUTE] + [at]
        if len(self.recent) >= 2:
            self.episodes += self.last is None or at - self.last > SILENCE
            self.last = at


@dataclass
class Tally:
    """What one pass over one scenario found; `adjusted` by window: each tick's smallest BH-adjusted p of a column
    whose difference matters."""

    virtual: timedelta = timedelta()
    opened: int = 0
    reopened: int = 0
    incident: Incident = field(default_factory=lambda: Incident("sha256:benchmark"))
    sources: dict[str, Source] = field(default_factory=dict)
    columns: Counter[str] = field(default_factory=Counter)
    undecided: Counter[str] = field(default_factory=Counter)
    adjusted: dict[timedelta, list[float]] = field(default_factory=dict)

    def take(self, report: Report) -> None:
        self.incident, change = step(self.incident, report)
        self.opened += change is Change.OPENED
        self.reopened += change is Change.REOPENED
        for name in alarms(report):
            self.sources.setdefault(name, Source()).hear(report.at)
        self.columns.update(f"{format_duration(f.window)} {f.name}" for f in report.features if f.drift)
        self.undecided.update(k for k, kpi in report.kpis.items() if kpi.verdict is Verdict.INCONCLUSIVE)

    def record(self, report: Report) -> None:
        for window in {f.window for f in report.features}:
            found = [f for f in report.features if f.window == window and f.drift is not None]
            self.adjusted.setdefault(window, []).append(smallest_adjusted(found))

    @property
    def months(self) -> float:
        return self.virtual / MONTH


def alarms(report: Report) -> set[str]:
    """`drift 15m`, `auroc BREACH 1h`, ...: DRIFT by window, and each other KPI that breaches or warns."""
    drifting = {f"drift {format_duration(f.window)}" for f in report.features if f.drift}
    return drifting | {
        f"{name} {kpi.verdict} {format_duration(kpi.window) if kpi.window else ''}"
        for name, kpi in report.kpis.items()
        if kpi.verdict is Verdict.BREACH or (kpi.verdict is Verdict.WARN and name != "psi")
    }


def smallest_adjusted(findings: list[FeatureFinding]) -> float:
    """The smallest rate at which Benjamini-Hochberg would reject a column that lies beyond LEAST_DISTANCE; else 1."""
    ranked = sorted(findings, key=lambda f: f.p_value)
    adjusted, smallest = 1.0, 1.0
    for rank in range(len(ranked), 0, -1):
        adjusted = min(adjusted, ranked[rank - 1].p_value * len(ranked) / rank)
        if ranked[rank - 1].distance_lower > LEAST_DISTANCE:
            smallest = adjusted
    return smallest


def episodes_at(adjusted: list[float], level: float) -> int:
    """Episodes of 2 in 3 consecutive ticks, apart by an hour."""
    hits = np.asarray(adjusted) <= level
    padded = np.concatenate([[0, 0], hits.astype(int)])
    two_of_three = hits & (padded[2:] + padded[1:-1] + padded[:-2] >= 2)
    at = np.flatnonzero(two_of_three)
    return int(len(at) > 0) + int(np.count_nonzero(np.diff(at) > SILENCE // MINUTE))


# Running


def reference_of(traffic: Traffic) -> Reference:
    frame = traffic.days(0, REFERENCE_DAYS)
    spec = spec_of(traffic.features)
    return freeze(frame, frame, spec, window_lengths(spec, MINUTE))


def warm(traffic: Traffic, reference: Reference, tick: timedelta) -> Monitor:
    """A monitor that begins at the reference's end whose longest window is full."""
    monitor = Monitor(reference, spec_of(traffic.features), reference.span.end, tick)
    first = day_number(reference.span.end)
    for day in range(first, first + WARM_DAYS):
        land(monitor, traffic.days(day, 1), moment(24 * (day + 1)))
    return monitor


def land(monitor: Monitor, frame: pl.DataFrame, until: datetime) -> None:
    monitor.slices.add(frame, until)
    monitor.slices.add_labels(frame, until)
    monitor.slices.consolidate(until - HOUR)
    monitor.slices.forget(until - (WARM_DAYS + 7) * DAY)


def by_minute(monitor: Monitor, traffic: Traffic, days: float) -> Iterator[Report]:
    """A report a minute, from when every window is full."""
    first = 24 * (REFERENCE_DAYS + WARM_DAYS)
    for hour in range(first, first + int(24 * days)):
        land(monitor, traffic.hour(hour), moment(hour + 1))
        for number in range(1, 61):
            yield monitor.evaluate(moment(hour) + number * MINUTE)


def by_hour(monitor: Monitor, traffic: Traffic, days: float) -> Iterator[Report]:
    """A report an hour, from when every window is full."""
    first = REFERENCE_DAYS + WARM_DAYS
    for day in range(first, first + int(days)):
        land(monitor, traffic.days(day, 1), moment(24 * (day + 1)))
        for number in range(1, 25):
            yield monitor.evaluate(moment(24 * day + number))


def minute_pass(traffic: Traffic, reference: Reference, days: float, label: str) -> Tally:
    tally = Tally()
    for report in by_minute(warm(traffic, reference, MINUTE), traffic, days):
        tally.take(report)
        tally.record(report)
        tally.virtual += MINUTE
        progress(label, tally)
    return tally


def hour_pass(traffic: Traffic, reference: Reference, days: float, label: str) -> Tally:
    tally = Tally()
    for report in by_hour(warm(traffic, reference, DAY), traffic, days):
        for minutes in range(3):
            tally.take(replace(report, at=report.at + minutes * MINUTE))
        tally.record(report)
        tally.virtual += HOUR
        progress(label, tally)
    return tally


def progress(label: str, tally: Tally) -> None:
    if tally.virtual % DAY == timedelta():
        heard = {name: (s.ticks, s.episodes) for name, s in tally.sources.items()}
        print(f"{time.strftime('%H:%M:%S')} {label}: {tally.virtual.days} d, {tally.opened} {heard}", file=sys.stderr)


# Tables


def show(label: str, tally: Tally) -> None:
    print(f"\n{label}: {tally.virtual.total_seconds() / 86400:g} days")
    print(f"incidents {tally.opened}, {tally.opened / tally.months:.2f} a month; re-opened {tally.reopened}")
    if tally.sources:
        print("\n| alarm | ticks | episodes | a month |\n|---|---|---|---|")
    for name, source in sorted(tally.sources.items()):
        print(f"| {name} | {source.ticks} | {source.episodes} | {source.episodes / tally.months:.2f} |")
    if tally.columns:
        print("\nmost ticks in DRIFT: " + ", ".join(f"{name} {n}" for name, n in tally.columns.most_common(6)))
    if tally.undecided:
        print("ticks INCONCLUSIVE: " + ", ".join(f"{name} {n}" for name, n in tally.undecided.most_common()))


def show_levels(label: str, tally: Tally) -> None:
    print(f"\n{label}: episodes a month were the false discovery rate q (before PSI, moments and healthy windows vote)")
    print("| window | " + " | ".join(f"{level:.0e}" for level in LEVELS) + " |\n|---|" + "---|" * len(LEVELS))
    for window, adjusted in sorted(tally.adjusted.items()):
        counts = [episodes_at(adjusted, level) / tally.months for level in LEVELS]
        print(f"| {format_duration(window)} | " + " | ".join(f"{count:.1f}" for count in counts) + " |")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="30 days by the minute and 180 by the hour, not 2 and 14")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from --seed on")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--minute-days", type=float, help="virtual days of the minute pass")
    parser.add_argument("--hour-days", type=float, help="virtual days of the hour pass")
    given = parser.parse_args(arguments)
    minute_days = (30.0 if given.full else 2.0) if given.minute_days is None else given.minute_days
    hour_days = (180.0 if given.full else 14.0) if given.hour_days is None else given.hour_days
    for seed in range(given.seed, given.seed + given.seeds):
        for name, traffic in scenarios(seed).items():
            if given.only in name:
                run(f"{name}, seed {seed}", traffic, minute_days, hour_days)


def run(label: str, traffic: Traffic, minute_days: float, hour_days: float) -> None:
    reference = reference_of(traffic)
    print(f"\n## {label}\nphi: " + ", ".join(overdispersion(reference)), flush=True)
    if minute_days:
        tally = minute_pass(traffic, reference, minute_days, f"{label}, by the minute")
        show("all windows, a tick a minute", tally)
        show_levels("all windows, a tick a minute", tally)
        sys.stdout.flush()
    if hour_days:
        tally = hour_pass(traffic, reference, hour_days, f"{label}, by the hour")
        show("windows from a day on", tally)
        sys.stdout.flush()


def overdispersion(reference: Reference) -> Iterator[str]:
    for length, null in reference.nulls.items():
        found = np.array([phi for phi in null.phi.values() if not np.isnan(phi)])
        if len(found):
            yield f"{format_duration(length)} {found.min():.1f}-{found.max():.1f} (least p {null.least_p:.0e})"


if __name__ == "__main__":
    main()
