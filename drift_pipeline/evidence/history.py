"""What the audit tells of one version: when it was champion, which incidents there were, and what was erased since."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drift_pipeline.control.audit import ERASED, AuditRecord
from drift_pipeline.control.store import ControlReader

_GROWS = ("incident.opened", "incident.joined", "incident.reopened")


@dataclass(frozen=True)
class History:
    """Times are ISO 8601.

    reigns: {from, to}, to is null while it answers. incidents: of its reigns, oldest first, {incident, opened, closed,
    closed_by, kpis, decisions}; kpis are {kpi, since, verdict, reason}. erasures: {at, event, rows}, of the model's
    data, since the version was made.
    """

    reigns: Sequence[Mapping[str, Any]] = ()
    incidents: Sequence[Mapping[str, Any]] = ()
    erasures: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: [dict(one) for one in value] for name, value in asdict(self).items()}


def history_of(store: ControlReader, model: str, digest: str) -> History:
    """Of a version that was adopted, or proven; empty for a stranger."""
    made = store.get("candidate", f"{model}/{digest}") or store.get("adopted", f"{model}/{digest}")
    return history_from(store.records(after=made.seq - 1, about=model) if made else (), digest)


def history_from(records: Iterable[AuditRecord], digest: str) -> History:
    """From a model's records in their order, of which none made the version champion before the first."""
    told = _Told(digest)
    for record in records:
        told.take(record)
    return History(told.reigns, [*told.incidents.values()], told.erasures)


class _Told:
    """Carries the records of a model, in their order."""

    def __init__(self, digest: str) -> None:
        self.reigns, self.erasures = list[dict[str, Any]](), list[dict[str, Any]]()
        self.incidents = dict[str, dict[str, Any]]()
        self._digest, self._champion = digest, ""

    def take(self, record: AuditRecord) -> None:
        said = record.details
        match record.event:
            case "model.adopted":
                self._crown(record.digests.get("bundle", ""), record.at)
            case "rollout.full":
                self._crown(str(said["candidate"]), record.at)
            case "rollout.rolled_back" if self._champion == said["candidate"]:
                self._crown(str(said["champion"]), record.at)
            case event if event in (ERASED, "retention.applied"):
                self.erasures.append({"at": record.at, "event": record.event, "rows": said.get("rows")})
            case _:
                self._incident(record)

    def _crown(self, champion: str, at: str) -> None:
        if self._champion == self._digest != champion:
            self.reigns[-1]["to"] = at
        if champion == self._digest != self._champion:
            self.reigns.append({"from": at, "to": None})
        self._champion = champion

    def _incident(self, record: AuditRecord) -> None:
        said = record.details
        key = str(said.get("closes") if record.event == "reference.frozen" else said.get("incident", said.get("key")))
        if record.event in _GROWS and self._champion == self._digest:
            self._grow(self.incidents.setdefault(key, _opened(key, record.at)), record)
        elif key in self.incidents:
            one = self.incidents[key]
            match record.event:
                case "incident.closed" | "reference.frozen":
                    one["closed"], one["closed_by"] = record.at, str(said.get("version", record.actor))
                case "decision.made":
                    one["decisions"].append(f"{said['decision']}: {said['action']}")

    def _grow(self, one: dict[str, Any], record: AuditRecord) -> None:
        one["closed"] = one["closed_by"] = None
        before = {kpi["kpi"]: kpi for kpi in one["kpis"]}
        for name, kpi in record.details["kpis"].items():
            since = before[name]["since"] if name in before else record.at
            before[name] = {"kpi": name, "since": since, "verdict": kpi["verdict"], "reason": kpi["reason"]}
        one["kpis"] = [*before.values()]


def _opened(key: str, at: str) -> dict[str, Any]:
    return {"incident": key, "opened": at, "closed": None, "closed_by": None, "kpis": [], "decisions": []}
