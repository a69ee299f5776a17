"""A regression goes round the whole loop: its MAE rises, a better model is trained, proven, shipped and audited."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from drift_pipeline.telemetry.synthetic import DELIVERY_SPEC, Drift, delivery_history
from drift_pipeline_tests.replay.worlds import Ended, drift, folder, replay

KPIS = "kpis: {latency_p95_ms: {threshold: 2000}}\n"  # a gate measures it, and this machine may be busy
SPEC = DELIVERY_SPEC + KPIS + "retrain: {trials: 2, trainer: ridge, min_rows: 800}\n"


@functools.cache
def replayed() -> tuple[Ended, Path]:
    """Deliveries whose minutes follow another rule from day 42 on, with the recorded promises."""
    data, out = folder() / "deliveries.parquet", folder() / "deliveries"
    delivery_history(84, 120, 1, drifts=(Drift("concept", day=42),)).write_parquet(data)
    return replay(data, out, "--triggers", "drift", spec=SPEC), out


def the_summary() -> dict[str, Any]:
    ended, _ = replayed()
    assert ended.code == 0, ended.err
    return ended.summary


def test_the_loop_errs_less_than_the_frozen_model_and_its_audit_verifies() -> None:
    summary = the_summary()
    assert summary["incidents"] >= 1
    assert summary["promotions"] >= 1
    assert summary["audit"]["verified"]
    assert summary["mae"]["loop"] < 0.9 * summary["mae"]["frozen"]
    assert "auroc" not in summary
    assert drift("audit", "verify", "--home", replayed()[1]).code == 0


def test_the_drift_is_what_retrains() -> None:
    summary = the_summary()
    first = summary["retrains"][0]
    assert (first["cause"], first["accepted"]) == ("drift", True)
    assert first["mae_after"] < first["mae_before"]
    kpis = pl.read_parquet(replayed()[1] / "kpis.parquet")
    said = {(name, verdict) for name, verdict in kpis.select("name", "verdict").iter_rows()}
    assert {("mae", "BREACH"), ("residuals", "WARN"), ("auroc", "NOT_CONFIGURED")} <= said
    before = kpis.filter(
        pl.col("at") <= pl.lit(kpis["at"][0]).dt.offset_by("13d"), pl.col("name").is_in(["mae", "residuals"])
    )
    assert not set(before["verdict"]) & {"BREACH", "WARN"}


def test_the_report_and_the_card_speak_of_mae() -> None:
    _, out = replayed()
    page = (out / "report.html").read_text()
    words = re.sub(r"<[^>]+>", "", page)
    assert re.search(r"The loop's MAE is -\d+\.\d % against the first model left alone", words)
    assert "MAE by month" in page
    assert re.search(r"mae BREACH: rose \d+\.\d\d %, allowed are 10\.00 %", page)
    assert re.search(r"passed its gates: MAE [\d.]+ -&gt; [\d.]+ \(-[\d.]+ %\) on", page)
    assert "AUROC" not in words
    version = the_summary()["reigns"][-1]["version"]
    card = json.loads((out / "evidence" / "delivery_minutes" / version / "card.json").read_text())
    fields = {field["id"]: field for section in card["sections"] for field in section["fields"]}
    assert fields["quantitative.mae"]["value"] > 0
    assert fields["comparison.gain"]["value"] > 0
    assert fields["metrics.decision_threshold"]["state"] == "NOT_APPLICABLE"
    assert [group["levels"] for group in fields["quantitative.groups"]["value"]] == [["centre"], ["north"], ["south"]]
    assert all(g["mae_low"] < g["mae"] < g["mae_high"] for g in fields["quantitative.groups"]["value"])
    folder = out / "evidence" / "delivery_minutes" / version
    assert "AUROC" not in (folder / "card.html").read_text() + (folder / "card.md").read_text()


@pytest.mark.live
def test_a_comparison_says_which_replay_errs_less() -> None:
    _, out = replayed()
    told = drift("diff", out, out)
    assert told.code == 0
    assert re.search(r"^MAE loop +[\d.]+ +[\d.]+$", told.out, re.MULTILINE)
    assert re.search(r"^worst month against frozen +[+-][\d.]+ %", told.out, re.MULTILINE)
    assert "AUROC" not in told.out


def test_without_recorded_predictions_a_first_model_is_trained(tmp_path: Path) -> None:
    data = tmp_path / "deliveries.parquet"
    delivery_history(35, 150, 4, value=False).write_parquet(data)
    spec = SPEC.replace("prediction: {value: promised_minutes}\n", "")
    ended = replay(data, tmp_path / "out", "--triggers", "drift", spec=spec)
    assert ended.code == 0, ended.err
    assert ended.summary["reigns"][0]["version"] == "v1"
    assert (ended.summary["incidents"], ended.summary["retrains"]) == (0, [])
