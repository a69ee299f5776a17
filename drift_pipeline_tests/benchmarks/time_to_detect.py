"""How long from a change until its incident opens, by size and traffic: prints tables.

`python -m drift_pipeline_tests.benchmarks.time_to_detect [--full] [--seed N]`. The change happens at any moment of a
minute; a row lands an exponential 30 s after its time, at the next flush of its micro-batch; ticks come every 60 s.
The monitor has watched healthy rows of the same traffic before. Counted from the change to the tick.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import numpy as np
import polars as pl

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.detection.judging.monitor import Monitor, window_lengths
from drift_pipeline.detection.judging.verdict import Report
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.policy.incident import Incident, step
from drift_pipeline_tests.benchmarks.traffic import Change, Traffic, moment, spec_of

REFERENCE_DAYS = 28
DELAY = timedelta(seconds=30)
FLUSH = timedelta(seconds=10)
WARM_UP = 5 * MINUTE  # of ticks before the change
WATCHED = {800: 24, 2000: 24, 20_000: 3}  # hours before the change; at 20,000 no window of a day is waited for
PATIENCE = 26 * HOUR  # a day's window, and a tick
COINS = 0.6  # of the labels: an AUROC of .83 falls by 20 pp


@dataclass(frozen=True)
class Case:
    """`shifts`: latent sd, one a shifted feature; `coins`: share of labels that became a coin."""

    title: str
    rows_per_hour: int
    shifts: tuple[float, ...]
    coins: float = 0.0

    def change(self, rng: np.random.Generator, at: datetime, traffic: Traffic) -> Change:
        """Of random features, of any shape."""
        chosen = rng.choice(list(traffic.shapes), len(self.shifts), replace=False).tolist()
        return Change(at, dict(zip(chosen, self.shifts, strict=True)), self.coins)


SIZES = {"0.25 sd": (0.25,), "0.25 sd in 3": (0.25,) * 3, "0.5 sd": (0.5,), "1 sd": (1.0,), "2 sd": (2.0,)}
CASES = [Case(size, rate, shifts) for rate in (800, 2000, 20_000) for size, shifts in SIZES.items()] + [
    Case("labels: AUROC -20 pp", 2000, (), COINS)
]


@dataclass(frozen=True)
class Found:
    """Time from the change until an incident was open, and until DRIFT in 2 of 3 ticks; None = not in a day."""

    incident: timedelta | None
    drift: timedelta | None
    early: bool = False


# One run


@cache
def reference_of(rows_per_hour: int, seed: int) -> Reference:
    """Of rows at 2,000 an hour at most: more only make it larger."""
    frame = Traffic(min(rows_per_hour, 2000), seed).days(0, REFERENCE_DAYS)
    spec = spec_of(20)
    return freeze(frame, frame, spec, window_lengths(spec, MINUTE))


def run(case: Case, seed: int, number: int) -> Found:
    """One change of one kind, its moment, rows, features and delays drawn from the seeds."""
    rng = np.random.default_rng([seed, number, case.rows_per_hour])
    traffic = Traffic(case.rows_per_hour, seed)
    first = 24 * REFERENCE_DAYS + 24 * 7 * number + int(rng.integers(0, 24 * 7))
    at = moment(first + WATCHED[case.rows_per_hour] + float(rng.random()))
    change = case.change(rng, at, traffic)
    monitor = Monitor(reference_of(case.rows_per_hour, seed), spec_of(20), moment(first), MINUTE)
    phase = timedelta(seconds=float(rng.uniform(0, 60)))
    return watch(monitor, batches(traffic, rng, first, change, phase), at)


def batches(
    traffic: Traffic, rng: np.random.Generator, first: int, change: Change, phase: timedelta
) -> Iterator[tuple[datetime, pl.DataFrame]]:
    """Ticks, and what landed since the one before; at the first tick all that landed so far."""
    tick = change.at - WARM_UP + phase
    hour, waiting = first, _landing(traffic.hour(first, change).clear(), rng)
    while tick < change.at + PATIENCE:
        while moment(hour) <= tick:
            waiting = pl.concat([waiting, _landing(traffic.hour(hour, change), rng)])
            hour += 1
        here = pl.col("_landed") <= tick
        landed, waiting = waiting.filter(here), waiting.filter(~here)
        yield tick, landed.drop("_landed")
        tick += MINUTE


def _landing(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """With `_landed`, when a row can be read: a delay after its time, at the next flush."""
    delays = pl.Series(rng.exponential(DELAY / timedelta(microseconds=1), frame.height).astype(np.int64))
    return frame.with_columns(_landed=(pl.col("_time") + delays.cast(pl.Duration("us"))).dt.truncate("10s") + FLUSH)


def watch(monitor: Monitor, landed: Iterator[tuple[datetime, pl.DataFrame]], change: datetime) -> Found:
    """`early`: an incident was open before the change."""
    incident, drifts, drift_at = Incident("sha256:benchmark"), [False, False], None
    for tick, frame in landed:
        monitor.slices.add(frame, tick)
        monitor.slices.add_labels(frame, tick)
        monitor.slices.consolidate(tick)
        report = monitor.evaluate(tick)
        incident, _ = step(incident, report)
        drifts = [*drifts[-2:], noticed(report)]
        if drift_at is None and sum(drifts) >= 2:
            drift_at = tick - change
        if incident.open:
            opened = tick - change
            return Found(opened, drift_at, early=tick < change)
    return Found(None, drift_at)


def noticed(report: Report) -> bool:
    """DRIFT of a column, or a KPI that breaches."""
    return any(f.drift for f in report.features) or report.verdict == "BREACH"


# Tables


def minutes(times: Sequence[timedelta | None], share: float) -> str:
    """Quantile over all runs, of which those that never ended are the slowest."""
    values = sorted(math.inf if t is None else t / MINUTE for t in times)
    value = values[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
    if math.isinf(value):
        return "> 26 h"
    return f"{value:.0f} min" if value < 120 else f"{value / 60:.1f} h"


def row(case: Case, found: Sequence[Found]) -> str:
    incidents, drifts = [f.incident for f in found], [f.drift for f in found]
    told = [minutes(times, share) for times in (incidents, drifts) for share in (0.5, 0.95)]
    never = sum(time is None for time in incidents)
    early = sum(f.early for f in found)
    cells = [case.title, f"{case.rows_per_hour:,}", *told, f"{never} of {len(found)}", str(early)]
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="40 runs a row, not 3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, help="runs a row")
    parser.add_argument("--only", default="", help="rows whose change has this in it")
    parser.add_argument("--rows-per-hour", type=int, nargs="+", default=[800, 2000, 20_000])
    given = parser.parse_args(arguments)
    runs = given.runs or (40 if given.full else 3)
    print("| change | rows/h | incident: median | p95 | 2 of 3 ticks: median | p95 | none in 26 h | before it |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case in CASES:
        if given.only in case.title and case.rows_per_hour in given.rows_per_hour:
            print(row(case, list(_runs(case, given.seed, runs))), flush=True)


def _runs(case: Case, seed: int, number: int) -> Iterator[Found]:
    for k in range(number):
        found = run(case, seed, k)
        print(f"{time.strftime('%H:%M:%S')} {case.title}, {case.rows_per_hour}: {found}", file=sys.stderr)
        yield found


if __name__ == "__main__":
    main()
