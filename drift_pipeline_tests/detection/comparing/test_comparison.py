"""Two tables compared: the live implementation, whatever the format, worst first, with reasons for what is not told."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from drift_pipeline.clock import DAY
from drift_pipeline.detection.comparing.comparison import Comparison, compare_files
from drift_pipeline.detection.comparing.timeless import psi_window
from drift_pipeline.detection.counting.layout import ColumnCounts
from drift_pipeline.detection.counting.profile import profile_slices
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import Verdict
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.detection.thresholds import false_discovery_rate
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import DELIVERY_SPEC, SAMPLE_SPEC, Drift, delivery_history, synthetic_history
from drift_pipeline_tests.detection.worlds import spec_of


def table(n: int, seed: int, shift: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    level = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    return pl.DataFrame({"x": rng.standard_normal(n) + shift, "w": rng.standard_normal(n), "level": level})


def compared(folder: Path, reference: pl.DataFrame, current: pl.DataFrame, spec: ModelSpec | None = None) -> Comparison:
    reference.write_parquet(folder / "reference.parquet")
    current.write_parquet(folder / "current.parquet")
    return compare_files(folder / "reference.parquet", folder / "current.parquet", spec)


def sample_spec(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate({**yaml.safe_load(SAMPLE_SPEC), **changes})


def test_a_table_against_itself_differs_in_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path, table(3000, 0), table(3000, 0))
    assert found.verdict == Verdict.OK
    assert [(column.finding.psi, column.finding.distance) for column in found.columns] == [(0.0, 0.0)] * 3


def test_findings_are_those_of_the_live_implementation(tmp_path: Path) -> None:
    before, after = table(5000, 1), table(4000, 2, shift=0.3)
    spec = spec_of("x", "w", categorical=("level",))
    times = pl.datetime_range(pl.datetime(2026, 1, 5), pl.datetime(2026, 2, 2), interval="1h", time_zone="UTC")
    ticks = pl.select(times.alias("t"))["t"].sample(before.height, with_replacement=True, seed=0).sort()
    unscored = {"_score": pl.lit(None, pl.Float64), "_label": pl.lit(None, pl.Int8)}
    frame = before.with_columns(ticks.cast(pl.Datetime("us", "UTC")).alias("_time"), **unscored)
    reference: Reference = freeze(frame, frame, spec, (DAY,))
    one = profile_slices(reference.binning, after, np.zeros(after.height, np.int64), 1)[0]
    whole = profile_slices(reference.binning, before, np.zeros(before.height, np.int64), 1)[0]
    length, null = psi_window(spec), independent(reference.layout.names)
    sides = (ColumnCounts.of(reference.layout, whole), ColumnCounts.of(reference.layout, one))
    live = ComparedColumns(*sides, length, null, null, false_discovery_rate(length)).findings()
    found = compared(tmp_path, before, after, spec)
    assert {column.finding.name: column.finding for column in found.columns} == {f.name: f for f in live}


def test_format_and_files_do_not_matter(tmp_path: Path) -> None:
    before, after = table(5000, 3), table(5000, 4, shift=0.2)
    parquet = compared(tmp_path, before, after).to_json()
    folder = tmp_path / "parts"
    folder.mkdir()
    before.write_csv(tmp_path / "reference.csv")
    for number in range(5):
        after[number * 1000 : (number + 1) * 1000].write_csv(folder / f"{number}.csv")
    other = compare_files(tmp_path / "reference.csv", folder).to_json()
    assert other["features"] == parquet["features"]
    assert other["kpis"] == parquet["kpis"]


def test_drift_warns_and_a_psi_above_its_threshold_breaches(tmp_path: Path) -> None:
    small = compared(tmp_path, table(5000, 5), table(5000, 6, shift=0.25))
    large = compared(tmp_path, table(5000, 5), table(5000, 6, shift=1.0))
    assert [found.verdict for found in (small, large)] == [Verdict.WARN, Verdict.BREACH]
    assert [found.columns[0].finding.name for found in (small, large)] == ["x", "x"]
    assert [column.verdict for column in large.columns[1:]] == [Verdict.OK, Verdict.OK]
    assert large.columns[0].finding.direction == "up"


def test_the_threshold_is_the_specs(tmp_path: Path) -> None:
    spec = spec_of("x", "w", categorical=("level",), kpis={"psi": {"threshold": 2.0}})
    assert compared(tmp_path, table(5000, 5), table(5000, 6, shift=1.0), spec).columns[0].verdict == Verdict.WARN


def test_independent_rows_of_one_world_do_not_drift(tmp_path: Path) -> None:
    verdicts = [compared(tmp_path, table(3000, seed), table(1000, 1000 + seed)).verdict for seed in range(40)]
    assert verdicts == [Verdict.OK] * 40


def test_below_200_rows_nothing_is_claimed(tmp_path: Path) -> None:
    found = compared(tmp_path, table(3000, 7), table(150, 8, shift=2.0))
    assert found.verdict == Verdict.INCONCLUSIVE
    assert {column.verdict for column in found.columns} == {Verdict.INCONCLUSIVE}
    assert "150 effective rows, 200 are needed" in found.columns[0].finding.reason


@pytest.mark.parametrize("power", [0.0, 1.3], ids=["equal codes", "heavy-tailed merchants"])
def test_two_samples_of_very_many_levels_do_not_differ(tmp_path: Path, power: float) -> None:
    rng, number = np.random.default_rng(0), 1200 if power == 0 else 20_000
    shares = np.arange(1.0, number + 1) ** -power
    codes = (rng.choice(number, 2000, p=shares / shares.sum()).astype(str) for _ in range(2))
    sides = [table(2000, 20 + k).with_columns(code=pl.Series(drawn)) for k, drawn in enumerate(codes)]
    found = compared(tmp_path, sides[0], sides[1])
    code = next(column for column in found.columns if column.finding.name == "code")
    assert (found.verdict, code.verdict) == (Verdict.OK, Verdict.OK)
    assert code.finding.psi < 0.05
    assert code.finding.p_value > 0.01


@pytest.mark.parametrize(
    ("changed", "direction", "verdict"),
    [
        (pl.lit("new").alias("level"), "new levels", Verdict.BREACH),  # PSI .6, at least .2
        (pl.lit(None, pl.String).alias("level"), "more missing", Verdict.WARN),
        (pl.lit(None, pl.Float64).alias("w"), "more missing", Verdict.WARN),
        (pl.lit(float("inf")).alias("w"), "more missing", Verdict.WARN),
    ],
)
def test_a_tenth_of_2000_rows_with_a_new_level_or_without_a_value_is_drift(
    tmp_path: Path, changed: pl.Expr, direction: str, verdict: Verdict
) -> None:
    after = table(2000, 31)
    found = compared(tmp_path, table(2000, 30), pl.concat([after[:200].with_columns(changed), after[200:]]))
    first = found.columns[0]
    assert (found.verdict, first.verdict, first.finding.direction) == (verdict, verdict, direction)
    assert first.finding.distance == pytest.approx(0.1, abs=0.02)
    assert 0.05 < first.finding.distance_lower < 0.1


@pytest.mark.parametrize(
    ("before", "after", "direction", "verdict"),
    [
        ("w", None, "more missing", Verdict.WARN),
        (None, "w", "fewer missing", Verdict.WARN),
        ("level", None, "more missing", Verdict.WARN),
        (None, "level", "fewer missing", Verdict.WARN),
    ],
)
def test_a_column_that_dies_or_comes_to_life_is_drift_of_distance_1(
    tmp_path: Path, before: str | None, after: str | None, direction: str, verdict: Verdict
) -> None:
    name = before or after or ""
    gone = pl.lit(None, pl.String if name == "level" else pl.Float64).alias(name)
    sides = (table(3000, 9 + k).with_columns(*([] if kept else [gone])) for k, kept in enumerate((before, after)))
    found = compared(tmp_path, next(sides), next(sides))
    first = found.columns[0]
    assert (found.verdict, first.finding.name, first.finding.direction) == (verdict, name, direction)
    assert (first.finding.distance, first.finding.p_value) == (1.0, 0.0)
    assert first.missing == (0.0 if before else 1.0, 0.0 if after else 1.0)
    assert [column.verdict for column in found.columns[1:]] == [Verdict.OK] * (len(found.columns) - 1)


def test_a_column_without_a_value_on_either_side_is_left_out_and_named(tmp_path: Path) -> None:
    sides = [table(3000, 9 + k).with_columns(w=pl.lit(None, pl.Float64)) for k in (0, 1)]
    found = compared(tmp_path, sides[0], sides[1])
    assert found.verdict == Verdict.OK
    assert next(column.why for column in found.read if column.name == "w") == "left out: no value on either side"


def test_a_watched_column_without_a_value_on_either_side_is_not_judged(tmp_path: Path) -> None:
    sides = [table(3000, 9 + k).with_columns(w=pl.lit(None, pl.Float64)) for k in (0, 1)]
    spec = sample_spec(features={"w": "numeric", "x": "numeric"})
    found = compared(tmp_path, sides[0], sides[1], spec)
    (column,) = (column for column in found.columns if column.finding.name == "w")
    assert (column.verdict, column.finding.reason) == (
        Verdict.INCONCLUSIVE,
        "no value on either side: nothing to compare",
    )
    assert "w" in str(found.rolled_up.to_json())


def test_more_missing_values_are_drift(tmp_path: Path) -> None:
    after = table(3000, 11).with_columns(w=pl.when(pl.int_range(pl.len()) % 5 > 0).then("w"))
    found = compared(tmp_path, table(3000, 12), after)
    assert (found.columns[0].finding.name, found.columns[0].finding.direction) == ("w", "more missing")


def test_rows_far_out_breach_the_range_kpi(tmp_path: Path) -> None:
    after = table(3000, 13).with_columns(w=pl.when(pl.int_range(pl.len()) % 100 == 0).then(50.0).otherwise("w"))
    found = compared(tmp_path, table(3000, 14), after)
    w = next(column for column in found.columns if column.finding.name == "w")
    assert (found.verdict, found.kpis["range_z"].verdict) == (Verdict.BREACH, Verdict.BREACH)
    assert w.beyond == pytest.approx(0.01, abs=1e-3)


def test_a_spec_tells_the_kpis_that_two_tables_can_tell(tmp_path: Path) -> None:
    drifts = (Drift("concept", day=0), Drift("latency", day=0), Drift("unfairness", day=0))
    found = compared(
        tmp_path, synthetic_history(20, 500, 0), synthetic_history(20, 500, 1, drifts=drifts), sample_spec()
    )
    assert [found.kpis[name].verdict for name in ("auroc", "latency_p95_ms", "demographic_parity")] == ["BREACH"] * 3
    calm = compared(tmp_path, synthetic_history(20, 500, 0), synthetic_history(20, 500, 1), sample_spec())
    assert {kpi.verdict for kpi in calm.kpis.values()} == {Verdict.OK}
    assert not any("held out" in kpi.reason or "28d" in kpi.reason for kpi in found.kpis.values())


@pytest.mark.parametrize(
    ("dropped", "kpi", "said"),
    [
        ("score", "auroc", "the prediction 'score' is not in both tables"),
        ("score", "demographic_parity", "the prediction 'score' is not in both tables"),
        ("clicked", "auroc", "the label 'clicked' is not in both tables"),
        ("latency_ms", "latency_p95_ms", "the latency 'latency_ms' is not in both tables"),
        ("age_band", "demographic_parity", "no protected column is in both tables"),
    ],
)
def test_what_a_table_lacks_is_inconclusive_with_its_reason(tmp_path: Path, dropped: str, kpi: str, said: str) -> None:
    first, second = synthetic_history(10, 200, 0), synthetic_history(10, 200, 1)
    found = compared(tmp_path, first, second.drop(dropped), sample_spec())
    assert (found.kpis[kpi].verdict, found.kpis[kpi].reason) == (Verdict.INCONCLUSIVE, said)


def test_a_regression_tells_its_errors(tmp_path: Path) -> None:
    spec = ModelSpec.model_validate(yaml.safe_load(DELIVERY_SPEC))
    before = delivery_history(30, 200, 0)
    worse = compared(tmp_path, before, delivery_history(30, 200, 1, drifts=(Drift("concept", day=0),)), spec)
    assert [worse.kpis[name].verdict for name in ("mae", "residuals")] == [Verdict.BREACH, Verdict.WARN]
    calm = compared(tmp_path, before, delivery_history(30, 200, 1), spec)
    assert [calm.kpis[name].verdict for name in ("mae", "residuals")] == [Verdict.OK, Verdict.OK]
    unlabelled = compared(tmp_path, before, before.drop("minutes"), spec)
    assert unlabelled.kpis["mae"].reason == "the label 'minutes' is not in both tables"
    assert "held" not in " ".join(kpi.reason for kpi in worse.kpis.values())


@pytest.mark.parametrize(
    ("positive", "spelled"), [("yes", ("no", "yes")), (True, ("False", "True")), (2, ("1.0", "2.0")), ("1", ("0", "1"))]
)
def test_labels_are_read_by_the_specs_positive_as_in_a_history(
    tmp_path: Path, positive: object, spelled: tuple[str, str]
) -> None:
    rows = synthetic_history(10, 200, 0)
    texts = rows.with_columns(
        pl.when(pl.col("clicked") == 1).then(pl.lit(spelled[1])).otherwise(pl.lit(spelled[0])).alias("clicked")
    )
    spec = sample_spec(outcome={"column": "clicked", "positive": positive})
    found, plain = compared(tmp_path, texts, texts, spec), compared(tmp_path, rows, rows, sample_spec())
    assert found.kpis["auroc"] == plain.kpis["auroc"]


def test_a_third_label_on_the_other_side_is_refused(tmp_path: Path) -> None:
    rows = synthetic_history(10, 200, 0)
    with pytest.raises(InputError, match=r"current\.parquet: row \d+: column 'clicked': 2 is a third label"):
        compared(tmp_path, rows, rows.with_columns(clicked=pl.col("clicked") + 1), sample_spec())


def test_what_nobody_named_is_not_configured(tmp_path: Path) -> None:
    found = compared(tmp_path, table(1000, 0), table(1000, 1))
    verdicts = {name: kpi.verdict for name, kpi in found.kpis.items()}
    assert verdicts.pop("psi") == verdicts.pop("range_z") == Verdict.OK
    assert set(verdicts.values()) == {Verdict.NOT_CONFIGURED}


def test_a_kpi_that_the_spec_switches_off_stays_off(tmp_path: Path) -> None:
    off = dict.fromkeys(("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"))
    rows = synthetic_history(10, 200, 0)
    found = compared(tmp_path, rows, rows.drop("score", "latency_ms"), sample_spec(kpis=off))
    assert {kpi.verdict for kpi in found.kpis.values()} == {Verdict.NOT_CONFIGURED}
    assert found.verdict == Verdict.OK


def test_bins_come_from_a_bounded_sample_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_pipeline.detection.comparing.scan.SAMPLE_ROWS", 500)
    found = compared(tmp_path, table(3000, 0), table(3000, 1))
    assert found.notes[0] == "bins are frozen on a sample of 500 of the reference's 3,000 rows"


def test_columns_of_one_side_are_left_out_and_said(tmp_path: Path) -> None:
    found = compared(tmp_path, table(1000, 0).with_columns(old=1.5), table(1000, 1).with_columns(new=1.5))
    assert {column.name: column.why for column in found.read if column.kind is None} == {
        "old": "left out: not in current.parquet",
        "new": "left out: not in reference.parquet",
    }


def test_numbers_that_the_spec_wants_and_a_table_has_as_text_are_refused(tmp_path: Path) -> None:
    after = table(1000, 1).with_columns(x=pl.lit("much"))
    with pytest.raises(InputError, match=r"current\.parquet: row 1: column 'x': 'much' is not a number"):
        compared(tmp_path, table(1000, 0), after, spec_of("x", "w"))


def test_a_spec_of_other_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no feature of m is in both tables; common are x, w, level"):
        compared(tmp_path, table(1000, 0), table(1000, 1), spec_of("speed"))
