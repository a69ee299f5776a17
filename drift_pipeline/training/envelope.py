"""The change envelope: whether a candidate stays within the changes that people foresaw (Article 43(4)).

Pure: a candidate outside of it wants a person's review and is never promoted by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.spec import ChangeEnvelope, ModelSpec
from drift_pipeline.training.gates import GateResult, Outcome

NAME, REVIEW = "change_envelope", "SUBSTANTIAL_MODIFICATION_REVIEW"


@dataclass(frozen=True)
class Change:
    """What a candidate is. None: not known, which is outside where the envelope bounds it.

    trainers: of a graph, each step's; `params` are then named STEP.NAME. data_sources: routes that its rows came by.
    performance: AUROC or MAE on the block that proves; parity_gap: the widest gap of its decisions over the protected
    columns.
    """

    features: Mapping[str, str]
    trainers: tuple[str, ...]
    params: Mapping[str, Any]
    data_sources: tuple[str, ...] | None
    performance: float | None
    parity_gap: float | None


def feature_schema(features: Mapping[str, str]) -> str:
    """The digest of the features' names and types, in whatever order they are written.

    >>> feature_schema({"a": "numeric", "b": "categorical"}) == feature_schema({"b": "categorical", "a": "numeric"})
    True
    """
    return sha256(canonical(dict(features)))


def asks(spec: ModelSpec) -> bool:
    """Whether a candidate is held against an envelope: where one is declared, or one has to be."""
    return spec.declarations.change_envelope is not None or spec.declarations.risk.profile == "high_risk"


def envelope_gate(change: Change, spec: ModelSpec) -> GateResult | None:
    """None where nothing `asks`; UNKNOWN for a high-risk system without an envelope, whose every change then wants a
    review."""
    envelope = spec.declarations.change_envelope
    if not asks(spec):
        return None
    if envelope is None:
        why = f"{REVIEW}: the profile is high_risk, and no change_envelope is declared: a person has to decide"
        return GateResult(NAME, Outcome.UNKNOWN, None, None, None, why)
    outside = list(_outside(change, envelope, spec))
    if outside:
        told = f"{REVIEW}: outside of the declared envelope: {'; '.join(outside)}"
        return GateResult(NAME, Outcome.FAIL, float(len(outside)), None, 0.0, told)
    return GateResult(NAME, Outcome.PASS, 0.0, None, 0.0, "within the declared envelope")


def _outside(change: Change, envelope: ChangeEnvelope, spec: ModelSpec) -> Iterator[str]:
    if envelope.feature_schema not in (None, found := feature_schema(change.features)):
        yield f"the features are {found}, not {envelope.feature_schema}"
    for trainer in change.trainers if envelope.trainers else ():
        if trainer not in envelope.trainers:
            yield f"the trainer {trainer} is none of {', '.join(envelope.trainers)}"
    for name, bound in envelope.hyperparameters.items():
        of_steps = {full: value for full, value in change.params.items() if full.endswith(f".{name}")}
        for full, value in (of_steps or {name: change.params.get(name)}).items():
            if not _within(value, bound):
                yield f"{full} is {value}, not within {list(bound)}"
    if envelope.data_sources:
        if change.data_sources is None:
            yield "where its rows came from is not known"
        elif strange := sorted({*change.data_sources} - {*envelope.data_sources}):
            yield f"rows came by {', '.join(strange)}"
    yield from _below_floors(change, envelope, spec)


def _below_floors(change: Change, envelope: ChangeEnvelope, spec: ModelSpec) -> Iterator[str]:
    measure, floor, gap = performance_of(spec), envelope.floors.performance, envelope.floors.parity_gap
    if floor is not None:
        found = change.performance
        if found is None or not (found >= floor if measure.higher_is_better else found <= floor):
            yield f"{measure.name} is {_told(found)}, where {floor:g} is declared"
    if gap is not None and (change.parity_gap is None or not change.parity_gap <= gap):
        yield f"the gap between groups is {_told(change.parity_gap)}, where {gap:g} is declared"


def _within(value: Any, bound: tuple[float, float] | tuple[str, ...]) -> bool:
    if isinstance(bound[0], str):
        return value in bound
    return isinstance(value, int | float) and not isinstance(value, bool) and bound[0] <= value <= bound[1]


def _told(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"
