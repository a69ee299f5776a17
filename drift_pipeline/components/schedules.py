"""Schedules, each one for all models: the retrain that a spec's calendar says is due, and yesterday's reports."""

import time
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from drift_pipeline.components.home import FLEET, Specs
from drift_pipeline.components.jobs import retention, retrain_job
from drift_pipeline.components.lanes import ALL_ASSETS, LANE, MODEL, NORMAL
from drift_pipeline.components.monitoring import MONITORING
from drift_pipeline.components.partitions import watched_since
from drift_pipeline.components.sensors import NONE_ADOPTED, TICK_S
from drift_pipeline.errors import DriftError
from drift_pipeline.loop import Loop
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec


def loop_schedules(specs: Specs) -> list[dg.ScheduleDefinition]:
    """All of them, for the models of this code location."""
    return [_retrain_when_due(specs), _report_yesterday(specs), delete_past_retention]


def _retrain_when_due(specs: Specs) -> dg.ScheduleDefinition:
    @dg.schedule(
        job=retrain_job(Settings().executor),
        cron_schedule="*/10 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Ask the policy for each model whose retrain.cron came due, once for each time; what it agrees to "
        "is wanted, and loop_tick launches it.",
    )
    def retrain_when_due(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        """Ask the policy for each model whose `retrain.cron` came due, once for each time.

        One schedule looks at every model: a hundred schedules would be a hundred evaluations to keep alive, and what
        came due while the daemon was down, or finds no time now, is caught up. What the policy agrees to is wanted, and
        loop_tick launches it: two that launch would launch twice.
        """
        told, ended = list[str](), time.monotonic() + TICK_S
        try:
            with FLEET.of(specs) as (at, fleet):
                for spec in specs.values():
                    if time.monotonic() < ended and at.store.get("model", spec.name) is not None:
                        try:
                            told += _due(fleet.loop(spec))
                        except Exception as error:  # the edge between models, as in the fleet
                            context.log.warning(f"{spec.name}: {type(error).__name__}: {error}")
                            told.append(f"{spec.name}: {type(error).__name__}: {error}")
        except DriftError as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("; ".join(told) or "no retrain is due")

    return retrain_when_due


def _report_yesterday(specs: Specs) -> dg.ScheduleDefinition:
    @dg.schedule(
        job_name=ALL_ASSETS,
        cron_schedule="10 0 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Materialises telemetry_snapshot and drift_report of the day that has ended, one run for each "
        "adopted model. What a model looks like today, loop_tick observes.",
    )
    def report_yesterday(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        yesterday = context.scheduled_execution_time.date() - timedelta(days=1)
        try:
            with FLEET.of(specs) as (at, _):
                begun = {name: watched_since(at.store, name) for name in specs}
        except DriftError as error:
            return dg.SkipReason(str(error))
        adopted = [(specs[name], max(first, specs[name].since)) for name, first in begun.items() if first is not None]
        requests = [_report(spec, yesterday.isoformat()) for spec, first in adopted if first <= yesterday]
        return requests or dg.SkipReason("no model was watched yesterday" if adopted else NONE_ADOPTED)

    return report_yesterday


@dg.schedule(
    job=retention,
    cron_schedule="20 2 * * *",
    execution_timezone="UTC",
    description="Deletes telemetry that is past its retention, each night, once somebody has seen a dry run of the job "
    "retention and started this schedule.",
)
def delete_past_retention() -> dg.RunRequest:
    """Each night, once somebody has seen a dry run of the job `retention` and started this schedule."""
    return dg.RunRequest(run_config={"ops": {"delete_old": {"config": {"apply": True}}}})


def _due(loop: Loop) -> Iterator[str]:
    """What the policy decided, in words. Most hours nothing is due, and no model is opened for it."""
    if loop.deciding.due() is None or loop.pauses.in_maintenance():
        return
    loop.catch_up()
    decided = loop.decide_schedule(loop.look())
    if decided is not None:
        yield f"{decided[0]} {decided[1].action}: {', '.join(decided[1].reasons)}"


def _report(spec: ModelSpec, day: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{spec.name}|{day}",
        partition_key=day,
        asset_selection=[dg.AssetKey([spec.name, name]) for name in MONITORING],
        tags={MODEL: spec.name, LANE: NORMAL},
    )
