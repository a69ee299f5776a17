"""The training half of a model's graph.

training_dataset -> candidate_model -> evaluation -> registered_model -> audit_artifacts.

What one asset hands to the next is in the control store and the registry, so each may be materialised alone. A run
that carries out a decision has its id as a tag, and works for that decision and no other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from drift_pipeline.components.home import actor_of, home, loop_of, tags_of
from drift_pipeline.components.lanes import CLAIMED, DECISION, MODEL, steps_apart
from drift_pipeline.components.links import card, chain, drift_reports, live_page
from drift_pipeline.components.tables import gates_table
from drift_pipeline.components.wandb import wandb_run
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.evidence.mirrored import gates_of, scores, searched
from drift_pipeline.evidence.sbom import keep_sbom
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop import Assignment, Loop, operating
from drift_pipeline.loop.releasing.starting import register
from drift_pipeline.loop.retraining.searching import search
from drift_pipeline.loop.retraining.working import working
from drift_pipeline.policy.decide import Action
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training import envelope
from drift_pipeline.training.scan import ALLOWED, SECRETS
from drift_pipeline.training.trainer_tests import NAME as TRAINER_TESTS
from drift_pipeline.training.trainer_tests import folder_of_tests
from drift_pipeline.training.vulnerabilities import NAME as VULNERABILITIES

TRAINING = ("training_dataset", "candidate_model", "evaluation", "registered_model", "audit_artifacts")
TRAINING_HALF = "drift/half", "training"  # the tag of its assets, by which the job `retrain` finds them
AUDIT = "audit_chain"


def training_assets(spec: ModelSpec) -> Sequence[dg.AssetsDefinition]:
    """All five, unpartitioned: a training looks back over many days."""
    made = (_training_dataset, _candidate_model, _evaluation, _registered_model, _audit_artifacts)
    return [make(spec) for make in made]


def _asset(
    spec: ModelSpec, name: str, after: str, *kinds: str, checks: Sequence[dg.AssetCheckSpec] = ()
) -> Callable[[Callable[[dg.AssetExecutionContext], dg.MaterializeResult]], dg.AssetsDefinition]:
    """What the assets of the half have in common; `after` is what it depends on."""
    return dg.asset(
        key=dg.AssetKey([spec.name, name]),
        deps=[dg.AssetKey([spec.name, after])],
        kinds=set(kinds),
        check_specs=checks,
        owners=[spec.owner],
        group_name=spec.name,
        tags=dict([TRAINING_HALF]),
    )


def _training_dataset(spec: ModelSpec) -> dg.AssetsDefinition:
    @_asset(spec, "training_dataset", "telemetry", "deltalake", "opa")
    def training_dataset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The labelled rows that are to train and to prove the next candidate, pinned by window and Delta version.

        Materialised by hand it is an operator's request to retrain: the policy is asked, and may refuse.
        """
        with loop_of(spec, context) as loop:
            decision_id = tags_of(context).get(DECISION) or _asked(loop, actor_of(context))
            _claim(context, loop, decision_id)
            with working(loop.trainings, decision_id, context.run.run_id):
                pinned = loop.pin(decision_id, loop.look())
            if pinned is None:
                raise InputError("no training: the reason is in the audit record training.refused")
            why = loop.ledger.find(f"retrain/{decision_id}") or {}
        return dg.MaterializeResult(metadata={**_dataset(pinned), **_decided(spec, why)})

    return training_dataset


def _dataset(pinned: Assignment) -> dict[str, Any]:
    return {
        "version": pinned.version,
        "decision": pinned.decision,
        "dagster/row_count": pinned.rows,
        "rows_that_prove": pinned.block_rows,
        "proven_from": pinned.block_from.isoformat(),
        **{f"delta_version_{table}": version for table, version in pinned.versions.items()},
        **{f"source_{name}": value for name, value in pinned.pin.told.items()},
    }


def _decided(spec: ModelSpec, retrain: Mapping[str, Any]) -> dict[str, Any]:
    """Why there is a training at all, and where that can be looked at."""
    told = {name: str(retrain[name]) for name in ("trigger", "incident", "lane") if retrain.get(name)}
    return {
        "because": "; ".join(retrain.get("reasons", ())) or "the reason is in the audit record decision.made",
        **told,
        "seen_in": drift_reports(spec),
        **live_page(Settings(), spec),
    }


def _candidate_model(spec: ModelSpec) -> dg.AssetsDefinition:
    @_asset(spec, "candidate_model", "training_dataset", "scikitlearn", "optuna")
    def candidate_model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """A pipeline searched by Optuna forward in time and fitted on the older rows; a bundle in the registry.

        Where a step may lose its pod, what the search found is stored before the fit.
        """
        with loop_of(spec, context) as loop:
            pinned = loop.trainings.pinned(tags_of(context).get(DECISION))
            with wandb_run(context, spec, "train", pinned.version) as seen:
                with _going_on(context, loop, pinned.decision):
                    ready = search(loop.trainings, pinned) if steps_apart(context.run) else pinned
                    trained = loop.fit(ready) if ready else None
                if trained is None or trained.digest is None:
                    raise InputError("nothing was trained: the reason is in the audit record training.refused")
                record = loop.trainings.candidate(trained.digest)
                cost = {f"cost_{name}": value for name, value in record["cost"].items()}
                seen.tell({"bundle": trained.digest, **cost}, history=searched(record))
        told = {"version": trained.version, "bundle": trained.digest}
        return dg.MaterializeResult(metadata={**told, **cost, **seen.metadata})

    return candidate_model


def _evaluation(spec: ModelSpec) -> dg.AssetsDefinition:
    key, kpi = dg.AssetKey([spec.name, "evaluation"]), performance_of(spec).kpi
    gates = [
        dg.AssetCheckSpec(name, asset=key, blocking=True, description=_asked_of(name, spec))
        for name in gate_names(spec)
    ]

    @_asset(spec, "evaluation", "candidate_model", "scikitlearn", checks=gates)
    def evaluation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The candidate held to its gates, beside the champion, on rows that neither was trained on."""
        with loop_of(spec, context) as loop:
            pinned = loop.trainings.pinned(tags_of(context).get(DECISION))
            with wandb_run(context, spec, "evaluate", pinned.version) as seen:
                with _going_on(context, loop, pinned.decision):
                    training = loop.prove(pinned)
                record = loop.trainings.candidate(training.digest)
                seen.tell(scores(record), tables={"gates": gates_of(record)})
        return dg.MaterializeResult(
            metadata={
                "version": training.version,
                "passed": training.accepted,
                f"{kpi}_champion": training.before or "unknown",
                f"{kpi}_candidate": training.after or "unknown",
                "gates": gates_table(record["results"]),
                **seen.metadata,
            },
            check_results=_checks(record, gate_names(spec)),
        )

    return evaluation


def _registered_model(spec: ModelSpec) -> dg.AssetsDefinition:
    @_asset(spec, "registered_model", "evaluation", "skops")
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

    return registered_model


def _audit_artifacts(spec: ModelSpec) -> dg.AssetsDefinition:
    key, said = (
        dg.AssetKey([spec.name, "audit_artifacts"]),
        "Whether the audit chain and every artefact it names verify.",
    )

    checks = [dg.AssetCheckSpec(AUDIT, asset=key, description=said)]

    @_asset(spec, "audit_artifacts", "registered_model", "markdown", checks=checks)
    def audit_artifacts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The model card from facts, with the approvals that were given, valid or not, and the documents beside it (the
        SBOM is made once an environment); and the audit verified."""
        with loop_of(spec, context) as loop, home(context.run) as at:
            registered = register(loop.rollouts, loop.trainings.trained(tags_of(context).get(DECISION)))
            digest, version = registered.digest, registered.name
            keep_sbom(Settings())
            made = write_documents(Settings(), at.store, at.registry, loop.spec, digest, loop.clock.now())
            audited = verify_home(Settings())
        return dg.MaterializeResult(
            metadata={
                "card": dg.MetadataValue.md((made.folder / "card.md").read_text(encoding="utf-8")),
                "page": card(Settings(), spec, version),
                "because_of": drift_reports(spec),
                **live_page(Settings(), spec),
                **chain(Settings(), spec, version),
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

    return audit_artifacts


def _asked(loop: Loop, actor: str) -> str:
    """The decision that comes of asking the policy for a retrain. Raises InputError where it refuses."""
    decision_id, decision = operating.retrain(loop, actor, "materialised in Dagster")
    if decision.action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN):
        raise InputError(f"the policy refuses: {'; '.join(decision.reasons)}")
    return decision_id


@contextmanager
def _going_on(context: dg.AssetExecutionContext, loop: Loop, decision_id: str) -> Iterator[None]:
    """The next step of what a run claimed, this one or one before it; of what has ended already, only a look."""
    if not loop.queue.open(decision_id):
        yield
        return
    _claim(context, loop, decision_id)
    with working(loop.trainings, decision_id, context.run.run_id):
        yield


def _claim(context: dg.AssetExecutionContext, loop: Loop, decision_id: str) -> None:
    """Take the decision for this run; or go on with what a run that is over took: one that this retries, and so has its
    tags, or one whose assets were materialised by hand up to here."""
    again = tags_of(context).get(CLAIMED) == decision_id or _is_over(context, loop.queue.holder(decision_id))
    if not loop.queue.claim(decision_id, context.run.run_id, again=again):
        raise InputError(f"{decision_id} is another run's, or done; {loop.spec.name}'s audit tells whose")
    tags = {MODEL: loop.spec.name, DECISION: decision_id, CLAIMED: decision_id}
    context.instance.add_run_tags(context.run.run_id, tags)


def _is_over(context: dg.AssetExecutionContext, holder: str) -> bool:
    run = context.instance.get_run_by_id(holder) if holder else None
    return run is not None and run.is_finished


def gate_names(spec: ModelSpec) -> list[str]:
    """The checks of `evaluation`; a check's name has letters, digits and underscores only."""
    parity = [f"parity_{column}" for column in spec.protected] if spec.kpis.demographic_parity else []
    asked = {
        "invariance": [test.column for test in spec.gates.invariance],
        "direction": spec.gates.direction,
        "minimum_slice": spec.gates.minimum_slice,
    }
    declared = [f"{test}_{column}" for test, columns in asked.items() for column in columns]
    scans = [ALLOWED, SECRETS, *([TRAINER_TESTS] if folder_of_tests(spec) else [])]
    scans += [] if Settings().scan == "off" else [VULNERABILITIES]
    return [
        performance_of(spec).kpi,
        *map(check_name, parity),
        "latency",
        "poison_floor",
        *map(check_name, declared),
        *scans,
    ]


def _asked_of(gate: str, spec: ModelSpec) -> str:
    """What a gate asks, whatever it answers."""
    told = {
        performance_of(spec).kpi: "Whether the candidate is at least as good as the champion on rows unseen by both.",
        "latency": "Whether the candidate answers within the allowed time.",
        "poison_floor": "Whether the candidate holds on the trusted holdout, which nobody can poison later.",
        ALLOWED: "Whether the stored model makes types of the registry's list alone.",
        SECRETS: "Whether no file of the bundle holds a secret.",
        TRAINER_TESTS: "Whether the tests of the model's own trainer pass.",
        VULNERABILITIES: "Whether no vulnerability of the environment that trained is known.",
        envelope.NAME: "Whether the candidate stays within the changes that people foresaw.",
    }
    for test, question in _DECLARED.items():
        if gate.startswith(f"{test}_"):
            return question.format(gate.removeprefix(f"{test}_"))
    return told.get(gate, f"Whether the groups of {gate.removeprefix('parity_')} are treated no further apart.")


_DECLARED = {
    "invariance": "Whether another value of {} changes no more decisions than the spec allows.",
    "direction": "Whether raising {} moves the mean score as the spec says.",
    "minimum_slice": "Whether each level of {} is served as well as the spec asks.",
}


def check_name(gate: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in gate)


def _checks(record: Mapping[str, Any], declared: Sequence[str]) -> list[dg.AssetCheckResult]:
    """One for each gate that the code location declared: those of another time have others, and pass or not as a whole,
    as the record says that `registered_model` reads."""
    said = {check_name(result["name"]): result for result in record["results"]}
    other = {"outcome": "pass" if record["passed"] else "fail", "reason": "not asked of this candidate"}
    empty = dict.fromkeys(("value", "bound", "limit"))
    return [_checked(said.get(name) or {"name": name, **other, **empty}) for name in declared]


def _checked(result: Mapping[str, Any]) -> dg.AssetCheckResult:
    """UNKNOWN blocks like FAIL."""
    numbers = {name: result[name] for name in ("value", "bound", "limit") if result[name] is not None}
    return dg.AssetCheckResult(
        passed=result["outcome"] == "pass",
        check_name=check_name(result["name"]),
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{result['outcome']}: {result['reason']}",
        metadata=numbers,
    )
