"""Jobs: the retrain, which sensors launch, and what people do to a rollout from Dagster's launchpad."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import dagster as dg
from pydantic import Field

from drift_pipeline.clock import HOUR
from drift_pipeline.components.home import Specs, actor_of, home
from drift_pipeline.components.isolation import isolation
from drift_pipeline.components.lanes import FAST, LANE, NORMAL, SUBMIT
from drift_pipeline.components.training import TRAINING_HALF
from drift_pipeline.errors import DriftError, InputError
from drift_pipeline.loop import Loop, operating
from drift_pipeline.loop.home import model_of, models_of
from drift_pipeline.loop.retention import past_retention, retain
from drift_pipeline.policy.decide import Action
from drift_pipeline.settings import Settings

SUBMIT_ROLLOUT, RETRAIN_JOB = "submit_rollout", "retrain"
LONGEST = 6 * HOUR  # that a retrain may take


@cache
def retrain_job(executor: str) -> Any:
    """The job of one model's training half, one and the same for all who launch it; `executor` as in the settings.

    Raises InputError where dagster-k8s is asked for and not installed.
    """
    return dg.define_asset_job(
        RETRAIN_JOB,
        selection=dg.AssetSelection.tag(*TRAINING_HALF),
        description="One model's training half for one decision of the policy. The sensors launch it with that model's "
        "assets; to ask for a retrain by hand, launch retrain_now or materialise training_dataset.",
        tags={"dagster/max_retries": "2", "dagster/max_runtime": str(int(LONGEST.total_seconds()))},
        **isolation(executor),
    )


_DIGEST = dg.Field(str, description="The candidate's bundle, as evaluation and registered_model show it.")
_REASON = dg.Field(str, description="Why; it stands in the audit.")
_CHAMPION = dg.Field(bool, False, description="Also where the last rollout was rolled back already.")
_HOTFIX = dg.Field(bool, False, description="In the fast lane, past the cooldown and beside a long retrain.")
_STEPS = dg.Field([str], default_value=[], description="Of a graph, the steps that are trained; none named = all.")


def operating_jobs(specs: Specs) -> list[dg.JobDefinition]:
    """What people do to a rollout from the launchpad, each for one of the models of this code location."""
    verbs = (submit_rollout, promote, rollback, retrain_now)
    return [verb(_choice(specs)) for verb in verbs]


def _choice(specs: Specs) -> dg.Field:
    """The model, of those that are declared; given already where there is only one."""
    models = dg.Enum("Model", [dg.EnumValue(name, description=spec.owner) for name, spec in specs.items()])
    told = "The model's name, as in its defs.yaml."
    return (
        dg.Field(models, next(iter(specs)), description=told) if len(specs) == 1 else dg.Field(models, description=told)
    )


@contextmanager
def _loop(context: dg.OpExecutionContext) -> Iterator[Loop]:
    """The loop of the model that was chosen, not resumed: a rollback does not wait for that."""
    with home(context.run) as at:
        spec = model_of(Settings(), context.op_config["model"])
        yield at.loop(spec)
        with suppress(DriftError):  # what was done stands; the next tick writes the card, or tells why it cannot
            at.document(spec)


def submit_rollout(model: dg.Field) -> dg.JobDefinition:
    @dg.op(config_schema={"model": model, "digest": _DIGEST})
    def begin_rollout(context: dg.OpExecutionContext) -> None:
        """Begin the rollout of a candidate whose gates passed, in shadow."""
        digest = context.op_config["digest"]
        with _loop(context) as loop:
            loop.catch_up()
            if not loop.release(digest, actor_of(context)):
                raise InputError(f"{loop.spec.name}: a rollout is under way already; end it first, or wait")
            context.log.info(f"{loop.spec.name}: {digest} is in shadow")

    @dg.job(name=SUBMIT_ROLLOUT, tags=SUBMIT)
    def submit() -> None:
        """Begin the rollout of a candidate whose gates passed; loop_tick does this for what it retrained."""
        begin_rollout()

    return submit


def promote(model: dg.Field) -> dg.JobDefinition:
    @dg.op(config_schema={"model": model, "reason": _REASON})
    def hurry_rollout(context: dg.OpExecutionContext) -> None:
        """The rollout's next step now; evidence and approvals count as ever."""
        reason, actor = context.op_config["reason"], actor_of(context)
        with _loop(context) as loop:
            moved = operating.retried(lambda: operating.promote(loop, actor, reason))
        context.log.info(f"{moved.rollout_id} is in {moved.phase}")

    @dg.job(name="promote", tags=FAST)
    def job() -> None:
        """Take a model's rollout its next step without waiting for the time of its phase."""
        hurry_rollout()

    return job


def rollback(model: dg.Field) -> dg.JobDefinition:
    @dg.op(config_schema={"model": model, "reason": _REASON, "champion": _CHAMPION})
    def roll_back(context: dg.OpExecutionContext) -> None:
        """Back at once: no policy is asked."""
        reason, champion = context.op_config["reason"], context.op_config["champion"]
        with _loop(context) as loop:
            moved = operating.roll_back(loop, actor_of(context), reason, champion=champion)
        context.log.info(f"{moved.rollout_id} is rolled back; {moved.champion} answers")

    @dg.job(name="rollback", tags=FAST)
    def job() -> None:
        """Stop a model's rollout or, where none is under way, go back to the version before."""
        roll_back()

    return job


def retrain_now(model: dg.Field) -> dg.JobDefinition:
    @dg.op(config_schema={"model": model, "reason": _REASON, "hotfix": _HOTFIX, "steps": _STEPS})
    def ask_for_retrain(context: dg.OpExecutionContext) -> None:
        """Ask the policy; a run of the job `retrain` comes of it where it agrees."""
        reason, hotfix, steps = (context.op_config[name] for name in ("reason", "hotfix", "steps"))
        actor = actor_of(context)
        with _loop(context) as loop:
            decision_id, decision = operating.retried(
                lambda: operating.retrain(loop, actor, reason, hotfix=hotfix, steps=steps)
            )
            told = "; ".join(decision.reasons)
            if decision.action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN):
                raise InputError(f"{loop.spec.name}: {decision_id} {decision.action}: {told}")
        context.log.info(f"{loop.spec.name}: {decision_id} {decision.action}: {told}; loop_tick launches it")

    @dg.job(name="retrain_now", tags=FAST)
    def job() -> None:
        """Ask for a retrain of a model, or for a hotfix."""
        ask_for_retrain()

    return job


class Deletion(dg.Config):
    """Whether what is past its time really goes."""

    apply: bool = Field(default=False, description="Delete it; else only tell what would go.")


@dg.op
def delete_old(context: dg.OpExecutionContext, config: Deletion) -> None:
    """Telemetry past each spec's retention, and many small files; documents and the audit are never deleted."""
    with home(context.run) as at:
        failed = list[DriftError]()
        for spec in models_of(Settings()).values():
            try:
                old = retain(at, spec, actor_of(context)) if config.apply else past_retention(at, spec)
            except DriftError as error:  # one model's lake; the others' rows are past their time all the same
                context.log.error(f"{spec.name}: {error}")
                failed.append(error)
                continue
            rows = ", ".join(f"{table} {count:,}" for table, (count, _) in old.tables.items()) or "nothing"
            done = "deleted" if config.apply else "would go"
            context.log.info(f"{spec.name}: before {old.before}: {rows} {done}")
        if failed:
            raise failed[0]


@dg.job(tags={LANE: NORMAL})
def retention() -> None:
    """Tell what telemetry is past its time or, with `apply`, delete it and merge small files."""
    delete_old()
