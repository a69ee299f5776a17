"""Pinning: the first step of a retrain fixes the rows that train and those that prove."""

from dataclasses import replace

import polars as pl

from drift_pipeline.clock import format_duration
from drift_pipeline.errors import InputError, SpecError
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.retraining.trainings import Trainings, proving_block
from drift_pipeline.loop.state import Assignment, Cause, Retrains, Version
from drift_pipeline.registry.graph import listed_steps
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.dataset import Dataset, block_rows, split_newest
from drift_pipeline.training.own import digest_of, sources_of

LEAST_BLOCK = 500


def pin(trainings: Trainings, decision_id: str, champion: Version, cause: Cause | None) -> Assignment | None:
    """Fix the rows that are to train and to prove the next candidate; None, and audited, where they are too few."""
    at = trainings.context
    if again := at.ledger.find(f"training/{decision_id}"):
        return Assignment.from_json(again)
    now = at.clock.now()
    done = replace(trainings.done, attempted=now)
    try:
        dataset = at.source.rows(now)
    except SpecError:  # of a store that is not set up: no wait for rows helps
        raise
    except InputError as error:
        trainings.refuse(decision_id, str(error), done)
        return None
    block = _block(dataset.frame, champion, cause, at.spec)
    if isinstance(block, str):
        trainings.refuse(decision_id, block, done)
        return None
    steps, done = _steps(at, decision_id, champion), done.began(now)
    assignment = Assignment(
        version=f"v{done.versions}",
        decision=decision_id,
        champion=champion.digest,
        known_at=now,
        from_=dataset.window.start,
        versions=dict(dataset.pin.versions),
        block_from=block["_time"][0],
        rows=dataset.frame.height,
        block_rows=block.height,
        fresh=max((cause.fresh_rows if cause else 0) - block.height, 0),
        recovery=cause.recovery if cause else None,
        trainer_source=digest_of(sources_of(at.spec, steps)),
        steps=steps,
        source={**dataset.pin.told, "inputs": list(dataset.pin.inputs)},
    )
    _record(trainings, assignment, dataset, done)
    return assignment


def _steps(at: Context, decision_id: str, champion: Version) -> tuple[str, ...]:
    """Of a graph, those that were asked for, else the spec's; none named where the champion is no graph: there is
    nothing to take the others from, and all are trained."""
    if asked := (at.ledger.find(f"retrain/{decision_id}") or {}).get("steps"):
        return tuple(asked)
    if not at.spec.retrain.steps or champion.recorded or not listed_steps(at.registry.get(champion.digest).manifest):
        return ()
    return at.spec.retrain.steps


def _block(frame: pl.DataFrame, champion: Version, cause: Cause | None, spec: ModelSpec) -> pl.DataFrame | str:
    """The newest rows, which prove; or why they, or the others, are too few."""
    unseen = frame.filter(pl.col("_time") >= champion.unseen_from).height
    size = min(block_rows(cause.fresh_rows if cause else None, frame.height), unseen)
    if size < LEAST_BLOCK or frame.height - size < spec.retrain.min_rows:
        return (
            f"{frame.height:,} labelled rows in the retrain.window of {format_duration(spec.retrain.window)}, "
            f"{unseen:,} of them unseen by {champion.name}, are too few: {LEAST_BLOCK} unseen ones are to prove, and "
            f"retrain.min_rows {spec.retrain.min_rows:,} older ones to train"
        )
    block = proving_block(frame, split_newest(frame, size)[1]["_time"][0], champion, spec)
    if 2 * block.height < size:
        return f"{champion.name} scored only {block.height:,} of the newest {size:,} rows"
    return block


def _record(trainings: Trainings, assignment: Assignment, dataset: Dataset, done: Retrains) -> None:
    trainings.keep(assignment, dataset)
    told = {
        "decision": assignment.decision,
        "version": assignment.version,
        "rows": assignment.rows,
        "block": assignment.block_rows,
        "source": assignment.source,
        **assignment.versions,
    }
    puts = {**trainings.entries(assignment), "retrains": done.to_json()}
    trainings.context.ledger.commit("training.started", told, puts=puts)
