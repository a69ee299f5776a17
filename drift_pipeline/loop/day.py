"""One day in retrospect: what its partition shows. Nothing here opens an incident or changes state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import DAY, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.counting.shape import Shape
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report
from drift_pipeline.detection.report import (
    DRAWN_ROWS,
    DriftFiles,
    numbers_of,
    run_file,
    without_limits,
    write_drift_report,
    write_point,
)
from drift_pipeline.detection.statistics.auroc import Auroc
from drift_pipeline.detection.statistics.mae import Mae
from drift_pipeline.evidence.day_pages import page_file, remove_page, rendered_days, share_page
from drift_pipeline.loop.context import Backends
from drift_pipeline.loop.forms import frozen
from drift_pipeline.loop.monitoring.baselines import MonitoringBaseline, in_force_before, read_baseline
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.quality import Quality, check_snapshot


@dataclass(frozen=True)
class Snapshot:
    """A day's predictions as the lake had them at the Delta `versions`, and how good they are."""

    frame: pl.DataFrame
    versions: Mapping[str, int]
    labelled: int
    quality: Quality


@dataclass(frozen=True)
class DayOfDrift:
    """The report of the day's last moment against the reference that was in force, and its rendering.

    numbers: as of `numbers_of`; rows: of the day; shapes: of what drifts, the largest distance first.
    """

    report: Report
    baseline: MonitoringBaseline
    files: DriftFiles
    numbers: Mapping[str, float]
    rows: int
    shapes: Sequence[tuple[FeatureFinding, Shape]]


def day_of(partition: str) -> Window:
    """The UTC day of a partition key such as 2026-03-01."""
    start = datetime.combine(date.fromisoformat(partition), time(), UTC)
    return Window(start, start + DAY)


def snapshot(at: Backends, spec: ModelSpec, day: Window, now: datetime) -> Snapshot:
    """Pin the Delta versions, and check the day's rows."""
    spec = frozen(at.store, spec)
    versions = at.lake.versions()
    frame = at.lake.read("predictions", day, versions["predictions"])
    labelled = at.lake.labelled(day, as_of=now, delay=spec.outcome.delay, versions=versions).height
    return Snapshot(frame, versions, labelled, check_snapshot(frame, spec, day))


def drift_of(
    settings: Settings, at: Backends, spec: ModelSpec, day: Window, versions: Mapping[str, int] | None = None
) -> DayOfDrift:
    """Judge every KPI as the loop did when the day ended, and render what a person wants to see.

    Args:
        versions: Delta versions of `predictions` and `outcomes` to read; None = as they are now.

    Raises:
        InputError: no model was watched on that day.
        IntegrityError: the reference cannot be made again as it was.
    """
    spec = frozen(at.store, spec)
    bodies = [record.body for record in at.store.find("reference", f"{spec.name}/")]
    body = in_force_before(day.end, bodies, spec)
    baseline = read_baseline(body, lake=at.lake, registry=at.registry, spec=spec, step=DAY)
    monitor = ChampionMonitor(baseline, lake=at.lake, spec=spec, step=DAY)
    report = monitor.look_back(day.end, versions or {})
    reference = _scored(at.lake.read("predictions", baseline.span, baseline.versions["predictions"]), baseline, spec)
    current = at.lake.read("predictions", day, versions["predictions"] if versions else None)
    html = page_file(settings, spec.name, f"{day.start:%Y-%m-%d}")
    files = write_drift_report(report, DAY, reference, current, spec, html, settings.evidently)
    share_page(settings, spec.name, html.stem)
    held_out = baseline.reference.baseline
    numbers = numbers_of(report.kpis, len(report.drifting), spec, held_out.value if held_out else None)
    write_point(settings.evidently, spec, day.end, numbers, str(report.verdict), baseline.champion.name)
    return DayOfDrift(report, baseline, files, numbers, current.height, monitor.shapes(report))


def write_hour(
    workspace: Path, spec: ModelSpec, seen: Mapping[str, Any], held_out: Auroc | Mae | None, at: datetime
) -> dict[str, float]:
    """What a tick has `seen`, as its memory keeps it, as a point on the dashboard of the model's Evidently project.

    Returns the numbers without their limits. A few milliseconds: Evidently is not imported.
    """
    drifting = seen.get("drifting_columns", len(seen["drifting"]))  # a tick before this version kept names only
    numbers = numbers_of(seen["kpis"], drifting, spec, held_out.value if held_out else None)
    write_point(workspace, spec, at, numbers, seen["verdict"], seen["champion"])
    return without_limits(numbers)


def _scored(rows: pl.DataFrame, baseline: MonitoringBaseline, spec: ModelSpec) -> pl.DataFrame:
    """The reference's rows (n,) with the scores that its champion gives to those it has not seen, as many as are
    drawn: what was served then is another version's."""
    if baseline.champion.recorded:
        return rows
    unseen = np.flatnonzero((rows["_time"] >= baseline.champion.unseen_from).to_numpy())
    asked, scores = unseen[:: len(unseen) // DRAWN_ROWS + 1], np.full(rows.height, np.nan)
    scores[asked] = baseline.champion.scores(rows[asked], spec).to_numpy()
    return rows.with_columns(pl.Series("_score", scores))


def rendered_of(settings: Settings, store: ControlStore, spec: ModelSpec, times: Sequence[datetime]) -> list[str]:
    """The days whose reports show rows of these times: as the day's, or as the reference's."""
    bodies, found = [record.body for record in store.find("reference", f"{spec.name}/")], list[str]()
    for name in rendered_days(settings, spec.name):
        day = day_of(name)
        body = in_force_before(day.end, bodies, spec)
        spans = [day, Window(datetime.fromisoformat(body["from"]), datetime.fromisoformat(body["to"]))]
        if any(span.start <= at < span.end for span in spans for at in times):
            found.append(name)
    return found


def unrender(settings: Settings, spec: ModelSpec, day: str) -> None:
    """Delete a day's report, from Evidently's workspace as well. Raises UnavailableError: a bucket does not answer."""
    remove_page(settings, spec.name, day)
    run_file(spec.name, DAY, day_of(day).end, settings.evidently).unlink(missing_ok=True)
