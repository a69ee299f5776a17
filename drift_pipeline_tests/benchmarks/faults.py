"""Seeded drifts and seeded faults through spool, capture and loop, on a virtual clock: prints tables.

`python -m drift_pipeline_tests.benchmarks.faults --detections 20` or `--hours 24 --seed S`. The first: minutes from a
drift to its incident, and seconds from the arrival of the deciding event to the page, virtual waiting and measured
work together. The second: two processes tick through hours of faults; after each the invariants are checked, and one
that does not hold ends it with exit code 1.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from drift_pipeline.clock import DAY, HOUR, MINUTE
from drift_pipeline.telemetry.synthetic import Drift
from drift_pipeline_tests.faults.detecting import Detection, detect
from drift_pipeline_tests.faults.run import Tale, run

STEP = 2 * MINUTE  # of which each process has one tick, a minute apart
TOLD = 110  # letters of what happened


def quantile(values: Sequence[float | None], share: float) -> str:
    """Of all runs, those that never ended being the slowest."""
    ordered = sorted(math.inf if value is None else value for value in values)
    value = ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
    return "never" if math.isinf(value) else f"{value:.1f}"


def detections(number: int, first: int) -> None:
    print(
        "| seed | drift | began | incident after, min | deciding event waited, s | worked, s | to the page, s | early |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    found: list[Detection] = []
    for seed in range(first, first + number):
        with tempfile.TemporaryDirectory() as folder:
            one = detect(Path(folder), seed)
        found.append(one)
        waited = f"{one.waited.total_seconds():.1f}" if one.waited else "-"
        shown = [f"{value:.2f}" if value is not None else "-" for value in (one.minutes, one.worked_s, one.chain_s)]
        cells = [str(seed), one.kind, f"{one.began:%H:%M:%S}", shown[0], waited, shown[1], shown[2], str(one.early)]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()
    print("| drift | runs | incident after, min: p50 | p95 | to the page, s: p50 | p95 | never | early |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in (*sorted({one.kind for one in found}), "all"):
        of = [one for one in found if kind in (one.kind, "all")]
        minutes, chains = [one.minutes for one in of], [one.chain_s for one in of if one.opened]
        told = [quantile(minutes, 0.5), quantile(minutes, 0.95), quantile(chains, 0.5), quantile(chains, 0.95)]
        never, early = sum(one.opened is None for one in of), sum(one.early for one in of)
        print(f"| {kind} | {len(of)} | {' | '.join(told)} | {never} | {early} |")


def faults(hours: float, seed: int, repeats: int) -> bool:
    """Whether every invariant held. The concept changes after half an hour, and the sessions after half of the time."""
    drifts = [Drift("concept", 0.5 * HOUR / DAY), Drift("covariate", hours / 2 * HOUR / DAY)]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tale = run(Path(folder), hours=hours, seed=seed, repeats=repeats, drifts=drifts, step=STEP, tell=_progress)
    show(tale)
    print(f"\n{hours:g} h of virtual time, seed {seed}: {time.perf_counter() - began:.0f} s of wall time")
    return not tale.wrong


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def show(tale: Tale) -> None:
    print("| fault | times | what happened, the last time | invariants |")
    print("|---|---|---|---|")
    for fault, times in sorted(tale.times.items()):
        odd = sorted({found for _, after, found in tale.wrong if fault in after.split(", ")})
        print(f"| {fault} | {times} | {tale.told[fault][-1][:TOLD]} | {'; '.join(odd) or 'hold'} |")
    print(f"\n{tale.rows:,} predictions; {tale.deaths} deaths of a ticking process; {tale.checks} checks of I1 to I7.")
    print("Audit: " + ", ".join(f"{event} {times}" for event, times in sorted(tale.events.items())))
    print("Ticks that failed: " + ("; ".join(f"{why} {times}" for why, times in tale.failed.items()) or "none"))
    for at, after, found in tale.wrong:
        print(f"BROKEN {at:%d %H:%M} after {after}: {found}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detections", type=int, default=0, help="runs of one drift each")
    parser.add_argument("--hours", type=float, default=0, help="virtual hours of faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="how often each kind of fault comes")
    given = parser.parse_args(arguments)
    if given.detections:
        detections(given.detections, given.seed)
    if given.hours and not faults(given.hours, given.seed, given.repeats):
        sys.exit(1)


if __name__ == "__main__":
    main()
