"""A process that is killed before and after each effect of a rollout, a rollback and a retention is made up for."""

import pytest

from drift_pipeline.clock import DAY, MINUTE
from drift_pipeline.loop import operating
from drift_pipeline.loop.retention import past_retention, retain
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.faults.breaking import SIDES, KilledError, Point, kill
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.world import Live

pytestmark = pytest.mark.live  # minutes of faults or of history

STEP = 5 * MINUTE


RECORDS = (
    "model.registered",
    "rollout.shadow",
    "rollout.awaiting_approval",
    "approval.accepted",
    "rollout.canary",
    "rollout.full",
    "model.promoted",
    "reference.frozen",
)
FOLLOWED = RECORDS[-3:]  # whoever looks takes a promotion to its end, and so would the check


def test_a_rollout_whose_process_dies_around_each_of_its_records_ends_in_one_promotion(proven: Live) -> None:
    site, kept, fuses = proven.site, proven.kept, proven.kept.fuses
    for record in RECORDS:
        fuses.only["store.commit"] = record
        for side in SIDES:
            fuses.set["store.commit", side] = kill
            for _ in range(4):
                proven.approve()
                proven.minutes(STEP // MINUTE, STEP)
                if not fuses.set:
                    break
            assert not fuses.set, f"{record} did not come"
            if record not in FOLLOWED:
                assert broken(site, [kept]) == [], f"killed {side} {record}"
    assert kept.died == 2 * len(RECORDS)
    proven.minutes(5)
    assert broken(site, [kept]) == []
    assert site.route.champion["version"] == "v2"


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.AWAITING_APPROVAL, Phase.CANARY, Phase.FULL])
def test_a_rollback_that_dies_before_its_record_is_done_again_and_after_it_is_done(proven: Live, phase: Phase) -> None:
    site, fuses = proven.site, proven.site.home.fuses
    proven.until(phase)
    for side in SIDES:
        fuses.set["store.commit", side] = kill
        with pytest.raises(KilledError):
            operating.roll_back(site.by_hand(), "ada", "stop")
        assert site.phase() is (phase if side == "before" else Phase.ROLLED_BACK)
        assert broken(site, [proven.kept]) == []
    proven.minutes(4)
    assert broken(site, [proven.kept]) == []
    assert site.route.champion["version"] == "v1"


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ("store.commit", "retention.begun"),
        ("lake.drop", "predictions"),
        ("lake.drop", "outcomes"),
        ("lake.compact", "predictions"),
        ("lake.compact", "dead_letters"),
    ],
)
def test_a_retention_that_dies_around_an_effect_is_made_whole_by_doing_it_again(
    live: Live, point: Point, name: str
) -> None:
    site, fuses = live.site, live.site.home.fuses
    live.minutes(2)
    site.spec = site.spec.model_copy(update={"retention": site.spec.retention.model_copy(update={"telemetry": DAY})})
    assert past_retention(site.home, site.spec).rows > 0
    fuses.only[point] = name
    for side in SIDES:
        fuses.set[point, side] = kill
        with pytest.raises(KilledError):
            retain(site.home, site.spec, "ada")
        live.minutes(1)
        assert broken(site, [live.kept]) == []
    retain(site.home, site.spec, "ada")
    assert past_retention(site.home, site.spec).rows == 0
    live.minutes(1)
    assert broken(site, [live.kept]) == []
    assert site.by_hand().trainings.holdout.height > 0
