"""What a candidate is, held against the change envelope that people declared."""

import polars as pl

from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.state import Version
from drift_pipeline.registry.graph import listed_steps
from drift_pipeline.training.envelope import Change, asks, envelope_gate
from drift_pipeline.training.gates import GateResult, parity_gate


def envelope_results(
    trainings: Trainings, candidate: Version, block: pl.DataFrame, newest: pl.DataFrame
) -> tuple[GateResult, ...]:
    """The gate's result; nothing where nothing is declared. Arguments as of `gates.prove`."""
    at, spec = trainings.context, trainings.context.spec
    if not asks(spec):
        return ()
    manifest, record = at.registry.get(candidate.digest).manifest, trainings.candidate(candidate.digest)
    routes = (record.get("composition") or {}).get("routes")
    steps = listed_steps(manifest)
    change = Change(
        features=manifest["features"],
        trainers=tuple(str(one["trainer"]) for one in [step.facts for step in steps] or [manifest]),
        params=manifest["params"],
        data_sources=None if routes is None else tuple(routes),
        performance=at.performance.of(block["_label"], candidate.scores(block, spec)),
        parity_gap=_widest_gap(candidate, newest, trainings),
    )
    found = envelope_gate(change, spec)
    return () if found is None else (found,)


def _widest_gap(candidate: Version, newest: pl.DataFrame, trainings: Trainings) -> float | None:
    """Of the protected columns; None where one cannot be told."""
    spec = trainings.context.spec
    decided = candidate.scores(newest, spec).to_numpy() >= spec.prediction.threshold
    gaps = [parity_gate(decided, None, newest[name], allowed_drop=1.0, column=name).value for name in spec.protected]
    known = [gap for gap in gaps if gap is not None]
    return max(known) if known and len(known) == len(gaps) else None
