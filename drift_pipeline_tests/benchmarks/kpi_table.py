"""What the KPI history costs a tick: `python -m drift_pipeline_tests.benchmarks.kpi_table [--models 100] [--hours 3]`.

A fleet of adopted models ticks each virtual minute, twenty rows of each having landed since; every other minute without
the history. Prints the CPU seconds of a tick of all with and without it, and the ratio; the append of each whole hour
to the lake falls into a tick with it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.clock import MINUTE, ManualClock, Window
from drift_pipeline.loop import observing
from drift_pipeline.loop.fleet import Fleet
from drift_pipeline.loop.home import model_of, opened
from drift_pipeline.loop.monitoring.kpi_history import KpiHistory, read_kpis, told
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.benchmarks.daemon import make_world

ROWS = 20


def run(models: int, hours: float) -> None:
    settle = KpiHistory.settle
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder), models, 1)
        clock = ManualClock(world.started)
        specs = {name: model_of(world.settings, name) for name in world.names}
        rows = pl.DataFrame(world.rows).drop("_label").with_columns(_version=pl.lit("v1"), _route=pl.lit("stable"))
        spent: dict[bool, list[float]] = {False: [], True: []}
        with opened(world.settings, clock) as home:
            fleet = Fleet(home, specs)
            for minute in range(round(60 * hours)):
                clock.advance_to(clock.now() + MINUTE)
                for name in specs:
                    land(Lake(world.settings.lake / name, source="benchmark"), rows, minute, clock)
                kept = minute % 2 == 0
                observing.told = told if kept else _nothing  # type: ignore[attr-defined,assignment]
                KpiHistory.settle = settle if kept else _nothing  # type: ignore[assignment,method-assign]
                began = time.process_time()
                fleet.tick(inline=False)
                spent[kept].append(time.process_time() - began)
            name = world.names[0]
            lake, window = Lake(world.settings.lake / name), Window(world.started, clock.now() + MINUTE)
            found = read_kpis(home.store, lake, name, window)
    KpiHistory.settle, observing.told = settle, told  # type: ignore[attr-defined,method-assign]
    assert found["at"].n_unique() == len(spent[True])
    later = {kept: seconds[len(seconds) // 10 :] for kept, seconds in spent.items()}
    means = {kept: statistics.mean(seconds) for kept, seconds in later.items()}
    print(f"{models} models, {len(later[True])} ticks each way, CPU seconds of a tick of all\n")
    print("| | mean | median |\n|---|---|---|")
    for kept, seconds in later.items():
        print(f"| {'with' if kept else 'without'} | {means[kept]:.3f} | {statistics.median(seconds):.3f} |")
    print(f"\nratio of the means {means[True] / means[False]:.3f}")


def _nothing(*_: Any) -> None:
    return None


def land(lake: Lake, rows: pl.DataFrame, minute: int, clock: ManualClock) -> None:
    some = rows.sample(ROWS, seed=minute).with_columns(
        _id=pl.lit(f"{minute}-") + pl.int_range(ROWS).cast(pl.String), _time=pl.lit(clock.now() - timedelta(seconds=30))
    )
    lake.append("predictions", some, minute)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--hours", type=float, default=3, help="of virtual time")
    given = parser.parse_args(arguments)
    run(given.models, given.hours)


if __name__ == "__main__":
    main()
