"""Status: how the models of a home stand, from the control store alone; nothing is read that takes long."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.evidence.gitops.progress import behind
from drift_pipeline.loop.concerns import lasting
from drift_pipeline.rollout.plan import version_of
from drift_pipeline.spec import ModelSpec

NOT_ADOPTED = "not adopted"


@dataclass(frozen=True)
class Standing:
    """One model. Texts are empty, and times are None, where there is nothing to tell.

    weight: percent of the traffic that the candidate is sent; None where no spec tells. phase, candidate and
    phase_since are of the last rollout; maintenance_from and maintenance_to of one that goes on or is to come.
    """

    model: str
    champion: str
    verdict: str
    judged: int
    configured: int
    not_judged: Mapping[str, Mapping[str, Any]]
    labels: Mapping[str, int]
    ticked_at: datetime | None
    kpis: Mapping[str, Mapping[str, Any]]
    drifting: tuple[str, ...]
    incident: str
    acknowledged_by: str
    rollout: str
    weight: int | None
    phase: str
    phase_since: datetime | None
    candidate: str
    runs: tuple[str, ...]
    paused_by: str
    maintenance: str
    maintenance_from: datetime | None
    maintenance_to: datetime | None
    concerns: Mapping[str, str]

    def age(self, now: datetime) -> timedelta | None:
        """Since the last tick."""
        return None if self.ticked_at is None else now - self.ticked_at

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__dataclass_fields__}
        times = {name: value.isoformat() for name, value in document.items() if isinstance(value, datetime)}
        return {**document, **times, "drifting": list(self.drifting), "runs": list(self.runs)}


def standings(store: ControlReader, specs: Iterable[ModelSpec], now: datetime) -> list[Standing]:
    """How each model stands, by name."""
    return [standing(store, spec.name, spec, now) for spec in sorted(specs, key=lambda spec: spec.name)]


def standing(store: ControlReader, name: str, spec: ModelSpec | None, now: datetime) -> Standing:
    """How one model stands; of one that is adopted here, the spec may be elsewhere."""

    def state(kind: str, rest: str = "") -> Mapping[str, Any]:
        record = store.get(kind, f"{name}/{rest}" if rest else name)
        return record.body if record else {}

    record = store.recall(name)
    memory: Mapping[str, Any] = record.body if record else {}
    model, seen, incident = state("model"), memory.get("seen") or {}, memory.get("incident") or {}
    key = incident.get("key", "") if incident.get("open") else ""
    rollout, pause = state("rollout"), state("pause")
    span = _maintained(state("maintenance"), now)
    phase, candidate = rollout.get("phase", ""), version_of(name, rollout.get("rollout_id", ""))
    weight = None if spec is None else spec.rollout.canary_weight
    runs = [record.body for record in store.find("retrain", f"{name}/")]
    return Standing(
        model=name,
        champion=model.get("version", NOT_ADOPTED),
        verdict=seen.get("verdict", ""),
        judged=seen.get("judged", 0),
        configured=seen.get("configured", 0),
        not_judged=seen.get("not_judged", {}),
        labels=seen.get("labels", {}),
        ticked_at=datetime.fromisoformat(memory["at"]) if memory else None,
        kpis=seen.get("kpis", {}),
        drifting=tuple(seen.get("drifting", ())),
        incident=key,
        acknowledged_by=state("acknowledged", key).get("actor", "") if key else "",
        rollout=f"{candidate} {phase}: {rollout['reason']}" if phase else "",
        weight=weight if phase == "canary" else 0,
        phase=phase,
        phase_since=datetime.fromisoformat(rollout["since"]) if phase else None,
        candidate=candidate,
        runs=tuple(
            f"{run['decision']} {run['lane']} {run['status']}" for run in runs if run["status"] in ("wanted", "running")
        ),
        paused_by=pause["actor"] if pause.get("on") else "",
        maintenance=f"{span['from']} to {span['to']} by {span['actor']}" if span else "",
        maintenance_from=datetime.fromisoformat(span["from"]) if span else None,
        maintenance_to=datetime.fromisoformat(span["to"]) if span else None,
        concerns=lasting(store, name, now) | ({"gitops": told} if (told := behind(store, now)) else {}),
    )


def _maintained(body: Mapping[str, Any], now: datetime) -> Mapping[str, Any]:
    return body if body and now < datetime.fromisoformat(body["to"]) else {}
