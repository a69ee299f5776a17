"""Proving: the last step of a retrain holds the candidate to the gates, beside the champion."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.curves import curves_of
from drift_pipeline.evidence.groups import group_analysis
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.retraining.enveloped import envelope_results
from drift_pipeline.loop.retraining.trainings import Trainings, proving_block
from drift_pipeline.loop.state import Assignment, Training, Version
from drift_pipeline.registry.graph import SUFFIX, listed_steps
from drift_pipeline.training import gates
from drift_pipeline.training.results import GateResult, Gates, Outcome
from drift_pipeline.training.scan import allowed_types_gate, secrets_gate
from drift_pipeline.training.trainer_tests import trainer_tests_gate
from drift_pipeline.training.vulnerabilities import NAME as VULNERABILITIES
from drift_pipeline.training.vulnerabilities import NOT_ASKED, vulnerabilities_gate

LEAST_PARITY_ROWS = 5000  # decisions need no label; below 2000 equal models differ by 3 pp too often


def prove(trainings: Trainings, assignment: Assignment, champion: Version) -> Training:
    """Hold the candidate to the gates, passed or not, and write down what they said; its release reads that again.

    What they said once stands: asking again until they pass would prove nothing.

    Raises:
        InputError: nothing was trained for this assignment yet.
        IntegrityError: the bundle's bytes do not fit, or the champion is another one by now.
    """
    at = trainings.context
    if assignment.digest is None:
        raise InputError(f"{at.spec.name}: {assignment.version} is not trained yet; fit it first")
    if assignment.champion != champion.digest:
        raise IntegrityError(
            f"{at.spec.name}: {assignment.version} was trained to follow {assignment.champion}, "
            f"but the champion is {champion.name} ({champion.digest}) by now; pin a new dataset"
        )
    record = trainings.candidate(assignment.digest)
    if record["passed"] is not None:
        told = record[at.performance.kpi]
        return Training(assignment.version, assignment.digest, record["passed"], told["before"], told["after"])
    candidate = Version.load(record, at.registry)
    block, said = _asked(trainings, assignment, champion, candidate)
    return _record(trainings, assignment.decision, candidate, block, said, record)


def _asked(
    trainings: Trainings, assignment: Assignment, champion: Version, candidate: Version
) -> tuple[pl.DataFrame, Gates]:
    """The block that proves, and what the gates say of it."""
    spec, pipeline = trainings.context.spec, candidate.pipeline
    if pipeline is None:
        raise IntegrityError(f"{spec.name}: {assignment.version} is recorded scores, which cannot be proven")
    frame = trainings.rows(assignment).frame
    block = proving_block(frame, assignment.block_from, champion, spec)
    newest = frame.tail(max(block.height, LEAST_PARITY_ROWS))
    newest = newest.with_columns(champion.scores(newest, spec).alias("_champion"))
    fell = assignment.recovery is not None
    asked = gates.prove(pipeline, block, newest, trainings.holdout, spec, performance_fell=fell)
    not_asked = {} if trainings.context.scan else {VULNERABILITIES: NOT_ASKED}
    more = (*_scanned(trainings.context, candidate), *envelope_results(trainings, candidate, block, newest))
    return block, Gates((*asked.results, *more), not_asked)


def _scanned(at: Context, candidate: Version) -> Iterator[GateResult]:
    """The gates of what is stored and of what made it."""
    bundle = at.registry.get(candidate.digest)
    yield allowed_types_gate({name: data for name, data in bundle.files.items() if name.endswith(SUFFIX)})
    yield secrets_gate(bundle.files)
    steps, name = listed_steps(bundle.manifest), bundle.manifest["version"]
    trained = [step.name for step in steps if step.facts["version"] == name]
    tests = trainer_tests_gate(at.spec, bundle.manifest.get("trainer_source"), steps=trained)
    if tests is not None:
        yield tests
    if at.scan is not None:
        yield vulnerabilities_gate(at.scan, SystemClock().now())


def _record(
    trainings: Trainings,
    decision_id: str,
    candidate: Version,
    block: pl.DataFrame,
    said: Gates,
    record: Mapping[str, Any],
) -> Training:
    at, retrains = trainings.context, trainings.done
    scored = block.with_columns(candidate.scores(block, at.spec))
    before, after = (at.performance.of(block["_label"], scored[column]) for column in ("_champion", "_score"))
    rejected = 0 if said.passed else retrains.rejected_in_a_row + 1
    results = {at.performance.kpi: {"before": before, "after": after}, **said.to_json()}
    told = {name: record[name] for name in ("version", "decision", "data", "proven_on")}
    drawn = {
        "groups": group_analysis(scored, at.spec),
        "curves": curves_of(scored, at.spec, partial(candidate.scores, spec=at.spec)),
    }
    puts = {
        f"candidate/{candidate.digest}": {**record, **results, **drawn},
        "retrains": replace(retrains, rejected_in_a_row=rejected).to_json(),
        **trainings.ended(decision_id, "proven" if said.passed else "rejected", candidate.digest),
    }
    event = "candidate.proven" if said.passed else "candidate.rejected"
    poisoned = [gate.reason for gate in said.results if gate.name == "poison_floor" and gate.outcome is Outcome.FAIL]
    alerts = [at.ledger.alert(candidate.name, event, reason) for reason in poisoned]
    at.ledger.commit(event, {**told, **results}, {"bundle": candidate.digest}, puts=puts, messages=alerts)
    return Training(candidate.name, candidate.digest, said.passed, before, after)
