"""Hours of seeded faults leave every invariant as it was, and seeded drifts are found after they began."""

from pathlib import Path

import pytest

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.telemetry.synthetic import Drift
from drift_pipeline_tests.faults.breaking import POINTS
from drift_pipeline_tests.faults.detecting import detect
from drift_pipeline_tests.faults.run import run

pytestmark = pytest.mark.live  # minutes of faults or of history

SOMETIMES = {f"killed {side} {point}" for point in POINTS for side in ("before", "after")}
ALWAYS = {
    "alert channel down",
    "approval by who trained it",
    "approval for another digest",
    "approval forged",
    "approval missing",
    "bundle swapped",
    "capture's clock ahead",
    "capture's clock back",
    "champion flipped",
    "champion missing",
    "clock a day ahead",
    "clock ahead",
    "clock back",
    "clock minutes back",
    "database gone",
    "database locked",
    "disk full",
    "disk read-only",
    "duplicates",
    "future-dated",
    "label before its prediction",
    "lake compacted",
    "late events",
    "maintenance",
    "no traffic",
    "out of order",
    "pause",
    "poison",
    "policy dead",
    "retention killed",
    "rollback after full",
    "rollback during a canary",
    "rollback while it is promoted",
    "schema break",
    "two loops tick at once",
}


@pytest.mark.live
def test_three_hours_of_every_kind_of_fault_break_no_invariant(tmp_path: Path) -> None:
    """A retrain, a shadow, an approval, a canary and a promotion happen amid them."""
    drifts = [Drift("concept", 15 * MINUTE / (24 * HOUR))]
    tale = run(
        tmp_path,
        hours=3,
        seed=1,
        repeats=1,
        drifts=drifts,
        step=2 * MINUTE,
        tell=lambda _: None,
        reference_days=8,
    )
    assert tale.wrong == []
    assert ALWAYS - tale.times.keys() == set()
    assert len(SOMETIMES & tale.times.keys()) >= 8
    gone_through = {"candidate.proven", "rollout.shadow", "rollout.canary", "rollout.full", "model.promoted"}
    assert gone_through - tale.events.keys() == set()


@pytest.mark.parametrize("seed", [0, 1])
def test_an_incident_opens_after_the_drift_and_is_paged(tmp_path: Path, seed: int) -> None:
    found = detect(tmp_path, seed, reference_days=3)
    assert found.early == 0
    assert found.minutes is not None
    assert found.minutes > 0
