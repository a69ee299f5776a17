"""A day of steady traffic through gateway, capture and ticks, on a virtual clock: does anything grow?

`python -m drift_pipeline_tests.benchmarks.soak [--hours 24] [--rate 200]`. Three of four events are predictions, asked
for over HTTP in requests of up to 1,000 rows; the others are labels, ten minutes later. Each hour capture is killed
between what lands and the segment that is done, labels are sent again a minute later, and an event cannot be read.
Prints what each half hour cost, its slope with the standard error, and events sent beside events counted; exit code 1
where they differ.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from drift_pipeline.clock import MINUTE
from drift_pipeline.loop.fleet import Failed
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.keys import add_producer
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import synthetic_history
from drift_pipeline_tests.faults.breaking import Side, kill
from drift_pipeline_tests.faults.world import NAME, Process, Site
from drift_pipeline_tests.serving.worlds import heard, listening

ROWS_A_REQUEST = 1000
LABELS_WAIT = 10  # minutes
PERIOD = 30  # minutes of one line of the table
_TYPES = {"numeric": "FP64", "categorical": "BYTES"}


@dataclass(frozen=True)
class Period:
    """Medians of half an hour of virtual time, and what stood at its end."""

    hour: float
    memory_mb: float
    open_files: int
    log_mb: float
    data_bytes_a_row: float
    files: int
    capture_ms_a_batch: float
    tick_ms: float


class Soak:
    def __init__(self, site: Site, client: httpx.Client, spool: SpoolWriter, rate: int) -> None:
        self.site, self.client, self.spool, self.rate = site, client, spool, rate
        self.process = Process(site, inline=True)
        self.minute = self.predictions = self.labels = self.repeats = self.kills = self.poisoned = self.failed = 0
        self._due: list[list[dict[str, Any]]] = []
        self._told: list[dict[str, Any]] = []
        self._capture: list[float] = []
        self._tick: list[float] = []

    def step(self) -> None:
        """One virtual minute."""
        self.site.clock.advance_to(self.site.clock.now() + MINUTE)
        self.minute += 1
        self._ask()
        self._tell()
        self._break()
        self.spool.rotate()
        began = time.process_time()
        if self.site.take() is None:
            self.kills += 1
            self.site.take()
        self._capture.append(time.process_time() - began)
        began = time.process_time()
        ticked = self.process.tick()
        self._tick.append(time.process_time() - began)
        if isinstance(ticked, Failed):
            self.failed += 1
            print(f"minute {self.minute}: {ticked}", file=sys.stderr)

    def _ask(self) -> None:
        n = self.rate * 60 * 3 // 4
        rows = synthetic_history(1, n, 1_000_000 + self.minute, score=False).with_columns(
            _id=pl.lit(f"{self.minute}-") + pl.int_range(pl.len()).cast(pl.String)
        )
        spec = self.site.spec
        for part in rows.iter_slices(ROWS_A_REQUEST):
            inputs = [
                {"name": name, "shape": [part.height], "datatype": _TYPES[kind], "data": part[name].to_list()}
                for name, kind in spec.watched.items()
            ]
            parameters = {"ids": part["_id"].to_list(), "entity": part["user_id"].to_list()}
            self._post("infer", {"inputs": inputs, "parameters": parameters})
        self.predictions += rows.height
        self._due.append(
            [{"id": name, "label": label} for name, label in rows[::3].select("_id", "clicked").iter_rows()]
        )

    def _tell(self) -> None:
        if len(self._due) <= LABELS_WAIT:
            return
        again = self._told if self.minute % 60 in (20, 21) else []
        self._told = self._due.pop(0)
        for some in (self._told, again):
            for at in range(0, len(some), ROWS_A_REQUEST):
                self._post("outcomes", {"outcomes": some[at : at + ROWS_A_REQUEST]})
        self.labels += len(self._told)
        self.repeats += len(again)

    def _break(self) -> None:
        if self.minute % 60 == 30:
            side: Side = "before" if self.minute % 120 == 30 else "after"
            self.site.capture_fuses.set[("capture.flush", side)] = kill
        if self.minute % 60 == 40:
            self.spool.write([b'{"event": "prediction", "model": "' + NAME.encode() + b'", "id": 7}'])
            self.poisoned += 1

    def _post(self, what: str, body: dict[str, Any]) -> None:
        answer = self.client.post(f"/v2/models/{NAME}/{what}", json=body)
        if answer.status_code not in (200, 202):
            raise RuntimeError(f"{what} is answered {answer.status_code}: {answer.text[:300]}")

    def period(self) -> Period:
        home = self.site.settings.home
        logs = data = files = 0
        for path in (home / "lake" / NAME).rglob("*"):
            if path.is_file():
                files += 1
                size = path.stat().st_size
                logs, data = (logs + size, data) if "_delta_log" in path.parts else (logs, data + size)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        capture, tick = statistics.median(self._capture), statistics.median(self._tick)
        self._capture, self._tick = [], []
        return Period(
            self.minute / 60,
            pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            len(os.listdir("/proc/self/fd")),
            logs / 1e6,
            data / (self.predictions + self.labels),
            files + sum(path.is_file() for path in (home / "spool").rglob("*")),
            1e3 * capture,
            1e3 * tick,
        )

    def counted(self) -> list[tuple[str, int, int]]:
        """What, how much was sent, how much is counted; after the last labels have come."""
        for _ in range(LABELS_WAIT + 1):
            self.step()
        lake, window = self.site.lake(), self.site.landed()
        served = lake.read("predictions", window)["_id"]
        known = lake.read("outcomes", window)["_id"]
        known = known.filter(known.str.contains("-"))  # those of the history have other ids
        monitor = self.process.loop.monitor
        return [
            ("predictions in the lake", self.predictions, len(served)),
            ("different predictions in the lake", self.predictions, served.n_unique()),
            ("predictions in the monitor", self.predictions, monitor.rows_counted()),
            ("labels in the lake", self.labels, len(known)),
            ("different labels in the lake", self.labels, known.n_unique()),
            ("labels in the monitor", self.labels, monitor.labelled_since(monitor.baseline_at)),
            ("dead letters", self.poisoned, self.site.lake_of_dead_letters()),
        ]


def slopes(periods: Sequence[Period]) -> list[str]:
    """By least squares over the second half, when everything has been started: change an hour, and its error."""
    told = []
    later = periods[len(periods) // 2 :]
    hours = np.array([period.hour for period in later])
    for name in [field.name for field in fields(Period)][1:]:
        values = np.array([float(getattr(period, name)) for period in later])
        x = hours - hours.mean()
        slope = float((x * (values - values.mean())).sum() / (x**2).sum())
        residuals = values - values.mean() - slope * x
        error = float(np.sqrt((residuals**2).sum() / max(len(later) - 2, 1) / (x**2).sum()))
        share = 100 * slope / values.mean() if values.mean() else 0.0
        first, last = (float(getattr(periods[at], name)) for at in (0, -1))
        told.append(f"| {name} | {first:.1f} | {last:.1f} | {slope:+.3f} ± {2 * error:.3f} | {share:+.2f} % |")
    return told


def run(hours: float, rate: int) -> bool:
    """Whether all that was sent was counted once."""
    began, periods = time.perf_counter(), list[Period]()
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), hours=1, rows_per_hour=rate * 30)
        key = add_producer(site.store, "soak", [NAME], 10**6, "benchmark")
        spool = SpoolWriter(site.settings.home / "spool" / "gateway")
        app = make_app(site.settings, {NAME: site.spec}, spool, site.clock, rotate_seconds=3600)
        try:
            with (
                listening(app) as url,
                httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=60, trust_env=False) as client,
            ):
                heard(client)
                soak = Soak(site, client, spool, rate)
                print(
                    "| "
                    + " | ".join(field.name for field in fields(Period))
                    + " |\n"
                    + "|---" * len(fields(Period))
                    + "|"
                )
                while soak.minute < 60 * hours:
                    soak.step()
                    if soak.minute % PERIOD == 0:
                        periods.append(soak.period())
                        print("| " + " | ".join(f"{value:.1f}" for value in astuple(periods[-1])) + " |", flush=True)
                counts = soak.counted()
        finally:
            site.close()
    print("\n| | first | last | an hour, ± 2 standard errors, second half | of the mean |\n|---|---|---|---|---|")
    print("\n".join(slopes(periods)))
    print("\n| | sent | counted |\n|---|---|---|")
    print("\n".join(f"| {what} | {sent:,} | {found:,} |" for what, sent, found in counts))
    print(
        f"\n{soak.kills} kills of capture, {soak.repeats:,} labels sent again, {soak.failed} ticks failed; "
        f"{hours:g} h of virtual time in {time.perf_counter() - began:.0f} s"
    )
    return all(sent == found for _, sent, found in counts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24, help="of virtual time")
    parser.add_argument("--rate", type=int, default=200, help="events a second")
    given = parser.parse_args(arguments)
    if not run(given.hours, given.rate):
        sys.exit(1)


if __name__ == "__main__":
    main()
