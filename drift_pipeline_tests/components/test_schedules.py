"""The calendar: a retrain once for each time it is due, and each day's reports for every adopted model."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from drift_pipeline.clock import DAY, SystemClock, Window
from drift_pipeline.components.home import FLEET
from drift_pipeline.components.jobs import retention, retrain_job
from drift_pipeline.components.lanes import ALL_ASSETS
from drift_pipeline.components.monitoring import monitoring_assets
from drift_pipeline.components.partitions import first_day
from drift_pipeline.components.schedules import loop_schedules
from drift_pipeline.components.sensors import requests_of
from drift_pipeline.components.training import training_assets
from drift_pipeline.loop import Loop, operating
from drift_pipeline.spec import ModelSpec
from drift_pipeline_tests.components.worlds import (
    ATTRIBUTES,
    MODEL,
    REFERENCE,
    SPEC,
    at_home,
    copied,
    day,
    records,
    replayed,
)

SPECS = {MODEL: SPEC, "churn": SPEC.model_copy(update={"name": "churn"})}
DUE, DAILY, NIGHTLY = loop_schedules(SPECS)
AT = datetime(2026, 6, 1, 0, 10, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    made = copied(tmp_path / "home")
    with at_home(made):
        yield made
        FLEET.close()


def located(specs: Mapping[str, ModelSpec]) -> dg.RepositoryDefinition:
    assets = [asset for spec in specs.values() for asset in (*monitoring_assets(spec), *training_assets(spec))]
    return dg.Definitions(
        assets=assets, jobs=[retrain_job("in_process"), retention], schedules=[DUE, DAILY, NIGHTLY]
    ).get_repository_def()


def evaluated(schedule: dg.ScheduleDefinition, at: datetime = AT) -> tuple[list[dg.RunRequest], str]:
    """The runs that the schedule launches then, and why none if there are none."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, repository_def=located(SPECS)
        )
        found = schedule.evaluate_tick(context)
    return list(found.run_requests or ()), found.skip_message or ""


def test_a_retrain_that_is_due_is_decided_once_and_the_tick_launches_it(home: Path) -> None:
    """The champion's baseline is of March, and the first of November, when the retrain was due, is over."""
    requests, told = evaluated(DUE)
    decided = records(home)[-1]
    assert (decided.event, decided.details["trigger"]) == ("decision.made", "schedule")
    assert len(records(home)) == len(records(replayed())) + 1
    assert (requests, told) == ([], f"{decided.details['decision']} retrain: the scheduled retrain is due")
    assert evaluated(DUE) == ([], "no retrain is due")
    assert records(home)[-1] == decided
    with FLEET.of(SPECS) as (_, fleet), dg.DagsterInstance.ephemeral() as instance:
        (request,) = requests_of(fleet.loop(SPEC), instance)
    assert request.tags["drift/decision"] == decided.details["decision"]
    assert (request.tags["drift/lane"], request.tags["drift/retrain"]) == ("normal", MODEL)


def test_where_nothing_is_due_no_model_is_opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(DUE)
    FLEET.close()
    monkeypatch.setattr(Loop, "catch_up", lambda _: pytest.fail("a model was opened"))
    assert evaluated(DUE) == ([], "no retrain is due")


def test_no_retrain_is_decided_during_maintenance(home: Path) -> None:
    with FLEET.of(SPECS) as (_, fleet):
        now = SystemClock().now()
        operating.announce_maintenance(fleet.loop(SPEC), "ada", "a migration", Window(now - DAY, now + DAY))
    assert evaluated(DUE) == ([], "no retrain is due")
    assert records(home)[-1].event == "maintenance.announced"


def test_yesterdays_reports_are_made_for_each_adopted_model_in_the_normal_lane(home: Path) -> None:
    """`churn` is declared, and nobody adopted it."""
    (request,), _ = evaluated(DAILY)
    assert request.partition_key == "2026-05-31"
    assert request.run_key == f"{MODEL}|2026-05-31"
    assert request.asset_selection == [dg.AssetKey([MODEL, name]) for name in ("telemetry_snapshot", "drift_report")]
    assert (request.tags["drift/lane"], request.tags["drift/model"]) == ("normal", MODEL)


def test_the_night_after_the_adoption_is_the_first_with_a_report(home: Path) -> None:
    began = date.fromisoformat(day(REFERENCE))
    night = datetime(began.year, began.month, began.day, 0, 10, tzinfo=UTC)
    assert evaluated(DAILY, night) == ([], "no model was watched yesterday")
    (request,), _ = evaluated(DAILY, night + DAY)
    assert request.partition_key == day(REFERENCE)


def test_days_begin_with_the_first_that_can_have_a_report_and_not_before_since(home: Path) -> None:
    assert first_day(SPEC) == date.fromisoformat(day(REFERENCE))
    later = date(2026, 4, 1)
    assert first_day(SPEC.model_copy(update={"since": later})) == later
    assert first_day(SPECS["churn"]) == SPECS["churn"].since  # nobody adopted it


def test_without_a_home_days_begin_as_the_spec_says(tmp_path: Path) -> None:
    with at_home(tmp_path):
        assert first_day(SPEC) == SPEC.since
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("schedule", [DUE, DAILY], ids=lambda schedule: schedule.name)
def test_without_a_home_a_schedule_says_what_to_do(tmp_path: Path, schedule: dg.ScheduleDefinition) -> None:
    with at_home(tmp_path):
        requests, told = evaluated(schedule)
    assert (requests, "drift adopt" in told) == ([], True)


def test_models_whose_days_begin_at_different_dates_share_the_daily_schedule(tmp_path: Path) -> None:
    """What one asset job of ours could not hold."""
    specs = {
        name: ModelSpec.model_validate({**ATTRIBUTES, "name": name, "since": since})
        for name, since in {MODEL: "2026-01-01", "churn": "2026-05-01"}.items()
    }
    days = [dg.AssetKey([MODEL, name]) for name in ("telemetry_snapshot", "drift_report")]
    with at_home(copied(tmp_path / "home")), dg.DagsterInstance.ephemeral() as instance:
        result = (
            located(specs)
            .get_job(ALL_ASSETS)
            .execute_in_process(asset_selection=days, partition_key=day(REFERENCE + 8), instance=instance)
        )
    assert result.success


def test_nothing_is_deleted_before_somebody_starts_the_schedule() -> None:
    assert NIGHTLY.default_status is dg.DefaultScheduleStatus.STOPPED
    (request,), _ = evaluated(NIGHTLY)
    assert request.run_config == {"ops": {"delete_old": {"config": {"apply": True}}}}
