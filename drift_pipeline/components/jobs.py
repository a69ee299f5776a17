"""Jobs: the retrain, which sensors launch, and what people do to a rollout from Dagster's launchpad."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg
from pydantic import Field

from drift_pipeline.clock import HOUR
from drift_pipeline.components.home import actor_of, home
from drift_pipeline.components.lanes import FAST, LANE, NORMAL, SUBMIT
from drift_pipeline.components.training import TRAINING_HALF
from drift_pipeline.errors import DriftError, InputError
from drift_pipeline.loop import Loop, operating
from drift_pipeline.loop.home import model_of, models_of
from drift_pipeline.loop.retention import past_retention, retain
from drift_pipeline.policy.decide import Action
from drift_pipeline.settings import Settings

LONGEST = 6 * HOUR  # that a retrain may take

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.tag(*TRAINING_HALF),
    description="One model's training half for one decision of the policy. The sensors launch it with that model's "
    "assets; to ask for a retrain by hand, launch retrain_now or materialise training_dataset.",
    tags={"dagster/max_retries": "2", "dagster/max_runtime": str(int(LONGEST.total_seconds()))},
)


class Submission(dg.Config):
    """Which candidate is to be rolled out."""

    model: str = Field(description="The model's name, as in its defs.yaml.")
    digest: str = Field(description="The candidate's bundle, as evaluation and registered_model show it.")


class Request(dg.Config):
    """What somebody wants, and why."""

    model: str = Field(description="The model's name, as in its defs.yaml.")
    reason: str = Field(description="Why; it stands in the audit.")


class Return(Request):
    """Where to go back from, and why."""

    champion: bool = Field(default=False, description="Also where the last rollout was rolled back already.")


class RetrainRequest(Request):
    """A retrain that somebody wants, and why."""

    hotfix: bool = Field(default=False, description="In the fast lane, past the cooldown and beside a long retrain.")


@contextmanager
def _loop(model: str, context: dg.OpExecutionContext) -> Iterator[Loop]:
    """The model's loop, not resumed: a rollback does not wait for that."""
    with home(context.run) as at:
        spec = model_of(Settings(), model)
        yield at.loop(spec)
        with suppress(DriftError):  # what was done stands; the next tick writes the card, or tells why it cannot
            at.document(spec)


@dg.op
def begin_rollout(context: dg.OpExecutionContext, config: Submission) -> None:
    """Begin the rollout of a candidate whose gates passed, in shadow."""
    with _loop(config.model, context) as loop:
        loop.catch_up()
        if not loop.release(config.digest, actor_of(context)):
            raise InputError(f"{config.model}: a rollout is under way already; end it first, or wait")
    context.log.info(f"{config.model}: {config.digest} is in shadow")


@dg.op
def hurry_rollout(context: dg.OpExecutionContext, config: Request) -> None:
    """The rollout's next step now; evidence and approvals count as ever."""
    with _loop(config.model, context) as loop:
        moved = operating.promote(loop, actor_of(context), config.reason)
    context.log.info(f"{moved.rollout_id} is in {moved.phase}")


@dg.op
def roll_back(context: dg.OpExecutionContext, config: Return) -> None:
    """Back at once: no policy is asked."""
    with _loop(config.model, context) as loop:
        moved = operating.roll_back(loop, actor_of(context), config.reason, champion=config.champion)
    context.log.info(f"{moved.rollout_id} is rolled back; {moved.champion} answers")


@dg.op
def ask_for_retrain(context: dg.OpExecutionContext, config: RetrainRequest) -> None:
    """Ask the policy; a run of the job `retrain` comes of it where it agrees."""
    with _loop(config.model, context) as loop:
        decision_id, decision = operating.retrain(loop, actor_of(context), config.reason, hotfix=config.hotfix)
        told = "; ".join(decision.reasons)
        if decision.action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN):
            raise InputError(f"{config.model}: {decision_id} {decision.action}: {told}")
    context.log.info(f"{config.model}: {decision_id} {decision.action}: {told}; loop_tick launches it")


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


@dg.job(tags=SUBMIT)
def submit_rollout() -> None:
    """Begin the rollout of a candidate whose gates passed; loop_tick does this for what it retrained."""
    begin_rollout()


@dg.job(tags=FAST)
def promote() -> None:
    """Take a model's rollout its next step without waiting for the time of its phase."""
    hurry_rollout()


@dg.job(tags=FAST)
def rollback() -> None:
    """Stop a model's rollout or, where none is under way, go back to the version before."""
    roll_back()


@dg.job(tags=FAST)
def retrain_now() -> None:
    """Ask for a retrain of a model, or for a hotfix."""
    ask_for_retrain()


OPERATING = (submit_rollout, promote, rollback, retrain_now)
