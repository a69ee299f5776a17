"""Status: how the models of a home stand, from the control store alone; nothing is read that takes long."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.loop.concerns import lasting
from drift_pipeline.spec import ModelSpec

NOT_ADOPTED = "not adopted"


@dataclass(frozen=True)
class Standing:
    """One model. Texts are empty, and `ticked_at` is None, where there is nothing to tell."""

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
    weight: int
    runs: tuple[str, ...]
    paused_by: str
    maintenance: str
    concerns: Mapping[str, str]

    def age(self, now: datetime) -> timedelta | None:
        """Since the last tick."""
        return None if self.ticked_at is None else now - self.ticked_at

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__dataclass_fields__}
        at = self.ticked_at.isoformat() if self.ticked_at else None
        return {**document, "ticked_at": at, "drifting": list(self.drifting), "runs": list(self.runs)}


def standings(store: ControlReader, specs: Iterable[ModelSpec], now: datetime) -> list[Standing]:
    """How each model stands, by name."""
    return [_standing(store, spec, now) for spec in sorted(specs, key=lambda spec: spec.name)]


def _standing(store: ControlReader, spec: ModelSpec, now: datetime) -> Standing:
    def state(kind: str, rest: str = "") -> Mapping[str, Any]:
        record = store.get(kind, f"{spec.name}/{rest}" if rest else spec.name)
        return record.body if record else {}

    record = store.recall(spec.name)
    memory: Mapping[str, Any] = record.body if record else {}
    model, seen, incident = state("model"), memory.get("seen") or {}, memory.get("incident") or {}
    key = incident.get("key", "") if incident.get("open") else ""
    rollout, pause, maintenance = state("rollout"), state("pause"), state("maintenance")
    phase = rollout.get("phase", "")
    runs = [record.body for record in store.find("retrain", f"{spec.name}/")]
    return Standing(
        model=spec.name,
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
        rollout=f"{rollout['rollout_id'].removeprefix(f'{spec.name}-')} {phase}: {rollout['reason']}" if phase else "",
        weight=spec.rollout.canary_weight if phase == "canary" else 0,
        runs=tuple(
            f"{run['decision']} {run['lane']} {run['status']}" for run in runs if run["status"] in ("wanted", "running")
        ),
        paused_by=pause["actor"] if pause.get("on") else "",
        maintenance=_maintained(maintenance, now),
        concerns=lasting(store, spec.name, now),
    )


def _maintained(body: Mapping[str, Any], now: datetime) -> str:
    if not body or now >= datetime.fromisoformat(body["to"]):
        return ""
    return f"{body['from']} to {body['to']} by {body['actor']}"
