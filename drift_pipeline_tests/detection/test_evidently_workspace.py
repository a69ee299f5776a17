"""The Evidently workspace: what is written without Evidently is what Evidently reads, and its panels have lines."""

import asyncio
import json
import sys
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.detection.report import numbers_of, write_point
from drift_pipeline.detection.report.evidently_workspace import KEPT, make_project, project_of
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import DELIVERY_SPEC, START
from drift_pipeline_tests.browser.chromium import needs_chromium, page
from drift_pipeline_tests.components.worlds import SPEC
from drift_pipeline_tests.detection.evidently_ui import evidently_ui

AT = START + 90 * DAY
DELIVERY = ModelSpec.model_validate(yaml.safe_load(DELIVERY_SPEC))
EMPTY = "This dashboard is currently empty"


def kpi(name: str, value: float | None, threshold: float, bound: float | None, **more: Any) -> KpiResult:
    return KpiResult(name, more.pop("verdict", Verdict.OK), value, threshold, bound, DAY, 400, "said why")


KPIS = {
    "psi": kpi("psi", 0.1234567, 0.2, 0.05),
    "range_z": kpi("range_z", 0.0, 4.0, None),
    "auroc": kpi("auroc", -0.02, -0.05, -0.01),
    "latency_p95_ms": kpi("latency_p95_ms", 0.031, 0.05, 0.02),
    "demographic_parity": kpi("demographic_parity", -0.01, -0.03, -0.002),
}
NUMBERS = numbers_of(KPIS, 2, SPEC, 0.8)


def points(workspace: Path, spec: ModelSpec) -> Mapping[str, Mapping[str, list[float | None]]]:
    """By the panels of the dashboard: the lines that Evidently's own storage finds for it, by their legends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.ui.service.base import SeriesFilter
        from evidently.ui.service.storage.local.base import InMemoryDataStorage
        from evidently.ui.workspace import Workspace

        opened, stored = Workspace.create(str(workspace)), InMemoryDataStorage(str(workspace))
        (project,) = opened.list_projects()
        assert (project.id, project.name) == (project_of(spec.name), spec.name)
        dashboard, found = project.dashboard.model(), {}
        assert [panel.id for panel in dashboard.panels] == dashboard.tabs[0].panels
        for panel in dashboard.panels:
            wanted = [
                SeriesFilter(tags=[], metadata={}, metric=one.metric, metric_labels=one.metric_labels)
                for one in panel.values
            ]
            series = asyncio.run(stored.get_data_series(project.id, wanted, None, None)).series
            found[panel.title] = {panel.values[one.filter_index].legend: one.values for one in series}
    return found


def written(workspace: Path, at: datetime = AT, **numbers: float) -> Path:
    return write_point(workspace, SPEC, at, {**NUMBERS, **numbers}, "OK", "v1")


def test_every_panel_of_a_classification_finds_our_numbers_to_the_last_digit(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, AT + HOUR)
    assert points(tmp_path, SPEC) == {
        "PSI of the column that decides": {"value": [0.1234567] * 2, "bound": [0.05] * 2, "limit": [0.2] * 2},
        "AUROC": {"value": [0.78] * 2, "bound": [0.79] * 2, "limit": [0.75] * 2},
        "Latency: share of answers slower than 2000 ms": {
            "value": [0.031] * 2,
            "bound": [0.02] * 2,
            "limit": [0.05] * 2,
        },
        "Parity: how the gap between groups changed": {
            "value": [-0.01] * 2,
            "bound": [-0.002] * 2,
            "limit": [-0.03] * 2,
        },
        "Rows far outside the reference's range": {"value": [0.0] * 2},
        "Share of drifting columns": {"share": [2 / (len(SPEC.watched) + 1)] * 2},
        "Rows": {name: [400.0] * 2 for name in KPIS},
    }


def test_a_regression_has_panels_of_its_own(tmp_path: Path) -> None:
    kpis = {"mae": kpi("mae", 0.05, 0.1, 0.01), "residuals": kpi("residuals", 0.02, 0.05, None)}
    write_point(tmp_path, DELIVERY, AT, numbers_of(kpis, 0, DELIVERY, 2.0), "OK", "v1")
    found = points(tmp_path, DELIVERY)
    assert found["MAE"] == {"value": [2.1], "bound": [2.02], "limit": [pytest.approx(2.2)]}
    assert found["Residuals: how far they moved"]["value"] == [0.02]
    assert "AUROC" not in found


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_left_out_and_what_is_not_configured_too(value: float | None) -> None:
    off = kpi("auroc", None, -0.05, None, verdict=Verdict.NOT_CONFIGURED)
    found = numbers_of({"psi": kpi("psi", value, 0.2, value), "auroc": off}, 0, SPEC, 0.8)
    assert found == {"psi_limit": 0.2, "psi_rows": 400.0, "drifting_share": 0.0}


def test_without_a_held_out_baseline_no_level_is_made_up() -> None:
    assert numbers_of({"auroc": KPIS["auroc"]}, 0, SPEC, None) == {"auroc_rows": 400.0, "drifting_share": 0.0}


def test_an_hour_has_one_point_and_a_running_ui_would_see_it_change(tmp_path: Path) -> None:
    first = written(tmp_path, psi=0.1)
    again = written(tmp_path, AT + timedelta(minutes=59), psi=0.3)
    assert first == again
    assert points(tmp_path, SPEC)["PSI of the column that decides"]["value"] == [0.3]
    assert not list(tmp_path.rglob("*.partial"))


def test_hours_go_after_a_week_midnights_stay_and_so_does_what_is_no_point(tmp_path: Path) -> None:
    folder = written(tmp_path).parent
    (folder / "somebody_elses.json").write_text("{}")
    (folder / f"{project_of('another')}.json").write_text("{}")
    for hour in range(1, 49):
        written(tmp_path, AT + hour * HOUR, psi=0.1)
    assert len(list(folder.iterdir())) == 49 + 2
    written(tmp_path, AT + 48 * HOUR + KEPT, psi=0.1)
    assert AT.hour == 0
    times = sorted(json.loads(one.read_text()).get("timestamp", "") for one in folder.iterdir())
    assert times == ["", "", *((AT + after).isoformat() for after in (0 * DAY, DAY, 2 * DAY, 2 * DAY + KEPT))]


def test_a_dashboard_that_somebody_changed_stays_and_one_that_is_missing_is_made(tmp_path: Path) -> None:
    written(tmp_path)
    dashboard = tmp_path / str(project_of(SPEC.name)) / "dashboard.json"
    made = dashboard.read_text()
    dashboard.write_text("mine")
    make_project(tmp_path, SPEC)
    assert dashboard.read_text() == "mine"
    dashboard.unlink()  # as in a home made before there were panels
    make_project(tmp_path, SPEC)
    assert dashboard.read_text() == made


def test_a_point_costs_no_import_of_evidently(tmp_path: Path) -> None:
    import subprocess

    script = (
        "import sys, datetime, pathlib\n"
        "from drift_pipeline.detection.report import write_point\n"
        "from drift_pipeline.spec import ModelSpec\n"
        "from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC\n"
        "import yaml\n"
        "spec = ModelSpec.model_validate(yaml.safe_load(SAMPLE_SPEC))\n"
        "at = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)\n"
        f"write_point(pathlib.Path({str(tmp_path)!r}), spec, at, dict(psi=0.1), 'OK', 'v1')\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('evidently', 'plotly', 'sklearn')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


class TestInTheUi:
    pytestmark = needs_chromium

    def test_the_panels_are_drawn_and_follow_a_point_that_comes_meanwhile(self, tmp_path: Path) -> None:
        for hour in range(30):
            written(tmp_path, AT + hour * HOUR, psi=0.05 + hour / 100)
        titles = list(points(tmp_path, SPEC))
        with evidently_ui(tmp_path) as served, page() as (shown, heard):
            (project,) = served.answer("projects")
            shown.goto(f"{served.url}/projects/{project['id']}")
            shown.locator("svg path.MuiLineElement-root").first.wait_for(state="attached", timeout=60_000)
            shown.get_by_text("AUROC", exact=True).wait_for()
            shown.wait_for_timeout(3000)
            for title in titles:
                assert shown.get_by_text(title, exact=True).count() == 1
            assert shown.locator("svg path.MuiLineElement-root").count() >= 15
            assert EMPTY not in shown.inner_text("body")
            assert heard.errors == []
            written(tmp_path, AT + 30 * HOUR, psi=7.0)
            shown.wait_for_timeout(1000)
            assert len(served.answer(f"projects/{project['id']}/snapshots")) == 31
