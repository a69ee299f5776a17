"""What being scraped costs a tick: `python -m drift_pipeline_tests.benchmarks.metrics_ticks [--models 20]`.

A fleet of adopted models ticks each virtual minute, twenty rows of each having landed since, beside a process
`drift exporter`. At the beginning of every other tick, in a seeded order, the exporter is scraped once, so that it
reads while the fleet writes. Prints the wall seconds of a tick of all, both ways out of one run, the ratio of the
means, and what comes of it where Prometheus scrapes each 15 s, so that most ticks meet no scrape.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from drift_pipeline.clock import MINUTE, ManualClock
from drift_pipeline.loop.fleet import Fleet
from drift_pipeline.loop.home import model_of, opened
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.benchmarks.alerts import exporting
from drift_pipeline_tests.benchmarks.daemon import make_world
from drift_pipeline_tests.benchmarks.kpi_table import land

SCRAPED_EVERY_S = 15  # deploy/prometheus/prometheus.yaml


def scraped(url: str) -> tuple[int, float]:
    """Series, and seconds."""
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: bytes = answer.read()
    return sum(not line.startswith(b"#") for line in text.splitlines()), time.perf_counter() - began


def run(models: int, ticks: int) -> None:
    spent: dict[bool, list[float]] = {False: [], True: []}
    scrapes, order = list[tuple[int, float]](), [True, False] * (ticks // 2)
    random.Random(0).shuffle(order)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as scraper:
        world = make_world(Path(folder), models, 1)
        clock = ManualClock(world.started)
        specs = {name: model_of(world.settings, name) for name in world.names}
        os.environ["DRIFT_MODELS"] = str(world.settings.models)
        rows = pl.DataFrame(world.rows).drop("_label").with_columns(_version=pl.lit("v1"), _route=pl.lit("stable"))
        with opened(world.settings, clock) as home, exporting(world.settings.home) as address:
            fleet, url = Fleet(home, specs), f"http://{address}/metrics"
            for minute, on in enumerate(order):
                clock.advance_to(clock.now() + MINUTE)
                for name in specs:
                    land(Lake(world.settings.lake / name, source="benchmark"), rows, minute, clock)
                began = time.perf_counter()
                reading = scraper.submit(scraped, url) if on else None
                fleet.tick(inline=False)
                spent[on].append(time.perf_counter() - began)
                if reading is not None:
                    scrapes.append(reading.result())
    later = {on: seconds[max(1, len(seconds) // 10) :] for on, seconds in spent.items()}
    means = {on: statistics.mean(seconds) for on, seconds in later.items()}
    took = sorted(seconds for _, seconds in scrapes)
    print(f"{models} models, {len(later[True])} ticks each way; a scrape of {scrapes[-1][0]:,} series took ", end="")
    print(
        f"{statistics.median(took):.3f} s (median) beside a tick\n\n| a tick of all, s | mean | median |\n|---|---|---|"
    )
    for on, seconds in later.items():
        print(f"| {'scraped' if on else 'not'} | {means[on]:.3f} | {statistics.median(seconds):.3f} |")
    ratio, meets = means[True] / means[False], min(1.0, (means[False] + statistics.median(took)) / SCRAPED_EVERY_S)
    print(f"\nratio of the means {ratio:.3f}; with a scrape each {SCRAPED_EVERY_S} s", end=" ")
    print(f"{meets:.0%} of such ticks meet one: {1 + meets * (ratio - 1):.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--ticks", type=int, default=60)
    given = parser.parse_args(arguments)
    run(given.models, given.ticks)


if __name__ == "__main__":
    main()
