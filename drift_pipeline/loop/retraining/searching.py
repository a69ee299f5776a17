"""Searching: the step between pinning and fitting, for who searches in processes of its own, or several."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import polars as pl

from drift_pipeline.errors import ConflictError, InputError, SpecError
from drift_pipeline.loop.retraining.fitting import pinned_sources, seed_of
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.state import Assignment
from drift_pipeline.training import search as searching
from drift_pipeline.training.own import STORED_AS
from drift_pipeline.training.search import Found, Shared, blamed
from drift_pipeline.training.studies import shared_study
from drift_pipeline.training.trainers import trainer_of

TRIES = 10  # of workers that end at once, one stores after the other


def search(trainings: Trainings, assignment: Assignment, worker: int = 0) -> Assignment | None:
    """Find the params that `fit` fits with; as it stands where that was done, and of a graph, whose steps are searched
    while they are fitted, each on what the one before it says.

    On PostgreSQL the workers of one decision share a study, and who ends last stores what was found: `searched` is None
    while others are at it. Elsewhere one process searches alone.

    None, with its reason in the audit, where nothing can be trained on the rows.
    """
    at = trainings.context
    if assignment.digest is not None or assignment.searched is not None or at.spec.graph:
        return assignment
    source = pinned_sources(at, assignment).get(STORED_AS)
    older = trainings.rows(assignment).frame.filter(pl.col("_time") < assignment.block_from)
    began = time.perf_counter(), time.process_time()

    def progress(done: int, of: int) -> None:
        at.progress(f"{assignment.version}: trial {done}/{of}")

    try:
        with blamed(source), _shared(trainings, assignment, worker) as shared:
            trainer, seed = trainer_of(at.spec, source), seed_of(at, assignment.version)
            found = searching.search(older, at.spec, seed, assignment.fresh, progress, trainer, shared=shared)
    except SpecError:  # the model's own trainer: no wait for rows helps
        raise
    except InputError as error:
        trainings.refuse(assignment.decision, str(error), trainings.done)
        return None
    spent = {"wall_seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    return _record(trainings, assignment, found, spent, worker)


@contextmanager
def _shared(trainings: Trainings, assignment: Assignment, worker: int) -> Iterator[Shared | None]:
    at = trainings.context
    if not at.studies:
        yield None
        return
    name, seed = f"{at.spec.name} {assignment.decision}", seed_of(at, assignment.version)
    with shared_study(at.studies, name, seed, worker, maximize=at.performance.higher_is_better) as shared:
        yield shared


def _record(
    trainings: Trainings, assignment: Assignment, found: Found | None, spent: dict[str, float], worker: int
) -> Assignment:
    """What was found, and what this worker's part of it cost. Raises ConflictError where the decision is another's."""
    at = trainings.context
    told = {"version": assignment.version, "decision": assignment.decision, "worker": worker}
    for tries_left in reversed(range(TRIES)):
        known = trainings.pinned(assignment.decision)
        if known.digest is not None:
            return known
        searched = known.searched or (asdict(found) if found else None)
        total = {name: round(known.spent.get(name, 0) + seconds, 3) for name, seconds in spent.items()}
        hours = at.spec.retrain.gpus * spent["wall_seconds"] / 3600
        done = replace(known, searched=searched, spent=total, gpu_hours=known.gpu_hours + hours)
        retrains, alerts = trainings.spend(trainings.done, hours)
        puts = {**trainings.entries(done), "retrains": retrains.to_json()}
        try:
            said = {**told, "seconds": round(spent["wall_seconds"], 3)}
            at.ledger.commit("training.searched", said, puts=puts, messages=alerts)
        except ConflictError:
            if not tries_left:
                raise
        else:
            return done
    raise AssertionError("the last try returns or raises")
