"""Sensors, each one for all models: the loop's tick, the rollouts' own, documents, and what becomes of a failed run."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg

from drift_pipeline.components.elsewhere import Elsewhere
from drift_pipeline.components.home import CHANNELS, DOCUMENTS, FLEET, Specs
from drift_pipeline.components.isolation import placed
from drift_pipeline.components.jobs import RETRAIN_JOB, SUBMIT_ROLLOUT, retrain_job
from drift_pipeline.components.lanes import (
    CANDIDATE,
    CLAIMED,
    DECISION,
    HOTFIX,
    MODEL,
    NORMAL,
    SUBMIT,
    TRACE,
    retrain_tags,
    steps_apart,
)
from drift_pipeline.components.lineage import lineage_sensor
from drift_pipeline.components.today import Today
from drift_pipeline.components.told import MOST_MODELS, told_ticks
from drift_pipeline.components.traces import traces_sensor
from drift_pipeline.components.training import TRAINING
from drift_pipeline.components.wandb import wandb_sensor
from drift_pipeline.control.traces import key_of_retrain, trace_id
from drift_pipeline.errors import DriftError
from drift_pipeline.loop import Loop, Ticked
from drift_pipeline.loop.failed import Failed
from drift_pipeline.loop.fleet import Fleet
from drift_pipeline.loop.home import Home, none_adopted
from drift_pipeline.loop.queue import WANTED
from drift_pipeline.observability.otel import wanted
from drift_pipeline.settings import Settings

NONE_DUE = "no model is due yet"
NONE_ADOPTED = "no model is adopted yet: run drift adopt MODEL --data HISTORY"
MOST_TOLD = 300  # letters of a reason
# Of an evaluation, its wait for another one included, after which no other model begins; Dagster ends one at 60 s
TICK_S, ROLLOUT_S, DOCUMENTS_S = 2.0, 1.5, 3.0
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_UNFINISHED = [status for status in dg.DagsterRunStatus if status not in _ENDED]


def loop_sensors(specs: Specs, submit_rollout: dg.JobDefinition) -> list[dg.SensorDefinition]:
    """All of them, for the models of this code location."""
    settings = Settings()
    soon, often = max(settings.tick_seconds // 6, 1), max(settings.tick_seconds // 3, 1)
    tick = _loop_tick(specs, settings, soon, submit_rollout)
    tellers = [_documents(specs, often), *([_alerts(soon)] if settings.alerts_file else [])]
    tellers += [lineage_sensor(specs), *([wandb_sensor()] if settings.registry_kind == "wandb" else [])]
    tellers += [traces_sensor()] if wanted() else []
    return [tick, _rollout_tick(specs, soon), *tellers, *_ended_badly(specs)]


def _loop_tick(specs: Specs, settings: Settings, often: int, submit_rollout: dg.JobDefinition) -> dg.SensorDefinition:
    today, elsewhere = Today(), Elsewhere()
    every = 0.9 * (settings.tick_seconds - 1)  # an evaluation may come a little early

    @dg.sensor(
        jobs=[retrain_job(settings.executor), submit_rollout],
        minimum_interval_seconds=often,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Every model's tick: profile what landed, judge it, ask the policy, then launch what was decided. "
        f"It observes drift_report each hour and when a verdict changes. A model is due each {settings.tick_seconds} "
        "seconds; an evaluation ticks as many as it has time for, those that waited longest first.",
    )
    def loop_tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        made, seen = _Made(), list[tuple[Ticked, Mapping[str, Any]]]()
        ended = time.monotonic() + TICK_S
        try:
            with FLEET.of(specs) as (at, fleet):
                ticked = fleet.tick(inline=False, seconds=ended - time.monotonic(), every=every)
                none = none_adopted(at.store, at.settings, specs)
                made.failed, now = _failures(ticked), at.clock.now()
                today.begin()
                for one in ticked:
                    if isinstance(one, Ticked):
                        try:
                            loop = fleet.loop(specs[one.model])
                            loop.queue.keep(partial(_waits, context.instance))
                            seen.append((one, loop.session.memory.seen))
                            made.requests += requests_of(loop, context.instance)
                            made.observed += [
                                *elsewhere.untold(loop, context.instance),
                                *today.news(loop, at.settings),
                            ]
                        except Exception as error:  # the edge between models, as in the fleet
                            made.failed[one.model] = f"{type(error).__name__}: {error}"
                wait = [f"{fleet.waiting} models wait for the next tick"] if fleet.waiting else []
        except DriftError as error:
            return dg.SensorResult(skip_reason=str(error))
        if not ticked:
            return dg.SensorResult(skip_reason=NONE_ADOPTED if none else NONE_DUE)
        return _told(context, "; ".join([*([told_ticks(seen, now)] if seen else []), *wait]), made)

    return loop_tick


def _rollout_tick(specs: Specs, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        job=retrain_job(Settings().executor),
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="What cannot wait for the next loop_tick: hotfixes are launched, and the rollouts under way take "
        "one step forward or back, where evidence and approvals say so.",
    )
    def rollout_tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        ended = time.monotonic() + ROLLOUT_S
        try:
            with FLEET.of(specs) as (at, fleet):
                urgent = hotfixes_of(at, fleet, specs, context.instance)
                ticked = fleet.advance(seconds=ended - time.monotonic())
        except DriftError as error:
            return dg.SensorResult(skip_reason=str(error))
        return _told(context, _rollouts_told(ticked), _Made(urgent, _failures(ticked)))

    return rollout_tick


def _documents(specs: Specs, seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes again the cards and annexes that are older than what they tell, and commits what waits for "
        "the GitOps repository. It launches nothing, and the ticks do not wait for it.",
    )
    def documents(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            with DOCUMENTS.of(specs) as (_, fleet):
                failed = fleet.document(seconds=DOCUMENTS_S)
        except DriftError as error:
            return dg.SensorResult(skip_reason=str(error))
        done = "" if failed else "the documents tell what the audit holds"
        return _told(context, done, _Made(failed=_failures(failed)))

    return documents


def _alerts(seconds: int) -> dg.SensorDefinition:
    @dg.sensor(
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the channels of DRIFT_ALERTS what is new to them. It launches nothing, and the ticks do not "
        "wait for it; drift alerts list says how far each channel came.",
    )
    def alerts(_context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            CHANNELS.deliver()
        except DriftError as error:
            return dg.SkipReason(str(error))
        return dg.SkipReason("each channel was told what is new to it, or is tried again: see drift alerts list")

    return alerts


def _ended_badly(specs: Specs) -> list[dg.SensorDefinition]:
    @dg.run_failure_sensor(
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A retrain failed and no retry is left: its decision is not wanted any more, and its owner is "
        "paged. An empty result means that no run failed.",
    )
    def retrain_failed(context: dg.RunFailureSensorContext) -> None:
        if context.dagster_run.tags.get("dagster/will_retry") != "true":
            told = "; ".join(map(_why, context.get_step_failure_events()))
            give_up(specs, context.instance, context.dagster_run, told or context.failure_event.message or "it failed")

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.CANCELED,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A retrain was cancelled in Dagster: its decision is not wanted any more. An empty result means "
        "that no run was cancelled.",
    )
    def retrain_canceled(context: dg.RunStatusSensorContext) -> None:
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
                job_name=SUBMIT_ROLLOUT,
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
    """None where another system runs the steps: the tick submits them, and tells of their end."""
    if loop.following.outside:
        return
    for body in loop.queue.wanted():
        if body["lane"] == lane and not under_way(instance, body["decision"]):
            yield retrain_request(loop.spec.name, body)


def retrain_request(model: str, body: Mapping[str, Any]) -> dg.RunRequest:
    """The run of a decision. One that is taken over, since nothing was heard of the last, has a key of its own."""
    taken_over = [str(body["tries"])] if body.get("tries") else []
    settings = Settings()
    trace = trace_id(settings.environment, model, key_of_retrain(body))
    return dg.RunRequest(
        run_key="|".join([model, body["incident"], body["decision"], *taken_over]),
        job_name=RETRAIN_JOB,
        asset_selection=[dg.AssetKey([model, name]) for name in TRAINING],
        run_config=placed(settings, body["lane"], body.get("capacity")),
        tags={**retrain_tags(model, body["decision"], body["lane"], body.get("capacity")), TRACE: trace},
    )


def under_way(instance: dg.DagsterInstance, decision_id: str) -> bool:
    """Whether a run of the decision waits or works, whoever launched it."""
    return instance.get_runs_count(dg.RunsFilter(tags={DECISION: decision_id}, statuses=_UNFINISHED)) > 0


def _waits(instance: dg.DagsterInstance, holder: str) -> bool:
    """Whether it is a run that goes on while no step of it works: the next one's pod waits for a node."""
    run = instance.get_run_by_id(holder)
    if run is None or run.is_finished or not steps_apart(run):
        return False
    return all(step.partial_attempt_start is None for step in instance.get_run_step_stats(holder))


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


@dataclass
class _Made:
    """What comes of an evaluation: runs, why a model's was not to its end, and what is observed of assets."""

    requests: list[dg.RunRequest] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    observed: list[dg.AssetObservation | dg.AssetMaterialization] = field(default_factory=list)


def _rollouts_told(ticked: Iterable[Ticked | Failed]) -> str:
    moved = {one.model: one.moved for one in ticked if isinstance(one, Ticked)}
    told = [f"{model} is in {phase}" if phase else f"{model} stays where it is" for model, phase in moved.items()]
    more = len(told) - MOST_MODELS
    return "; ".join([*told[:MOST_MODELS], *([f"and {more} more"] if more > 0 else [])]) or "no rollout is under way"


def _told(context: dg.SensorEvaluationContext, done: str, made: _Made) -> dg.SensorResult:
    """What failed is logged, and stands in the cursor, which the UI shows beside the runs that were launched."""
    for model, reason in made.failed.items():
        context.log.warning(f"{model}: {reason}")
    cursor = json.dumps({model: reason[:MOST_TOLD] for model, reason in made.failed.items()})
    if made.requests:
        context.log.info(done)
        return dg.SensorResult(run_requests=made.requests, asset_events=made.observed, cursor=cursor)
    not_done = [f"{model}: {reason[:MOST_TOLD]}" for model, reason in made.failed.items()]
    told = "; ".join(filter(None, [done, *not_done]))
    return dg.SensorResult(skip_reason=told, asset_events=made.observed, cursor=cursor)


def _why(event: dg.DagsterEvent) -> str:
    """What a step said when it failed, in one line."""
    failed = event.step_failure_data
    told = failed.user_failure_data.description if failed.user_failure_data else None
    return f"{event.step_key}: {told or (failed.error.message.strip() if failed.error else '')}"
