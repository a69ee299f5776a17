"""The Evidently workspace: a project a model with its dashboard, and a point of our numbers for each hour.

Written as Evidently 0.7.23 writes these files, without importing it: that takes 10 s of CPU, and a point is one small
file. The tests read all of it back with Evidently itself.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from drift_pipeline.clock import DAY, format_duration
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.report.numbers import DRIFTING_SHARE, plotted
from drift_pipeline.files import write_whole
from drift_pipeline.spec import ModelSpec

KEPT = 7 * DAY  # points of hours: more of them a browser draws too slowly; those of midnights stay, as the reports do
_METRIC = "evidently:metric_v2:DriftPipelineNumber"  # no class of Evidently's: nobody computes it again
_PROJECTS = uuid5(NAMESPACE_URL, "drift_pipeline/evidently")
_LINES = {"value": "", "bound": "_bound", "limit": "_limit"}  # of a panel, by their legends
_MARK = 2**80 - 1  # the part of a point's id that its model fixes; the rest is its hour, by which it is found


def project_of(model: str) -> UUID:
    """The id of a model's project in an Evidently workspace."""
    return uuid5(_PROJECTS, model)


def run_file(model: str, window: timedelta, at: datetime, workspace: Path) -> Path:
    """Where the workspace keeps the drift report of what was found at a time in a window."""
    return _runs(workspace, model) / f"{uuid5(project_of(model), f'{format_duration(window)} {at.isoformat()}')}.json"


def make_project(workspace: Path, spec: ModelSpec) -> None:
    """The model's project, and a dashboard where it has none; what somebody made of theirs stays as it is."""
    project = project_of(spec.name)
    about, dashboard = (workspace / str(project) / name for name in ("metadata.json", "dashboard.json"))
    if not about.exists():
        told = {"id": str(project), "name": spec.name, "description": "What drift_pipeline found", "org_id": None}
        write_whole(about, json.dumps({**told, "version": "2"}))
    if not dashboard.exists():
        panels = _panels(spec)
        tab = {"id": str(uuid5(project, "tab")), "title": "Drift", "panels": [panel["id"] for panel in panels]}
        write_whole(dashboard, json.dumps({"tabs": [tab], "panels": panels}))


def write_point(
    workspace: Path, spec: ModelSpec, at: datetime, numbers: Mapping[str, float], verdict: str, champion: str
) -> Path:
    """One point of each panel's lines; another one of the same hour takes its place. Points past KEPT are deleted.

    It names no row and no value of a column: an erasure leaves it as it is, as it does what profiles count.

    Args:
        numbers: as of `numbers_of`.
        verdict: the rolled-up one, a plain word.
    """
    make_project(workspace, spec)
    id_, title = _point_id(spec.name, at), f"{spec.name}: numbers of {at:%Y-%m-%d %H:%M} UTC"
    results = [_result(id_, name, number) for name, number in numbers.items()]
    rows = [[name, f"{number:.4g}"] for name, number in numbers.items()]
    table = {"header": ["number", "value"], "data": rows}
    run = {
        "report": {"items": []},
        "name": title,
        "timestamp": at.isoformat(),
        "metadata": {"model": spec.name, "verdict": verdict, "champion": champion},
        "tags": ["numbers", verdict],
        "metric_results": {one["metric_value_location"]["metric"]["metric_id"]: one for one in results},
        "top_level_metrics": [],
        "widgets": [{"type": "table", "title": title, "size": 2, "id": str(id_), "params": table}],
        "tests_widgets": [],
    }
    path = write_run(_runs(workspace, spec.name) / f"{id_}.json", json.dumps(run))
    _forget(spec.name, path.parent, at - KEPT)
    return path


def write_run(path: Path, run: str) -> Path:
    """Write a run whole. An `evidently ui` that is open follows changed files and not renamed ones: it is touched."""
    write_whole(path, run)
    os.utime(path)
    return path


def _runs(workspace: Path, model: str) -> Path:
    return workspace / str(project_of(model)) / "snapshots"


def _point_id(model: str, at: datetime) -> UUID:
    hour = int(at.timestamp()) // 3600
    return UUID(int=(hour << 80) | (project_of(model).int & _MARK))


def _forget(model: str, folder: Path, before: datetime) -> None:
    """Delete this model's points of before, but for those of midnight; their names tell what they are."""
    oldest, mark = int(before.timestamp()) // 3600, project_of(model).int & _MARK
    for name in os.listdir(folder):
        with suppress(ValueError, FileNotFoundError):
            id_ = UUID(name.removesuffix(".json")).int
            if id_ & _MARK == mark and id_ >> 80 < oldest and (id_ >> 80) % 24:
                (folder / name).unlink()


def _result(point: UUID, name: str, number: float) -> dict[str, Any]:
    location = {"metric": {"metric_id": uuid5(point, name).hex, "params": {"type": _METRIC, "number": name}}}
    return {
        "type": "evidently:metric_result_v2:SingleValue",
        "display_name": name,
        "metric_value_location": {**location, "param": {}},
        "tests": [],
        "value": number,
    }


def _panels(spec: ModelSpec) -> list[dict[str, Any]]:
    """One for each KPI that is asked for, the share of drifting columns, and the rows behind all of them."""
    performance, kpis = performance_of(spec), spec.kpis
    slow = f"{kpis.latency_p95_ms.threshold:g} ms" if kpis.latency_p95_ms else ""
    told = {
        "psi": ("PSI of the column that decides", "On the reference's frozen bins; the bound is the lower one."),
        performance.kpi: (performance.name, "Of the newest days whose labels are known, with its bound and its limit."),
        "latency_p95_ms": (
            f"Latency: share of answers slower than {slow}",
            "With more than 5 % the 95th percentile is above it.",
        ),
        "demographic_parity": (
            "Parity: how the gap between groups changed",
            "Of their rates of positive decisions, against the reference; below 0 it grew.",
        ),
        "range_z": ("Rows far outside the reference's range", "Share of rows, beyond the reference's own."),
        "residuals": ("Residuals: how far they moved", "Labels minus predictions against held-out rows."),
    }
    shown = [name for name in told if getattr(kpis, name) is not None]
    lines = {name: {line: f"{plotted(name)}{suffix}" for line, suffix in _LINES.items()} for name in shown}
    share = "Of the watched columns and the score."
    rows = {name: f"{plotted(name)}_rows" for name in shown}
    return [
        *(_panel(spec, *told[name], lines[name]) for name in shown),
        _panel(spec, "Share of drifting columns", share, {"share": DRIFTING_SHARE}),
        _panel(spec, "Rows", "That each KPI was judged on, in its own window.", rows),
    ]


def _panel(spec: ModelSpec, title: str, subtitle: str, lines: Mapping[str, str]) -> dict[str, Any]:
    """`lines`: the numbers that are drawn, by their legends."""
    values = [
        {"legend": line, "tags": [], "metadata": {}, "metric": _METRIC, "metric_labels": {"number": name}}
        for line, name in lines.items()
    ]
    return {
        "id": str(uuid5(project_of(spec.name), title)),
        "title": title,
        "subtitle": subtitle,
        "size": "half",
        "values": [{**value, "view_params": {}} for value in values],
        "plot_params": {"plot_type": "line"},
    }
