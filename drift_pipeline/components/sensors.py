"""Sensors, each one for all models: the loop's tick, the rollouts' own, and what becomes of a run that failed."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from drift_pipeline.components.home import FLEET, Specs
from drift_pipeline.components.jobs import retrain, submit_rollout
from drift_pipeline.components.lanes import (
    CANDIDATE,
    CLAIMED,
    DECISION,
    HOTFIX,
    MODEL,
    NORMAL,
    SUBMIT,
    retrain_tags,
)
from drift_pipeline.components.training import TRAINING
from drift_pipeline.errors import DriftError
from drift_pipeline.loop import Loop, Ticked
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.queue import WANTED
from drift_pipeline.settings import Settings

NONE_ADOPTED = "no model is adopted yet: run drift adopt MODEL --data HISTORY"
MOST_TOLD = 300  # letters of a reason
TICK_S, ROLLOUT_S = 8.0, 4.0  # of an evaluation, after which no other model begins; Dagster ends one at 60 s
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNFINISHED = [status for status in dg.DagsterRunStatus if status not in _ENDED]


def loop_sensors(specs: Specs) -> list[dg.SensorDefinition]:
    """All of them, for the models of this code location."""
    seconds = Settings().tick_seconds
    return [_loop_tick(specs, seconds), _rollout_tick(specs, max(seconds // 3, 1)), *_ended_badly(specs)]


def _loop_tick(specs: Specs, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        jobs=[retrain, submit_rollout],
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def loop_tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Every model's tick: profile what landed, judge it, ask the policy; then launch what was decided.

        The first ones after a start, or on a machine that is full, are of as many models as there is time for.
        """
        try:
            with FLEET.of(specs) as (_, fleet):
                ticked = fleet.tick(inline=False, seconds=TICK_S)
                failed, requests = _failures(ticked), list[dg.RunRequest]()
                for one in ticked:
                    if isinstance(one, Ticked):
                        try:
                            requests += requests_of(fleet.loop(specs[one.model]), context.instance)
                        except Exception as error:  # the edge between models, as in the fleet
                            failed[one.model] = f"{type(error).__name__}: {error}"
                wait = f", {fleet.waiting} wait for the next tick" if fleet.waiting else ""
        except DriftError as error:
            return dg.SensorResult(skip_reason=str(error))
        if not ticked:
            return dg.SensorResult(skip_reason=NONE_ADOPTED)
        return _told(context, f"{len(ticked)} models ticked{wait}", failed, requests)

    return loop_tick


def _rollout_tick(specs: Specs, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(job=retrain, minimum_interval_seconds=seconds, default_status=dg.DefaultSensorStatus.RUNNING)
    def rollout_tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """What cannot wait for the next loop_tick: hotfixes are launched, and the rollouts under way take one step
        forward or back, where evidence and approvals say so."""
        try:
            with FLEET.of(specs) as (at, fleet):
                urgent = hotfixes_of(at, fleet, specs, context.instance)
                ticked = fleet.advance(seconds=ROLLOUT_S)
        except DriftError as error:
            return dg.SensorResult(skip_reason=str(error))
        moved = [f"{one.model} is in {one.moved}" for one in ticked if isinstance(one, Ticked) and one.moved]
        return _told(context, "; ".join([f"{len(ticked)} rollouts", *moved]), _failures(ticked), urgent)

    return rollout_tick


def _ended_badly(specs: Specs) -> list[dg.SensorDefinition]:
    @dg.run_failure_sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
    def retrain_failed(context: dg.RunFailureSensorContext) -> None:
        """A retrain failed and no retry is left: its decision is not wanted any more, and its owner is paged."""
        if context.dagster_run.tags.get("dagster/will_retry") != "true":
            told = "; ".join(map(_why, context.get_step_failure_events()))
            give_up(specs, context.instance, context.dagster_run, told or context.failure_event.message or "it failed")

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.CANCELED,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def retrain_canceled(context: dg.RunStatusSensorContext) -> None:
        """A retrain was cancelled in Dagster: its decision is not wanted any more."""
        give_up(specs, context.instance, context.dagster_run, "it was cancelled in Dagster")

    return [retrain_failed, retrain_canceled]


def requests_of(loop: Loop, instance: dg.DagsterInstance) -> Iterator[dg.RunRequest]:
    """The runs that a model wants now, without hotfixes; asked again, they have the same run keys."""
    yield from _retrains(loop, instance, NORMAL)
    if (digest := loop.releasable()) is not None:
        tried = instance.get_run_records(dg.RunsFilter(tags={CANDIDATE: digest}))
        if all(record.dagster_run.status in _ENDED for record in tried):
            yield dg.RunRequest(
                run_key=f"{loop.spec.name}|{digest}|{len(tried)}",
                job_name=submit_rollout.name,
                run_config={"ops": {"begin_rollout": {"config": {"model": loop.spec.name, "digest": digest}}}},
                tags={MODEL: loop.spec.name, CANDIDATE: digest, **SUBMIT},
            )


def hotfixes_of(at: Home, fleet: Fleet, specs: Specs, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """The hotfixes that the models want now. Only one sensor asks: each has run keys of its own."""
    found = [record for record in at.store.find("retrain") if record.body["lane"] == HOTFIX]
    models = {record.key.partition("/")[0] for record in found if record.body["status"] == WANTED}
    return [
        one for model in sorted(models & specs.keys()) for one in _retrains(fleet.loop(specs[model]), instance, HOTFIX)
    ]


def _retrains(loop: Loop, instance: dg.DagsterInstance, lane: str) -> Iterator[dg.RunRequest]:
    for body in loop.queue.wanted():
        if body["lane"] == lane and not under_way(instance, body["decision"]):
            yield retrain_request(loop.spec.name, body)


def retrain_request(model: str, body: Mapping[str, Any]) -> dg.RunRequest:
    """The run of a decision. One that is taken over, since nothing was heard of the last, has a key of its own."""
    taken_over = [str(body["tries"])] if body.get("tries") else []
    return dg.RunRequest(
        run_key="|".join([model, body["incident"], body["decision"], *taken_over]),
        job_name=retrain.name,
        asset_selection=[dg.AssetKey([model, name]) for name in TRAINING],
        tags=retrain_tags(model, body["decision"], body["lane"]),
    )


def under_way(instance: dg.DagsterInstance, decision_id: str) -> bool:
    """Whether a run of the decision waits or works, whoever launched it."""
    return instance.get_runs_count(dg.RunsFilter(tags={DECISION: decision_id}, statuses=_UNFINISHED)) > 0


def give_up(specs: Specs, instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    """End the decision of a run that came to nothing, unless somebody else has it or it is of no model here."""
    decision_id, spec = run.tags.get(DECISION), specs.get(run.tags.get(MODEL, ""))
    if decision_id is None or spec is None or under_way(instance, decision_id):
        return
    with FLEET.of(specs) as (_, fleet):
        loop = fleet.loop(spec)
        ours = run.tags.get(CLAIMED) == decision_id
        if ours or decision_id in {body["decision"] for body in loop.queue.wanted()}:
            loop.queue.give_up(decision_id, f"run {run.run_id}: {why}")


def _failures(ticked: Iterable[Ticked | Failed]) -> dict[str, str]:
    return {one.model: one.reason for one in ticked if isinstance(one, Failed)}


def _told(
    context: dg.SensorEvaluationContext, done: str, failed: Mapping[str, str], requests: list[dg.RunRequest]
) -> dg.SensorResult:
    """What failed is logged, and stands in the cursor, which the UI shows beside the runs that were launched."""
    for model, reason in failed.items():
        context.log.warning(f"{model}: {reason}")
    cursor = json.dumps({model: reason[:MOST_TOLD] for model, reason in failed.items()})
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    not_done = [f"{model}: {reason[:MOST_TOLD]}" for model, reason in failed.items()]
    return dg.SensorResult(skip_reason="; ".join([done, *not_done]), cursor=cursor)


def _why(event: dg.DagsterEvent) -> str:
    """What a step said when it failed, in one line."""
    failed = event.step_failure_data
    told = failed.user_failure_data.description if failed.user_failure_data else None
    return f"{event.step_key}: {told or (failed.error.message.strip() if failed.error else '')}"
