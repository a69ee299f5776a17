"""The drift report shows the monitor's numbers, whatever the rows are."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Report, Verdict, told_reason
from drift_pipeline.detection.report import DRAWN_ROWS, DriftFiles, write_drift_report
from drift_pipeline.detection.report.evidently_blocks import HELLINGER, KS, PSI
from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.synthetic import START
from drift_pipeline_tests.detection.evidently_ui import evidently_ui
from drift_pipeline_tests.detection.worlds import SPEC, World, finding, rows, spec_of

XK = spec_of("x", categorical=("kind",))
AT = START + 90 * DAY


@dataclass(frozen=True)
class Rendered:
    """What stands in the page and in the workspace."""

    files: DriftFiles
    workspace: Path

    @property
    def page(self) -> str:
        return self.files.html.read_text(encoding="utf-8")

    @property
    def widgets(self) -> list[dict[str, Any]]:
        """The page's own data: the widgets of the metrics tab."""
        script = self.page.partition("<script>\n")[2].partition("\n</script>")[0]
        document, _ = json.JSONDecoder().raw_decode(script[script.index("{") :])
        return list(document["widgets"][0]["widgets"])

    def table(self, title: str) -> dict[str, dict[str, str]]:
        params = next(w for w in self.widgets if w["title"] == title and w["type"] == "table")["params"]
        return {row[0]: dict(zip(params["header"], row, strict=True)) for row in params["data"]}

    @property
    def blocks(self) -> dict[str, list[tuple[str, str]]]:
        """Large numbers of each drawn column: (value, label)."""
        counters = [w for w in self.widgets if w["type"] == "counter" and w["title"]]
        return {w["title"]: [(c["value"], c["label"]) for c in w["params"]["counters"]] for w in counters}

    @property
    def drawn(self) -> dict[str, list[dict[str, Any]]]:
        """The visible bars of each drawn column."""
        plots = [w["tabs"][0]["widget"]["params"] for w in self.widgets if w["type"] == "tabs"]
        bars = [[trace for trace in plot["data"] if trace["visible"]] for plot in plots]
        return dict(zip(self.blocks, bars, strict=True))

    @property
    def run(self) -> dict[str, Any]:
        """As Evidently itself reads it back."""
        from evidently.core.report import Snapshot
        from evidently.ui.workspace import Workspace

        opened = Workspace.create(str(self.workspace))
        (project,) = opened.list_projects()
        stored = opened.get_run(project.id, self.files.run_id)
        assert stored is not None
        told: dict[str, Any] = Snapshot.load_model(stored).dict()
        return {**told, "at": stored.timestamp, "metadata": stored.metadata, "project": project.name}

    @property
    def tests(self) -> dict[str, str]:
        return {t["metric_config"]["params"]["column"]: t["status"].value for t in self.run["tests"]}


def render(
    folder: Path,
    report: Report,
    reference: pl.DataFrame,
    current: pl.DataFrame,
    spec: Any = XK,
    window: timedelta = DAY,
) -> Rendered:
    workspace = folder / "workspace"
    files = write_drift_report(report, window, reference, current, spec, folder / "pages" / "day.html", workspace)
    return Rendered(files, workspace)


def found(name: str, drift: bool | None = False, **more: Any) -> FeatureFinding:
    ks = None if name == "kind" else 0.0312
    base = FeatureFinding(
        name, DAY, 400, 400.0, 0.01234, 0.001, 0.0213, ks, ks, 3e-7, 0.0312, 0.01, 0, drift, "up", "said why"
    )
    return replace(base, **more)


def report_of(*findings: FeatureFinding) -> Report:
    psi = KpiResult("psi", Verdict.WARN, 0.24321, 0.2, 0.19, DAY, 400, "x: up")
    return Report(AT, {"psi": psi}, findings, provisional=True)


def few(n: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(n)
    return pl.DataFrame({"x": rng.standard_normal(n), "kind": rng.choice(["a", "b"], n)})


@pytest.fixture(scope="module")
def tick() -> tuple[Report, pl.DataFrame, pl.DataFrame]:
    """A day on which `x` moved up, `kind` came empty and `group` has a level that would end a script."""
    reference = rows(np.random.default_rng(0), 90, 500)
    day = rows(np.random.default_rng(1), 1, 500, 90).with_columns(
        pl.col("x") + 1,
        kind=pl.lit(None, dtype=pl.String),
        group=pl.when(pl.col("w") > 1).then(pl.lit("</script><b>")).otherwise("group"),
    )
    return World.on(reference).land(day).at(DAY), reference, day


@pytest.fixture(scope="module")
def rendered(tick: tuple[Report, pl.DataFrame, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(tmp_path_factory.mktemp("report"), *tick, spec=SPEC)


def test_the_page_shows_each_findings_numbers_and_reason(rendered: Rendered, tick: tuple[Report, Any, Any]) -> None:
    table = rendered.table("Columns")
    assert set(table) == {"x", "w", "kind", "group", "_score"}
    for f in tick[0].features:
        if f.n:
            assert table[f.name]["PSI"] == f"{f.psi:.3f}"
            assert table[f.name]["Hellinger"] == f"{f.hellinger:.3f}"
            assert table[f.name]["KS low"] == ("–" if f.ks_low is None else f"{f.ks_low:.3f}")
            assert table[f.name]["distance"] == f"{f.distance:.3f}"
            assert float(table[f.name]["p"].replace("−", "-")) == float(f"{f.p_value:.1e}")
            assert rendered.blocks[f.name][0] == (f"{f.psi:.3f}", "PSI")
        assert table[f.name]["direction"] in (f.direction, "–")
        assert table[f.name]["reason"].startswith(f.reason)
    assert table["x"]["verdict"] == "DRIFT"
    assert list(table)[:2] == ["kind", "x"]  # what drifts comes first, the farthest before the others


def test_the_page_shows_every_kpi(rendered: Rendered, tick: tuple[Report, Any, Any]) -> None:
    table = rendered.table("KPIs")
    assert list(table) == list(tick[0].kpis)
    for name, kpi in tick[0].kpis.items():
        for column, value in (("value", kpi.value), ("threshold", kpi.threshold), ("bound", kpi.bound)):
            assert table[name][column] == ("–" if value is None else f"{value:.4g}")
        said = told_reason(kpi.reason, kpi.judged_at)
        assert (table[name]["verdict"], table[name]["reason"]) == (kpi.verdict, said)


def test_the_workspace_holds_the_findings_to_the_last_digit(rendered: Rendered, tick: tuple[Report, Any, Any]) -> None:
    run = rendered.run
    stored = {(m["config"]["column"], m["config"]["method"]): m["value"] for m in run["metrics"]}
    drawn = [f for f in tick[0].features if f.n]
    assert stored == (
        {(f.name, PSI): f.psi for f in drawn}
        | {(f.name, HELLINGER): f.hellinger for f in drawn}
        | {(f.name, KS): f.ks_low for f in drawn if f.ks_low is not None}
    )
    assert rendered.tests == {f.name: "FAIL" if f.drift else "SUCCESS" for f in drawn}
    assert run["at"] == tick[0].at
    assert run["project"] == SPEC.name
    assert run["metadata"]["auroc"] == tick[0].kpis["auroc"].verdict


def test_a_column_without_a_value_is_told_and_not_drawn(rendered: Rendered, tick: tuple[Report, Any, Any]) -> None:
    row = rendered.table("Columns")["kind"]
    found = finding(tick[0], "kind")
    assert (found.drift, row["verdict"], row["direction"]) == (True, "DRIFT", "more missing")
    assert (row["PSI"], row["distance"], row["rows"]) == ("–", "1.000", "0")
    assert row["reason"] == f"{found.reason}; not drawn: no value in the current rows"
    assert "kind" not in rendered.blocks


def test_the_page_may_load_nothing_but_itself(rendered: Rendered) -> None:
    head = rendered.page.partition("<style>")[0]
    assert "Content-Security-Policy\" content=\"default-src 'none';" in head
    assert "http" not in head.replace("http-equiv", "")
    assert "connect-src" not in head  # so default-src holds
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_a_level_cannot_end_the_pages_script(rendered: Rendered) -> None:
    assert "</script><b>" not in rendered.page
    assert "</script><b>" in rendered.drawn["group"][0]["x"]


def test_plots_compare_shares_of_both_sides(rendered: Rendered) -> None:
    assert [bars["name"] for bars in rendered.drawn["x"]] == ["current", "reference"]
    for bars in rendered.drawn["x"]:
        assert sum(bars["y"]) == pytest.approx(100, abs=0.1)


def test_the_flag_is_the_findings_whatever_its_psi_and_without_a_claim_there_is_none(tmp_path: Path) -> None:
    spec = spec_of("x", "w", "v", "u")
    frame = pl.DataFrame({name: np.arange(30.0) for name in "xwvu"})
    report = report_of(
        found("x", drift=True, psi=0.01), found("w", drift=False, psi=0.9), found("v", drift=None, psi=0.9)
    )
    made = render(tmp_path, report, frame, frame, spec)
    assert made.tests == {"x": "FAIL", "w": "SUCCESS"}
    verdicts = {name: row["verdict"] for name, row in made.table("Columns").items()}
    assert verdicts == {"x": "DRIFT", "w": "no drift", "v": "no claim", "u": "no finding", "_score": "no finding"}


def test_rendering_a_tick_again_replaces_it_and_another_tick_joins_the_same_project(tmp_path: Path) -> None:
    from evidently.ui.workspace import Workspace

    report = report_of(found("x", psi=0.1))
    first = render(tmp_path, report, few(), few())
    again = render(tmp_path, replace(report, features=(found("x", psi=0.2),)), few(), few())
    assert again.files == first.files
    assert {m["value"] for m in again.run["metrics"] if m["config"]["method"] == PSI} == {0.2}
    later = render(tmp_path, replace(report, at=AT + DAY), few(), few())
    opened = Workspace.create(str(tmp_path / "workspace"))
    (project,) = opened.list_projects()
    assert {str(run) for run in opened.list_runs(project.id)} == {first.files.run_id, later.files.run_id}
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["day.html"]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_report_that_cannot_be_stored_leaves_the_old_page(tmp_path: Path) -> None:
    made = render(tmp_path, report_of(), few(), few())
    before = made.page
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_drift_report(report_of(), DAY, few(), few(), XK, made.files.html, tmp_path / "file")
    assert made.page == before


Change = Callable[[pl.DataFrame], pl.DataFrame]
GONE = "not drawn: the current rows do not have the column"
VOID = "not drawn: no value in the current rows"


@pytest.mark.parametrize(
    ("change", "undrawn"),
    [
        (lambda f: f.with_columns(x=pl.lit(1.0), kind=pl.lit("a")), {}),
        (lambda f: f.with_columns(x=pl.when(pl.col("x") > 0).then(float("nan")).otherwise(float("inf"))), {"x": VOID}),
        (lambda f: f.with_columns(x=pl.when(pl.col("x") > 1).then(float("inf")).otherwise("x")), {}),
        (lambda f: f.with_columns(x=pl.when(pl.col("x") > 0).then(1.7e308).otherwise(-1.7e308)), {}),
        (lambda f: f.with_columns(x=pl.lit("text"), kind=pl.lit(None)), {"x": VOID, "kind": VOID}),
        (lambda f: f.with_columns(kind=pl.int_range(pl.len())), {}),
        (lambda f: f.drop("x"), {"x": GONE}),
        (lambda f: f.head(1), {}),
        (lambda f: f.head(0), {"x": VOID, "kind": VOID}),
        (lambda _: pl.DataFrame(), {"x": GONE, "kind": GONE}),
    ],
    ids=["constant", "not finite", "some inf", "huge", "text", "many levels", "one side", "one row", "no rows", "none"],
)
def test_whatever_the_rows_are_each_column_is_drawn_or_its_reason_told(
    tmp_path: Path, change: Change, undrawn: dict[str, str]
) -> None:
    made = render(tmp_path, report_of(found("x"), found("kind")), few(), change(few()))
    table = made.table("Columns")
    assert {name for name in ("x", "kind") if "not drawn" in table[name]["reason"]} == set(undrawn)
    assert set(made.blocks) == set(made.tests) == {"x", "kind"} - set(undrawn)
    for name, row in table.items():
        assert row["PSI"] == ("–" if name == "_score" else "0.012")
        assert row["reason"].endswith(undrawn.get(name, ""))


def test_a_window_without_findings_says_so_and_names_those_that_have_some(tmp_path: Path) -> None:
    made = render(tmp_path, report_of(found("x"), found("kind", window=7 * DAY)), few(), few(), window=HOUR)
    assert "no finding of the last 1h; this tick has findings of 1d, 7d" in made.page
    assert {row["reason"] for row in made.table("Columns").values()} == {"no finding in this window"}
    assert made.table("KPIs")["psi"]["value"] == "0.2432"
    assert made.run["metrics"] == []


def test_large_days_are_drawn_from_the_same_sample_each_time(tmp_path: Path) -> None:
    many = pl.DataFrame({"x": np.random.default_rng(0).standard_normal(DRAWN_ROWS + 5000), "kind": "a"})
    first = render(tmp_path, report_of(found("x")), few(), many)
    (plot,) = (w for w in first.widgets if w["type"] == "tabs")
    counts = [trace for trace in plot["tabs"][0]["widget"]["params"]["data"] if not trace["visible"]]
    assert {trace["name"]: sum(trace["y"]) for trace in counts} == {"current": DRAWN_ROWS, "reference": 60}
    assert render(tmp_path, report_of(found("x")), few(), many).drawn == first.drawn
    assert "25,000" in first.page


@pytest.mark.live
def test_evidentlys_own_ui_shows_the_run(rendered: Rendered) -> None:
    with evidently_ui(rendered.workspace) as served:
        (project,) = served.answer("projects")
        assert project["name"] == SPEC.name
        (run,) = served.answer(f"projects/{project['id']}/snapshots")
        assert run["id"] == rendered.files.run_id
