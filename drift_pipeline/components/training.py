"""The training half of a model's graph.

training_dataset -> candidate_model -> evaluation -> registered_model -> audit_artifacts.

What one asset hands to the next is in the control store and the registry, so each may be materialised alone. A run
that carries out a decision has its id as a tag, and works for that decision and no other.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from drift_pipeline.components.home import actor_of, home, loop_of, tags_of
from drift_pipeline.components.lanes import CLAIMED, DECISION, MODEL
from drift_pipeline.components.tables import gates_table
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop import Loop, operating
from drift_pipeline.loop.releasing.starting import register
from drift_pipeline.policy.decide import Action
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

TRAINING = ("training_dataset", "candidate_model", "evaluation", "registered_model", "audit_artifacts")
TRAINING_HALF = "drift/half", "training"  # the tag of its assets, by which the job `retrain` finds them
AUDIT = "audit_chain"


def training_assets(spec: ModelSpec) -> Sequence[dg.AssetsDefinition]:
    """All five, unpartitioned: a training looks back over many days."""
    owners, group, kpi = [spec.owner], spec.name, performance_of(spec).kpi
    half = dict([TRAINING_HALF])

    def key(name: str) -> dg.AssetKey:
        return dg.AssetKey([spec.name, name])

    @dg.asset(
        key=key("training_dataset"),
        deps=[key("telemetry")],
        kinds={"deltalake", "opa"},
        owners=owners,
        group_name=group,
        tags=half,
    )
    def training_dataset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The labelled rows that are to train and to prove the next candidate, pinned by window and Delta version.

        Materialised by hand it is an operator's request to retrain: the policy is asked, and may refuse.
        """
        with loop_of(spec, context) as loop:
            decision_id = tags_of(context).get(DECISION) or _asked(loop, actor_of(context))
            _claim(context, loop, decision_id)
            pinned = loop.pin(decision_id, loop.look())
            if pinned is None:
                raise InputError("no training: the reason is in the audit record training.refused")
        return dg.MaterializeResult(
            metadata={
                "version": pinned.version,
                "decision": decision_id,
                "dagster/row_count": pinned.rows,
                "rows_that_prove": pinned.block_rows,
                "proven_from": pinned.block_from.isoformat(),
                **{f"delta_version_{table}": version for table, version in pinned.versions.items()},
            }
        )

    @dg.asset(
        key=key("candidate_model"),
        deps=[training_dataset],
        kinds={"scikitlearn", "optuna"},
        owners=owners,
        group_name=group,
        tags=half,
    )
    def candidate_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """A pipeline searched by Optuna forward in time and fitted on the older rows; a bundle in the registry."""
        with loop_of(spec, context) as loop:
            pinned = loop.trainings.pinned(tags_of(context).get(DECISION))
            trained = loop.fit(pinned)
            if trained is None or trained.digest is None:
                raise InputError("nothing was trained: the reason is in the audit record training.refused")
            record = loop.trainings.candidate(trained.digest)
        cost = {f"cost_{name}": value for name, value in record["cost"].items()}
        return dg.MaterializeResult(metadata={"version": trained.version, "bundle": trained.digest, **cost})

    @dg.asset(
        key=key("evaluation"),
        deps=[candidate_model],
        kinds={"scikitlearn"},
        check_specs=[
            dg.AssetCheckSpec(name, asset=key("evaluation"), blocking=True, description=f"The gate {name} passed.")
            for name in gate_names(spec)
        ],
        owners=owners,
        group_name=group,
        tags=half,
    )
    def evaluation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The candidate held to its gates, beside the champion, on rows that neither was trained on."""
        with loop_of(spec, context) as loop:
            training = loop.prove(loop.trainings.pinned(tags_of(context).get(DECISION)))
            record = loop.trainings.candidate(training.digest)
        return dg.MaterializeResult(
            metadata={
                "version": training.version,
                "passed": training.accepted,
                f"{kpi}_champion": training.before or "unknown",
                f"{kpi}_candidate": training.after or "unknown",
                "gates": gates_table(record["results"]),
            },
            check_results=[_checked(result) for result in record["results"]],
        )

    @dg.asset(
        key=key("registered_model"), deps=[evaluation], kinds={"skops"}, owners=owners, group_name=group, tags=half
    )
    def registered_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The version that may be shipped. It reads the gates' record in the control store again, and refuses
        without it, whatever the checks in this UI say.
        """
        with loop_of(spec, context) as loop:
            registered = register(loop.rollouts, loop.trainings.trained(tags_of(context).get(DECISION)))
        return dg.MaterializeResult(
            metadata={
                "version": registered.name,
                "bundle": registered.digest,
                "next": f'drift approve {spec.name} {registered.name} --key KEY --reason "..."',
            }
        )

    @dg.asset(
        key=key("audit_artifacts"),
        deps=[registered_model],
        kinds={"markdown"},
        check_specs=[
            dg.AssetCheckSpec(
                AUDIT, asset=key("audit_artifacts"), description="The audit chain and every artefact it names verify."
            )
        ],
        owners=owners,
        group_name=group,
        tags=half,
    )
    def audit_artifacts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The model card from facts, with the approvals that were given, valid or not; and the audit verified."""
        with loop_of(spec, context) as loop, home(context.run) as at:
            digest = register(loop.rollouts, loop.trainings.trained(tags_of(context).get(DECISION))).digest
            made = write_documents(Settings(), at.store, at.registry, loop.spec, digest, loop.clock.now())
            audited = verify_home(Settings())
        markdown = (made.folder / "card.md").read_text(encoding="utf-8")
        return dg.MaterializeResult(
            metadata={
                "card": dg.MetadataValue.md(markdown),
                "page": dg.MetadataValue.path((made.folder / "card.html").absolute()),
                "status": made.card.status,
                **{f"sha256_{name.replace('.', '_')}": digest for name, digest in made.files.items()},
            },
            check_results=[
                dg.AssetCheckResult(
                    passed=audited.ok,
                    check_name=AUDIT,
                    description=audited.reason or f"{audited.records} records verified",
                    metadata={"records": audited.records, "covered_by_checkpoint": audited.covered},
                )
            ],
        )

    return [training_dataset, candidate_model, evaluation, registered_model, audit_artifacts]


def _asked(loop: Loop, actor: str) -> str:
    """The decision that comes of asking the policy for a retrain. Raises InputError where it refuses."""
    decision_id, decision = operating.retrain(loop, actor, "materialised in Dagster")
    if decision.action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN):
        raise InputError(f"the policy refuses: {'; '.join(decision.reasons)}")
    return decision_id


def _claim(context: dg.AssetExecutionContext, loop: Loop, decision_id: str) -> None:
    """Take the decision for this run; a retry of the run that took it, which has its tags, goes on with a new lease."""
    ours = tags_of(context).get(CLAIMED) == decision_id
    if not (loop.queue.renew(decision_id) if ours else loop.queue.claim(decision_id)):
        raise InputError(f"{decision_id} is another run's, or done; {loop.spec.name}'s audit tells whose")
    tags = {MODEL: loop.spec.name, DECISION: decision_id, CLAIMED: decision_id}
    context.instance.add_run_tags(context.run.run_id, tags)


def gate_names(spec: ModelSpec) -> list[str]:
    """The checks of `evaluation`; a check's name has letters, digits and underscores only."""
    parity = [f"parity_{column}" for column in spec.protected] if spec.kpis.demographic_parity else []
    return [performance_of(spec).kpi, *map(check_name, parity), "latency", "poison_floor"]


def check_name(gate: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in gate)


def _checked(result: dict[str, Any]) -> dg.AssetCheckResult:
    """UNKNOWN blocks like FAIL."""
    numbers = {name: result[name] for name in ("value", "bound", "limit") if result[name] is not None}
    return dg.AssetCheckResult(
        passed=result["outcome"] == "pass",
        check_name=check_name(result["name"]),
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{result['outcome']}: {result['reason']}",
        metadata=numbers,
    )
