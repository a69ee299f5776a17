"""The monitoring half: what a day's partition shows is what the loop said when that day ended."""

import base64
import functools
import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import polars as pl
import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.components.checks import verdict_of_day
from drift_pipeline.components.monitoring import monitoring_assets
from drift_pipeline.components.pictures import MOST_DRAWN
from drift_pipeline.components.training import training_assets
from drift_pipeline.control.trust import NO_STORE
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.loop.day import day_of
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.components.worlds import (
    DAYS,
    MODEL,
    REFERENCE,
    SPEC,
    at_home,
    checks,
    copied,
    day,
    events,
    first_breach,
    made,
    materialised,
    metadata,
    promoted_on,
    records,
    refusal,
    tick_after,
)

HEALTHY, TWO_AFTER_PROMOTION = day(REFERENCE + 8), 58
KPIS = {"psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: a report writes nothing that another reads."""
    return copied(tmp_path_factory.mktemp("monitoring") / "home")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@functools.cache
def reported(home: Path, partition: str) -> dg.ExecuteInProcessResult:
    """The day's report alone, made once; only of a home that nothing changes."""
    return materialised(home, "drift_report", partition=partition)


def both(home: Path, partition: str) -> dg.ExecuteInProcessResult:
    return materialised(home, "telemetry_snapshot", "drift_report", partition=partition)


def test_every_check_of_a_healthy_day_passes(home: Path) -> None:
    result = both(home, HEALTHY)
    assert result.success
    assert set(checks(result)) == {"fit_to_judge", *KPIS}
    assert all(check.passed for check in checks(result).values())
    assert metadata(result, "drift_report")["verdict"] == "OK (5 of 5 judged)"
    assert metadata(result, "drift_report")["not_judged"] == "nothing"
    assert metadata(result, "telemetry_snapshot")["rows"] == 200


def test_after_a_change_the_auroc_check_fails_as_a_warning_and_the_run_succeeds(home: Path) -> None:
    result = both(home, first_breach())
    auroc = checks(result)["auroc"]
    assert result.success
    assert (auroc.passed, auroc.severity, auroc.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert auroc.description is not None
    assert auroc.description.startswith("BREACH: AUROC 0.")
    assert metadata(result, "drift_report")["verdict"] == "BREACH (5 of 5 judged)"


@pytest.mark.parametrize("which", ["healthy", "first breach", "first of the new champion", "two days after it"])
def test_a_report_judges_every_kpi_as_the_loop_did_when_the_day_ended(home: Path, which: str) -> None:
    partition = {
        "healthy": HEALTHY,
        "first breach": first_breach(),
        "first of the new champion": promoted_on(),
        "two days after it": day(TWO_AFTER_PROMOTION),
    }[which]
    result, recorded = reported(home, partition), tick_after(partition)
    assert set(checks(result)) == set(recorded) == KPIS
    for name, check in checks(result).items():
        told = {key: value.value for key, value in check.metadata.items()}
        said = recorded[name]
        assert {key: told.get(key) for key in ("verdict", "value", "threshold", "bound", "n")} == {
            key: said[key] for key in ("verdict", "value", "threshold", "bound", "n")
        }
        assert check.description is not None
        assert check.description.startswith(f"{said['verdict']}: {said['reason']}")
        assert ("can be judged from" in check.description) <= (said["verdict"] == "INCONCLUSIVE")


def test_a_report_is_held_to_the_champion_and_the_reference_of_its_day(home: Path) -> None:
    before = metadata(reported(home, HEALTHY), "drift_report")
    after = metadata(reported(home, promoted_on()), "drift_report")
    assert (before["champion"], before["reference"]) == ("v1", f"{day(0)} to {day(REFERENCE)}")
    assert (after["champion"], after["reference"]) == ("v2", f"{day(0)} to {promoted_on()}")


def test_missing_evidence_is_no_pass(home: Path) -> None:
    partition = promoted_on()
    assert tick_after(partition)["auroc"]["verdict"] == "INCONCLUSIVE"
    assert not checks(reported(home, partition))["auroc"].passed


def test_a_report_is_written_as_a_page_and_kept_in_the_evidently_workspace(home: Path) -> None:
    found = metadata(reported(home, HEALTHY), "drift_report")
    page = home / "drift_reports" / MODEL / f"{HEALTHY}.html"
    assert found["page"] == str(page)
    assert "session_length_s" in page.read_text(encoding="utf-8")
    assert list((home / "evidently").rglob(f"{found['evidently_run']}.json"))
    assert [row.data["name"] for row in found["kpis"].records] == list(tick_after(HEALTHY))


def test_a_reports_numbers_are_floats_that_dagster_plots_and_those_of_the_loop(home: Path) -> None:
    (made,) = reported(home, first_breach()).asset_materializations_for_node(f"{MODEL}__drift_report")
    said = tick_after(first_breach())
    plotted = {name: one for name, one in made.metadata.items() if isinstance(one, dg.FloatMetadataValue)}
    floats = {name: one.value for name, one in plotted.items() if one.value is not None}
    for name in ("psi", "demographic_parity"):
        assert (floats[name], floats.get(f"{name}_bound")) == (said[name]["value"], said[name]["bound"])
        assert floats[f"{name}_rows"] == said[name]["n"]
    assert floats["latency_slow_share"] == said["latency_p95_ms"]["value"]
    assert f"AUROC {floats['auroc']:.3f} against " in said["auroc"]["reason"]
    assert floats["auroc"] < floats["auroc_bound"] < 1
    assert 0 <= floats["drifting_share"] <= 1
    assert made.metadata["rows"].value == 200
    assert not [name for name in floats if name.endswith("_limit")]


def test_a_reports_picture_is_markdown_with_images_of_bounded_size(home: Path) -> None:
    shown = str(metadata(reported(home, first_breach()), "drift_report")["columns_that_differ_most"])
    images = re.findall(r"!\[[^\]]*\]\(data:image/svg\+xml;base64,([^)]+)\)", shown)
    assert 1 <= len(images) <= MOST_DRAWN
    for image in images:
        drawing = base64.b64decode(image).decode()
        assert "<rect" in drawing
        ElementTree.fromstring(drawing)  # our own
    assert len(shown) < 60_000


def test_a_report_leads_to_pages_by_address_where_they_are_served(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = metadata(reported(home, HEALTHY), "drift_report")["card"]
    assert path == str(home / "evidence" / MODEL / "v1" / "card.html")
    monkeypatch.setenv("DRIFT_PAGES_URL", "http://127.0.0.1:8081/")
    (made,) = materialised(home, "drift_report", partition=HEALTHY).asset_materializations_for_node(
        f"{MODEL}__drift_report"
    )
    assert made.metadata["live_page"] == dg.MetadataValue.url(f"http://127.0.0.1:8081/{MODEL}")
    assert made.metadata["card"] == dg.MetadataValue.url(f"http://127.0.0.1:8081/{MODEL}/v1/card.html")


def test_a_report_is_a_point_of_the_evidently_dashboard_at_the_days_end(home: Path) -> None:
    reported(home, HEALTHY)
    kept = [
        json.loads(one.read_text()) for one in (home / "evidently").rglob("*.json") if one.parent.name == "snapshots"
    ]
    ended = f"{date.fromisoformat(HEALTHY) + DAY:%Y-%m-%d}T00:00:00+00:00"
    (point,) = (one for one in kept if one["timestamp"] == ended and "numbers" in one["tags"])
    told = {one["display_name"]: one["value"] for one in point["metric_results"].values()}
    assert told["psi"] == tick_after(HEALTHY)["psi"]["value"]


def test_a_checks_description_claims_nothing_that_a_failure_would_deny(home: Path) -> None:
    graph = dg.Definitions(assets=[*monitoring_assets(SPEC), *training_assets(SPEC)]).resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert (graph.get(key).description or "").startswith(("Whether ", "How ", "Before ")), key


def test_the_score_is_drawn_beside_the_champions_own_on_rows_it_has_not_seen(home: Path) -> None:
    for partition in (HEALTHY, day(TWO_AFTER_PROMOTION)):
        reported(home, partition)
        page = (home / "drift_reports" / MODEL / f"{partition}.html").read_text(encoding="utf-8")
        assert "no value in the reference rows" not in page


def test_a_day_without_rows_fails_the_blocking_check_and_is_not_judged(home: Path) -> None:
    result = both(home, "2026-05-01")
    quality = checks(result)["fit_to_judge"]
    assert not result.success
    assert (quality.passed, quality.severity, quality.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert quality.description is not None
    assert quality.description.startswith("snapshot has rows: 0 rows; ")
    assert len(quality.description) < 400
    assert set(checks(result)) == {"fit_to_judge"}
    assert made(result) == ["telemetry_snapshot"]


def test_a_day_of_the_reference_span_is_refused_with_the_day_that_watching_began(home: Path) -> None:
    result = materialised(home, "drift_report", partition=day(3))
    assert not result.success
    assert refusal(result) == (
        f"{MODEL}: no model was watched before {day(4)} 00:00; it is watched since {day(REFERENCE)}T00:00:00+00:00"
    )


@pytest.mark.parametrize("name", ["telemetry_snapshot", "drift_report"])
def test_a_home_without_a_control_store_fails_with_what_to_do(tmp_path: Path, name: str) -> None:
    result = materialised(tmp_path, name, partition=HEALTHY)
    assert not result.success
    assert refusal(result) == f"{tmp_path}: {NO_STORE}"
    assert list(tmp_path.iterdir()) == []


def test_a_backfilled_report_opens_no_incident_and_writes_no_audit_record(tmp_path: Path) -> None:
    home = copied(tmp_path / "home")
    before, alerts = records(home), (home / "alerts.jsonl").read_bytes()
    for partition in (HEALTHY, first_breach()):
        assert both(home, partition).success
    assert records(home) == before
    assert events(home).count("incident.opened") == 1
    assert (home / "alerts.jsonl").read_bytes() == alerts


def backfilled(
    home: Path, first: str, last: str, instance: dg.DagsterInstance | None = None
) -> dg.ExecuteInProcessResult:
    """One run of the days from the first to the last, as a backfill launches it."""
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    made = dg.Definitions(assets=monitoring_assets(SPEC), executor=dg.in_process_executor)
    with at_home(home), dg.DagsterInstance.ephemeral() as own:
        return made.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance or own, tags=days, raise_on_error=False
        )


@pytest.mark.live
def test_a_run_of_several_days_makes_each_days_own_report(home: Path) -> None:
    days = [day(REFERENCE + number) for number in (7, 8, 9)]
    result = backfilled(home, days[0], days[-1])
    reports = {
        event.partition: event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey([MODEL, "drift_report"])
    }
    assert list(reports) == days
    for partition, found in reports.items():
        alone = metadata(reported(home, partition), "drift_report")
        told = {name: value.value for name, value in found.items()}
        assert {name: told[name] for name in ("verdict", "page", "kpis")} == {
            name: alone[name] for name in ("verdict", "page", "kpis")
        }
        assert str(partition) in str(told["page"])


def test_a_run_of_several_days_has_one_result_a_check_and_day(home: Path) -> None:
    breach = first_breach()
    before = f"{date.fromisoformat(breach) - DAY:%Y-%m-%d}"
    with dg.DagsterInstance.ephemeral() as own:
        result = backfilled(home, before, breach, own)
        told = {(one.partition, one.check_name): one for one in result.get_asset_check_evaluations()}
        assert set(told) == {(day, name) for day in (before, breach) for name in {"fit_to_judge", *KPIS}}
        for day in (before, breach):
            said = tick_after(day)["auroc"]
            assert told[day, "auroc"].passed is (said["verdict"] == "OK")
            assert (told[day, "auroc"].description or "").startswith(f"{said['verdict']}: {said['reason']}")
        kept = own.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey([MODEL, "drift_report"]), "auroc"), limit=10
        )
    assert [(one.partition, one.status.value) for one in kept] == [(breach, "FAILED"), (before, "SUCCEEDED")]


def test_a_day_that_is_not_fit_has_no_report_and_its_runs_others_have_theirs(home: Path) -> None:
    last = day(DAYS - 1)
    result = backfilled(home, last, f"{date.fromisoformat(last) + DAY:%Y-%m-%d}")
    assert result.success
    whole, fit = (one for one in result.get_asset_check_evaluations() if one.check_name == "fit_to_judge")
    assert (whole.partition, whole.passed) == (last, True)
    assert (fit.partition, fit.passed) == (f"{date.fromisoformat(last) + DAY:%Y-%m-%d}", False)
    assert fit.severity is dg.AssetCheckSeverity.WARN
    assert (fit.description or "").startswith("snapshot has rows: 0 rows; ")
    assert reported_days(result) == [last]
    assert set(checks(result)) == {"fit_to_judge", *KPIS}


def test_a_day_before_the_adoption_has_no_report_and_its_runs_others_have_theirs(home: Path) -> None:
    days = [day(REFERENCE + number) for number in (-2, -1, 0, 1)]
    result = backfilled(home, days[0], days[-1])
    assert result.success
    assert reported_days(result) == days[2:]


def reported_days(result: dg.ExecuteInProcessResult) -> list[str | None]:
    made = result.get_asset_materialization_events()
    return [event.partition for event in made if event.asset_key == dg.AssetKey([MODEL, "drift_report"])]


def test_reports_are_late_after_a_day_and_a_backfill_gives_a_run_ten_days() -> None:
    graph = dg.Definitions(assets=monitoring_assets(SPEC)).resolve_asset_graph()
    node = graph.get(dg.AssetKey([MODEL, "drift_report"]))
    assert node.freshness_policy == dg.FreshnessPolicy.time_window(timedelta(hours=36), timedelta(hours=26))
    for name in ("telemetry_snapshot", "drift_report"):
        policy = graph.get(dg.AssetKey([MODEL, name])).backfill_policy
        assert policy is not None
        assert policy.max_partitions_per_run == 10


def test_telemetry_is_observed_with_the_snapshot_that_pinned_it(home: Path) -> None:
    result = materialised(home, "telemetry_snapshot", partition=HEALTHY)
    (seen,) = result.asset_observations_for_node(f"{MODEL}__telemetry_snapshot")
    assert (seen.asset_key, seen.partition) == (dg.AssetKey([MODEL, "telemetry"]), HEALTHY)
    pinned = metadata(result, "telemetry_snapshot")
    told = {key: value.value for key, value in seen.metadata.items()}
    assert told == {key: pinned[key] for key in told}
    assert {"rows", "labelled", "delta_version_predictions", "delta_version_outcomes"} <= set(told)


def test_a_report_reads_what_its_snapshot_pinned_and_without_one_what_is_there(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Rows that came after the snapshot are another report's business."""
    home = copied(tmp_path / "home")
    assert materialised(home, "telemetry_snapshot", partition=HEALTHY, instance=instance).success
    with_late_rows(home, HEALTHY)
    pinned = materialised(home, "drift_report", partition=HEALTHY, instance=instance)
    unpinned = materialised(home, "drift_report", partition=HEALTHY)
    assert checks(pinned)["latency_p95_ms"].metadata["n"].value == 200
    assert checks(unpinned)["latency_p95_ms"].metadata["n"].value == 400


def with_late_rows(home: Path, partition: str) -> None:
    """The day's rows a second time, under ids of their own."""
    lake = Lake(home / "lake" / MODEL, source="late")
    rows = lake.read("predictions", day_of(partition)).with_columns(pl.concat_str(pl.lit("late-"), "_id").alias("_id"))
    lake.append("predictions", rows, 0)
    lake.close()


def test_a_kpi_that_is_switched_off_or_has_no_column_has_no_check() -> None:
    from drift_pipeline.components.checks import configured_kpis

    off = SPEC.model_copy(update={"kpis": SPEC.kpis.model_copy(update={"psi": None}), "protected": {}})
    assert configured_kpis(off) == ["range_z", "auroc", "latency_p95_ms"]
    categorical = SPEC.model_copy(
        update={"features": {"device": "categorical"}, "columns": SPEC.columns.model_copy(update={"latency_ms": None})}
    )
    assert configured_kpis(categorical) == ["psi", "auroc", "demographic_parity"]


@pytest.mark.parametrize(
    ("name", "verdict", "passes"),
    [
        ("estimated_auroc", Verdict.INCONCLUSIVE, True),
        ("multivariate", Verdict.WARN, False),
        ("auroc", Verdict.INCONCLUSIVE, False),
        ("auroc", Verdict.OK, True),
    ],
)
def test_a_hint_passes_unless_it_warns_and_a_kpi_only_when_it_is_ok(name: str, verdict: Verdict, passes: bool) -> None:
    check = dg.AssetCheckSpec(name, asset=dg.AssetKey([MODEL, "drift_report"]))
    told = verdict_of_day(check, HEALTHY, KpiResult(name, verdict, None, None, None, None, 0, ""))
    assert (told.passed, told.partition) == (passes, HEALTHY)
