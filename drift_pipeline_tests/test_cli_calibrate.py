"""`drift calibrate`: what a healthy history alarms, as a table, as JSON and as thresholds to paste into the spec."""

from pathlib import Path

import pytest
import yaml

from drift_pipeline.spec import Kpis
from drift_pipeline.telemetry.synthetic import DELIVERY_SPEC, SAMPLE_SPEC, delivery_history, synthetic_history
from drift_pipeline_tests.replay.test_elec2 import ELEC2, with_the_market
from drift_pipeline_tests.replay.worlds import Ended, drift

ELEC2_SPEC = Path(__file__).parent / "replay" / "elec2.yaml"


def calibrate(folder: Path, days: int, per_day: int, *options: object) -> Ended:
    synthetic_history(days, per_day, 0).write_parquet(folder / "history.parquet")
    (folder / "spec.yaml").write_text(SAMPLE_SPEC)
    return drift("calibrate", folder / "history.parquet", "--spec", folder / "spec.yaml", *options)


def test_a_healthy_history_keeps_its_thresholds(tmp_path: Path) -> None:
    ended = calibrate(tmp_path, 42, 300, "--step", "1d", "--out", tmp_path / "kpis.yaml")
    assert (ended.code, ended.complaints) == (0, [])
    assert max(map(len, ended.out.splitlines())) <= 100
    snippet = (tmp_path / "kpis.yaml").read_text()
    assert snippet.rstrip() in ended.out
    assert Kpis.model_validate(yaml.safe_load(snippet)["kpis"]) == Kpis()


def test_a_regression_keeps_its_thresholds_too(tmp_path: Path) -> None:
    delivery_history(42, 300, 0).write_parquet(tmp_path / "history.parquet")
    (tmp_path / "spec.yaml").write_text(DELIVERY_SPEC)
    ended = drift("calibrate", tmp_path / "history.parquet", "--spec", tmp_path / "spec.yaml", "--json")
    kept = {one["key"]: one["proposed"] == one["current"] for one in ended.summary["proposals"]}
    assert (kept["kpis.mae.rise"], kept["kpis.residuals.threshold"]) == (True, True)


def test_json_tells_each_window_length(tmp_path: Path) -> None:
    ended = calibrate(tmp_path, 42, 300, "--step", "1d", "--json")
    found = ended.summary
    assert [one["window"] for one in found["windows"]] == ["1d", "7d", "28d"]
    day = found["windows"][0]
    assert day["before"] == {"alarms": 0, "windows": 42, "share": 0.0}
    assert day["false_alarms_a_month"]["after"]["estimate"] == 0
    assert set(day["kpis"]) == {"psi", "range_z", "auroc", "latency_p95_ms"}
    assert "under a year" in found["windows"][2]["silent"]


def test_a_history_too_thin_to_judge_any_window_is_inconclusive(tmp_path: Path) -> None:
    ended = calibrate(tmp_path, 10, 20)
    assert ended.code == 3
    assert "kpis:\n" not in ended.out
    assert "too short to tell" in ended.out


def test_a_spec_can_be_overridden(tmp_path: Path) -> None:
    ended = calibrate(tmp_path, 28, 300, "--step", "1d", "--set", "kpis.latency_p95_ms=null", "--json")
    assert "kpis.latency_p95_ms.threshold" not in {one["key"] for one in ended.summary["proposals"]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reference", "90d"), "before --reference does"),
        (("--step", "10s"), "whole minutes"),
        (("--step", "x"), "not a duration"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    ended = calibrate(tmp_path, 10, 20, *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


@with_the_market
def test_the_markets_first_90_days_alarm_as_independent_rows_and_not_with_the_empirical_null() -> None:
    found = drift("calibrate", ELEC2, "--spec", ELEC2_SPEC, "--reference", "90d", "--json").summary
    by_length = {one["window"]: one for one in found["windows"]}
    assert by_length["1d"]["p_values_alone"]["share"] == pytest.approx(79 / 90)
    assert by_length["1d"]["silent"] == "no window has 200 rows"
    assert (by_length["7d"]["before"]["share"], by_length["7d"]["after"]["share"]) == (1.0, 0.0)
    assert by_length["7d"]["no_claim_of"] == ["nswprice", "nswdemand"]
    assert next(iter(by_length["7d"]["phi"])) == "nswprice"
    assert "under a year" in by_length["28d"]["silent"]
