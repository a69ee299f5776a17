"""Fitting: the second step of a retrain searches and trains on the older rows, and puts a bundle into the registry."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import polars as pl

from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import InputError, SpecError
from drift_pipeline.evidence.sbom import environment_digest
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.state import RECORDED, Assignment, Version
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.registry.graph import GRAPH, MODEL, file_of
from drift_pipeline.registry.origin import code_of, libraries
from drift_pipeline.training.dataset import composition
from drift_pipeline.training.own import STORED_AS, Source, digest_of, sources_of, stored_as
from drift_pipeline.training.search import Found, Trained, Trial, train
from drift_pipeline.training.steps import EVERY_STEP, Plan, TrainedGraph, train_graph
from drift_pipeline.training.studies import keep_study


def fit(trainings: Trainings, assignment: Assignment) -> Assignment | None:
    """Train the candidate and register its bundle; nothing is proven yet.

    None, with its reason in the audit, where nothing can be trained on the rows. What was fitted already is not
    fitted again.
    """
    if assignment.digest is not None:
        return assignment
    sources = pinned_sources(trainings.context, assignment)
    plan = plan_of(trainings.context, assignment.steps, assignment.champion)
    dataset, began = trainings.rows(assignment), (time.perf_counter(), time.process_time())
    older = dataset.frame.filter(pl.col("_time") < assignment.block_from)
    try:
        found = found_of(assignment)
        trained = fitted(trainings.context, older, assignment.version, assignment.fresh, sources, plan, found)
    except SpecError:  # the model's own trainer: no wait for rows helps
        raise
    except InputError as error:
        trainings.refuse(assignment.decision, str(error), trainings.done)
        return None
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    spent = assignment.spent
    cost = {
        "wall_seconds": round(wall + spent.get("wall_seconds", 0), 3),
        "cpu_seconds": round(cpu + spent.get("cpu_seconds", 0), 3),
    }
    return _record(trainings, assignment, trained, cost, composition(trained.used, trainings.context.spec))


def fitted(
    context: Context,
    rows: pl.DataFrame,
    name: str,
    fresh: int = 0,
    sources: Mapping[str, Source] | None = None,
    plan: Plan = EVERY_STEP,
    found: Found | None = None,
) -> Trained:
    """The version `name`, trained on rows (n,) in order of time; by `sources`, the model's own trainers as they were
    pinned, else as they lie there; `plan` says which steps of a graph; `found` is of a search that is over."""
    spec, seed = context.spec, seed_of(context, name)
    sources = sources_of(spec, plan.only) if sources is None else sources

    def progress(step: str, done: int, of: int) -> None:
        context.progress(f"{name}{step and f' {step}'}: trial {done}/{of}")

    called = f"{spec.name} {name} {context.clock.now():%Y-%m-%dT%H:%M:%SZ}"

    def keep(step: str, study: Any) -> None:
        if context.studies:
            keep_study(study, context.studies, f"{called}{step and f' {step}'}")

    if spec.graph:
        return train_graph(rows, spec, seed, name, plan, fresh, progress, sources, keep)
    return train(rows, spec, seed, fresh, partial(progress, ""), sources.get(STORED_AS), partial(keep, ""), found)


def seed_of(context: Context, name: str) -> int:
    """Of the training of a version."""
    return context.seed + int(name.removeprefix("v"))


def found_of(assignment: Assignment) -> Found | None:
    """What a search of its own found; None where there was none."""
    known = assignment.searched
    return None if known is None else Found(**{**known, "trials": tuple(Trial(**one) for one in known["trials"])})


def plan_of(context: Context, steps: Sequence[str], champion: str) -> Plan:
    """Which steps of the graph are trained, and whose others are taken: those of the bundle with this digest."""
    known = bool(steps) and champion != RECORDED
    return Plan(tuple(steps), context.registry.get(champion) if known else None)


def pinned_sources(context: Context, assignment: Assignment) -> Mapping[str, Source]:
    """The model's own trainers as they were pinned. Raises SpecError where a file, or the spec, says another by now."""
    sources = sources_of(context.spec, assignment.steps)
    found = digest_of(sources)
    if found != assignment.trainer_source:
        raise SpecError(
            f"{context.spec.name}: retrain.trainer has the digest {found}, and {assignment.trainer_source} was pinned "
            f"for {assignment.version}; ask for another retrain"
        )
    return sources


def register(context: Context, trained: Trained, name: str, facts: Mapping[str, Any] | None = None) -> str:
    """The bundle's digest; it holds the pipelines, the model's own trainers that made them, and what it came from."""
    steps = trained.steps if isinstance(trained, TrainedGraph) else ()
    fields = {
        "model": context.spec.name,
        "version": name,
        "created_at": context.clock.now().isoformat(),
        "trainer": GRAPH if steps else context.spec.retrain.trainer,
        "params": trained.params,
        "rows": trained.rows,
        "trained_from": trained.start.isoformat(),
        f"validation_{context.performance.kpi}": trained.validation,
        "features": dict(context.spec.features),
        "libraries": libraries(),
        "code": code_of(),
        **({"trainer_source": trained.trainer_source} if trained.trainer_source else {}),
        **({GRAPH: [dict(step.facts) for step in steps]} if steps else {}),
        **(facts or {}),
    }
    if steps:
        files = {file_of(step.facts["name"]): step.model for step in steps}
        files |= {stored_as(step.facts["name"]): step.source for step in steps if step.source is not None}
    else:
        files = {MODEL: dump_pipeline(trained.pipeline)}
        files |= {STORED_AS: trained.source.text} if trained.source else {}
    return context.registry.put(fields, files).digest


def register_given(context: Context, files: Mapping[str, bytes], origin: str) -> str:
    """Model version 1, pipelines as skops wrote them that were trained elsewhere, by file; returns the bundle's
    digest."""
    spec = context.spec
    graph = [
        {
            "name": name,
            "inputs": [*step.inputs],
            "threshold": step.threshold,
            "trainer": "given",
            "version": "v1",
            "sha256": sha256(files[file_of(name)]),
        }
        for name, step in spec.steps.items()
    ]
    fields = {
        "model": spec.name,
        "version": "v1",
        "created_at": context.clock.now().isoformat(),
        "trainer": "given",
        "origin": origin,
        "features": dict(spec.features),
        **({GRAPH: graph} if graph else {}),
    }
    return context.registry.put(fields, files).digest


def _record(
    trainings: Trainings,
    assignment: Assignment,
    trained: Trained,
    cost: Mapping[str, float],
    made_of: Mapping[str, Any],
) -> Assignment:
    at, facts = trainings.context, _facts(assignment)
    digest = register(at, trained, assignment.version, facts)
    fitting = cost["wall_seconds"] - assignment.spent.get("wall_seconds", 0)  # the search counted its own
    hours = at.spec.retrain.gpus * fitting / 3600
    retrains, alerts = trainings.spend(trainings.done, hours)
    if assignment.recovery is not None:
        retrains = replace(retrains, recovery=assignment.recovery)
    done = replace(assignment, digest=digest, gpu_hours=assignment.gpu_hours + hours)
    made = Version(digest, assignment.version, trained.start, assignment.block_from, None)
    record = {
        **facts,
        **made.to_json(),
        "passed": None,
        "trainer": at.trust.trainer_key_id,
        "policy_digest": trainings.policy_digest(assignment.decision),
        "cost": {**cost, "rows": trained.rows, "trials": len(trained.trials)},
        "searched": [asdict(trial) for trial in trained.trials],
        "composition": made_of,
        **({"oldest_from": trained.oldest.isoformat()} if isinstance(trained, TrainedGraph) else {}),
        "environment": environment_digest(),
    }
    told = {"version": assignment.version, "decision": assignment.decision, "rows": trained.rows}
    puts = {f"candidate/{digest}": record, **trainings.entries(done), "retrains": retrains.to_json()}
    at.ledger.commit("candidate.trained", told, {"bundle": digest}, puts=puts, messages=alerts)
    return done


def _facts(assignment: Assignment) -> dict[str, Any]:
    window = {"from": assignment.from_.isoformat(), "to": assignment.known_at.isoformat()}
    data = {**window, **assignment.versions, "source": assignment.pin.told}
    proven_on = {"from": assignment.block_from.isoformat(), "rows": assignment.block_rows}
    return {"decision": assignment.decision, "data": data, "proven_on": proven_on}
