"""Fitting: the second step of a retrain searches and trains on the older rows, and puts a bundle into the registry."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import polars as pl

from drift_pipeline.errors import InputError, SpecError
from drift_pipeline.evidence.sbom import environment_digest
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.state import Assignment, Version
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.registry.origin import code_of
from drift_pipeline.training.dataset import composition
from drift_pipeline.training.own import STORED_AS, Source, source_of
from drift_pipeline.training.search import Trained, train
from drift_pipeline.training.studies import keep_study


def fit(trainings: Trainings, assignment: Assignment) -> Assignment | None:
    """Train the candidate and register its bundle; nothing is proven yet.

    None, with its reason in the audit, where nothing can be trained on the rows. What was fitted already is not
    fitted again.
    """
    if assignment.digest is not None:
        return assignment
    source = _pinned_source(trainings.context, assignment)
    dataset, began = trainings.rows(assignment), (time.perf_counter(), time.process_time())
    older = dataset.frame.filter(pl.col("_time") < assignment.block_from)
    try:
        trained = fitted(trainings.context, older, assignment.version, assignment.fresh, source)
    except SpecError:  # the model's own trainer: no wait for rows helps
        raise
    except InputError as error:
        trainings.refuse(assignment.decision, str(error), trainings.done)
        return None
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    cost = {"wall_seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}
    return _record(trainings, assignment, trained, cost, composition(older.tail(trained.rows), trainings.context.spec))


def fitted(context: Context, rows: pl.DataFrame, name: str, fresh: int = 0, source: Source | None = None) -> Trained:
    """A pipeline of the version `name`, trained on rows (n,) in order of time; by `source`, the model's own trainer."""
    seed = context.seed + int(name.removeprefix("v"))

    def progress(done: int, of: int) -> None:
        context.progress(f"{name}: trial {done}/{of}")

    called = f"{context.spec.name} {name} {context.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    keep = partial(keep_study, url=context.studies, name=called) if context.studies else None
    return train(rows, context.spec, seed, fresh, progress, source, keep)


def _pinned_source(context: Context, assignment: Assignment) -> Source | None:
    """The model's own trainer as it was pinned. Raises SpecError where its file, or the spec, says another by now."""
    source = source_of(context.spec)
    found = source.digest if source else None
    if found != assignment.trainer_source:
        raise SpecError(
            f"{context.spec.name}: retrain.trainer has the digest {found}, and {assignment.trainer_source} was pinned "
            f"for {assignment.version}; ask for another retrain"
        )
    return source


def register(context: Context, trained: Trained, name: str, facts: Mapping[str, Any] | None = None) -> str:
    """The bundle's digest; it holds the pipeline, the model's own trainer that made it, and what it came from."""
    fields = {
        "model": context.spec.name,
        "version": name,
        "created_at": context.clock.now().isoformat(),
        "trainer": context.spec.retrain.trainer,
        "params": trained.params,
        "rows": trained.rows,
        "trained_from": trained.start.isoformat(),
        f"validation_{context.performance.kpi}": trained.validation,
        "features": dict(context.spec.features),
        "libraries": {library: version(library) for library in ("scikit-learn", "skops", "drift-pipeline")},
        "code": code_of(),
        **({"trainer_source": trained.source.digest} if trained.source else {}),
        **(facts or {}),
    }
    files = {"model.skops": dump_pipeline(trained.pipeline)}
    files |= {STORED_AS: trained.source.text} if trained.source else {}
    return context.registry.put(fields, files).digest


def register_given(context: Context, pipeline: bytes, origin: str) -> str:
    """Model version 1, a pipeline as skops wrote it that was trained elsewhere; returns its bundle's digest."""
    fields = {
        "model": context.spec.name,
        "version": "v1",
        "created_at": context.clock.now().isoformat(),
        "trainer": "given",
        "origin": origin,
        "features": dict(context.spec.features),
    }
    return context.registry.put(fields, {"model.skops": pipeline}).digest


def _record(
    trainings: Trainings,
    assignment: Assignment,
    trained: Trained,
    cost: Mapping[str, float],
    made_of: Mapping[str, Any],
) -> Assignment:
    at, facts = trainings.context, _facts(assignment)
    digest = register(at, trained, assignment.version, facts)
    retrains = trainings.done
    if at.spec.retrain.gpus:
        retrains = retrains.spent(at.clock.now(), at.spec.retrain.gpus * cost["wall_seconds"] / 3600)
    if assignment.recovery is not None:
        retrains = replace(retrains, recovery=assignment.recovery)
    done = replace(assignment, digest=digest)
    made = Version(digest, assignment.version, trained.start, assignment.block_from, None)
    record = {
        **facts,
        **made.to_json(),
        "passed": None,
        "trainer": at.trust.trainer_key_id,
        "policy_digest": trainings.policy_digest(assignment.decision),
        "cost": {**cost, "rows": trained.rows, "trials": trained.trials},
        "composition": made_of,
        "environment": environment_digest(),
    }
    told = {"version": assignment.version, "decision": assignment.decision, "rows": trained.rows}
    puts = {f"candidate/{digest}": record, **trainings.entries(done), "retrains": retrains.to_json()}
    at.ledger.commit("candidate.trained", told, {"bundle": digest}, puts=puts)
    return done


def _facts(assignment: Assignment) -> dict[str, Any]:
    data = {"from": assignment.from_.isoformat(), "to": assignment.known_at.isoformat(), **assignment.versions}
    proven_on = {"from": assignment.block_from.isoformat(), "rows": assignment.block_rows}
    return {"decision": assignment.decision, "data": data, "proven_on": proven_on}
