"""Faults of the loop that the seeded hours found, each by itself."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, Window
from drift_pipeline.errors import IntegrityError
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.loop import operating
from drift_pipeline.loop.loop import Loop
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.synthetic import START
from drift_pipeline_tests.detection.worlds import rows
from drift_pipeline_tests.faults.world import Live
from drift_pipeline_tests.test_champion_monitor import AN_HOUR, REFERENCE_DAYS, SPEC, Lived, _known, _served, numbered
from drift_pipeline_tests.test_live import day, ship, turn_labels
from drift_pipeline_tests.test_loop import World, phase, twin

pytestmark = pytest.mark.live  # minutes of faults or of history


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def counted(loop: Loop) -> tuple[int, int]:
    """Rows, and labelled rows."""
    loop.look()
    monitor = loop.monitor
    return monitor.rows_counted(), monitor.labelled_since(monitor.baseline_at)


def test_a_process_that_comes_late_to_a_promotion_takes_up_the_baseline_that_was_set(world: World) -> None:
    late = twin(world)
    ship(world)
    turn_labels(world)
    for _ in range(4):
        day(world)
        world.loop.tick(inline=False)
    assert world.loop.incident.open
    late.catch_up()
    assert late.incident.open
    assert "reference.restored" not in world.events()


def test_bytes_that_were_swapped_in_the_canary_are_not_promoted_by_a_loop_that_has_the_old_ones(world: World) -> None:
    training = world.rolled_out(days=2)
    assert phase(world) is Phase.CANARY
    day(world)
    (model,) = world.registry.rglob(f"{training.digest.removeprefix('sha256:')}/model.skops")
    model.write_bytes(b"another model")
    with suppress(IntegrityError):
        world.loop.advance()
    assert phase(world) is not Phase.FULL


def test_the_auroc_of_the_first_whole_day_counts_all_its_labels(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    frames = [rows(np.random.default_rng(seed), REFERENCE_DAYS, 24 * AN_HOUR, seed * REFERENCE_DAYS) for seed in (0, 1)]
    before, after = (numbered(frame, name) for frame, name in zip(frames, ("before", "after"), strict=True))
    lake.append("predictions", _served(before), 0)
    lake.append("outcomes", _known(before), 0)
    lived = Lived(lake, SPEC, START + REFERENCE_DAYS * DAY, after)
    monitor = lived.kept[MINUTE]
    for quarter in range(1, 4 * 24 + 3):
        lived.land(lived.baseline_at + quarter * HOUR / 4)
        report = monitor.observe(lived.baseline_at + quarter * HOUR / 4)
    window = report.kpis["auroc"].window
    assert window is not None
    assert window >= DAY
    assert report.kpis["auroc"].n > 0.9 * monitor.labelled_since(lived.baseline_at)


def test_rows_from_before_an_onset_are_not_fresh(live: Live) -> None:
    live.minutes(40)
    loop = live.site.twin()
    loop.look()
    now = live.site.clock.now()
    assert loop.recoveries.fresh_rows(now, loop.monitor, now) == 0


def test_a_label_that_came_before_its_prediction_outlives_a_restart(live: Live) -> None:
    site = live.site
    live.minutes(58)
    site.send([site.outcome("x", site.clock.now(), 1)])
    live.minutes(2)  # the second stores the hour's profiles
    site.send([site.prediction({**site.some_row(), "_time": site.clock.now() - 3 * MINUTE}, id="x")])
    live.minutes(1)
    assert counted(site.twin()) == counted(live.kept.loop)


def test_rows_of_a_maintenance_that_is_over_stay_out_after_a_restart(live: Live) -> None:
    for lasts in (8, 4):
        live.minutes(10)
        now = live.site.clock.now()
        operating.announce_maintenance(live.site.by_hand(), "ada", "migration", Window(now, now + lasts * MINUTE))
    live.minutes(6)
    assert counted(live.site.twin()) == counted(live.kept.loop)


def test_a_card_names_the_rules_that_decided_its_training_and_no_other_record(proven: Live) -> None:
    site = proven.site
    (candidate,) = site.store.find("candidate")
    (decided,) = [record for record in site.records() if record.event == "decision.made"]
    digest = str(candidate.body["digest"])
    told = write_documents(site.settings, site.home.store, site.registry, site.spec, digest, site.clock.now())
    assert decided.policy_digest is not None
    assert told.card.fields["lineage.policy_digest"].value == decided.policy_digest
