"""The calm sample: what is adopted with it can be judged in its short windows."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import MINUTE, WEEK
from drift_pipeline.detection.judging.monitor import Monitor, window_lengths
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.spec import read_spec
from drift_pipeline.telemetry.synthetic import Drift, synthetic_history
from drift_pipeline_tests.replay.worlds import drift

RATE = 50  # rows a second, as `drift simulate` sends them


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, Monitor]:
    """What `drift sample --calm` and `drift adopt` make, less the model."""
    folder = tmp_path_factory.mktemp("calm") / "recommendation_v3"
    assert drift("sample", folder, "--calm").code == 0
    spec = read_spec(folder / "defs.yaml")
    columns = {"ts": "_time", "score": "_score", "clicked": "_label", "latency_ms": "_latency_ms"}
    frame = pl.read_parquet(folder / "history.parquet").rename(columns)
    reference = freeze(frame, frame[-frame.height // 5 :], spec, window_lengths(spec, MINUTE))
    return reference, Monitor(reference, spec, reference.span.end, MINUTE)


def sent(start: datetime, minutes: int, drifts: tuple[Drift, ...]) -> pl.DataFrame:
    """Rows of the sample's world as `drift simulate` sends them, evenly."""
    rows = synthetic_history(1, RATE * 60 * minutes, 7, drifts=drifts)
    since = pl.Series(np.arange(rows.height) * 1_000_000 // RATE).cast(pl.Duration("us"))
    named = {"score": "_score", "latency_ms": "_latency_ms"}
    return rows.drop("ts", "clicked").rename(named).with_columns(_time=pl.lit(start) + since)


def quarter_of_an_hour_after(adopted: tuple[Reference, Monitor], *drifts: Drift) -> Report:
    reference, watched = adopted
    monitor = Monitor(reference, watched.spec, watched.reference.span.end, MINUTE)
    now = reference.span.end + timedelta(minutes=16)
    monitor.slices.add(sent(reference.span.end, 16, drifts), now)
    return monitor.evaluate(now)


def test_its_reference_is_no_provisional_one_and_knows_how_short_windows_vary(
    adopted: tuple[Reference, Monitor],
) -> None:
    reference, _ = adopted
    assert not reference.provisional
    assert reference.span.length >= 4 * WEEK
    assert all(reference.nulls[length].windows >= 100 for length in (15 * MINUTE, 60 * MINUTE))


def test_a_drift_is_judged_within_a_quarter_of_an_hour(adopted: tuple[Reference, Monitor]) -> None:
    calm = quarter_of_an_hour_after(adopted)
    assert calm.kpis["psi"].verdict is Verdict.OK
    found = quarter_of_an_hour_after(adopted, Drift("covariate", day=0))
    assert found.kpis["psi"].verdict is Verdict.WARN
    assert found.sudden
    assert "session_length_s" in found.drifting
