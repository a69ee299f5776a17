"""Incident pack: what is known of one incident, for a report after Article 73 of the AI Act.

Whether it is a serious incident (Article 3(49)) is for people to say; nothing here says so. The records are those of
the audit from its opening to its end, as they stand there: `drift audit verify` holds the chain that they are of.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import InputError, NothingToDoError
from drift_pipeline.evidence.card import Document, Field, Section, Source, State
from drift_pipeline.evidence.card.facts import MACHINE
from drift_pipeline.evidence.pages import render
from drift_pipeline.spec.questions import LAW

DAYS = {  # of Article 73(2), (4) and (3), from when the provider becomes aware
    "serious_incident": 15,
    "death_of_a_person": 10,
    "widespread_infringement_or_critical_infrastructure": 2,
}
ASKED = {
    "serious": "whether it is a serious incident (Article 3(49)), and of which kind",
    "aware_since": "when the provider, or the deployer, became aware of it",
    "causal_link": "whether the system caused it, or how likely that is",
    "harm": "who was harmed, and how",
    "corrective_action": "what was done about it beside what the loop did",
    "authority": "which market surveillance authority is told, and when",
}
_OPENS, _CLOSES = "incident.opened", ("incident.closed", "reference.frozen")


@dataclass(frozen=True)
class Pack:
    """One incident's records (n,), the first of which opened it, in their order. `open`: it has no end yet."""

    model: str
    owner: str
    key: str
    records: Sequence[AuditRecord]
    open: bool

    @property
    def opened(self) -> datetime:
        return datetime.fromisoformat(self.records[0].at).astimezone(UTC)

    @property
    def ended(self) -> datetime | None:
        return None if self.open else datetime.fromisoformat(self.records[-1].at).astimezone(UTC)


def find_incident(records: Sequence[AuditRecord], model: str, owner: str, key: str | None) -> Pack:
    """The incident of the key, else the last one.

    Args:
        records: all of the model.

    Raises:
        InputError: the model had no incident of that key; NothingToDoError: it had none at all.
    """
    opened = {str(record.details["key"]): at for at, record in enumerate(records) if record.event == _OPENS}
    if not opened:
        raise NothingToDoError(f"{model}: had no incident, so there is nothing to pack")
    if key is not None and key not in opened:
        raise InputError(f"{model} had no incident {key!r}; there were: {', '.join(opened)}")
    found = key or [*opened][-1]
    first, end = opened[found], None
    for at, record in enumerate(records[first:], start=first):
        if record.event == "incident.reopened" and record.details["key"] == found:
            end = None
        if record.event in _CLOSES and found in (record.details.get("key"), record.details.get("closes")):
            end = at
    return Pack(model, owner, found, records[first : None if end is None else end + 1], end is None)


def pack_files(pack: Pack, version: str, digest: str, environment: str, kpis: bytes, at: datetime) -> dict[str, bytes]:
    """Each file's name and bytes: the report as JSON, Markdown and HTML, the records, the KPI history, and a list of
    their digests.

    Args:
        version, digest: which answered when it opened.
        kpis: the KPI history of its time, as CSV.
        at: now, by which the time that is left is told.
    """
    sections = tuple(Section(id, title, tuple(fields)) for id, title, fields in _sections(pack, at))
    head = (f"After {LAW}. That it is a serious incident is not asserted; this is no legal advice.",)
    told = (pack.model, version, digest, pack.owner, environment, at.astimezone(UTC).isoformat())
    document = Document(f"Incident {pack.key}", *told, sections, head)
    files = {
        "incident.json": _json(document.to_json()),
        "incident.md": render("document.md.j2", document=document).encode(),
        "incident.html": render("document.html.j2", document=document).encode(),
        "records.jsonl": b"".join(canonical(asdict(record)) + b"\n" for record in pack.records),
        "kpis.csv": kpis,
    }
    return {**files, "manifest.json": _json({name: sha256(page) for name, page in files.items()})}


def _sections(pack: Pack, at: datetime) -> Iterator[tuple[str, str, Sequence[Field]]]:
    first, last = pack.records[0], _last_said(pack)
    audit = Source("audit", f"control:audit/{pack.model}#{first.seq}", f"sha256:{first.hash.removeprefix('sha256:')}")

    def auto(id: str, value: object) -> Field:
        return Field(id, value, State.AUTO, None, audit, MACHINE, None, LAW)

    verdicts = [f"{name} {kpi['verdict']}: {kpi['reason']}" for name, kpi in last.details["kpis"].items()]
    yield (
        "facts",
        "What the loop recorded",
        [
            auto("facts.opened", pack.opened.isoformat()),
            auto("facts.ended", pack.ended.isoformat() if pack.ended else "it is open"),
            auto("facts.kpis", verdicts),
            auto("facts.features", list(last.details["features"])),
        ],
    )
    yield "timer", "Time of Article 73, from the first record on", [auto(f"timer.{k}", v) for k, v in _timer(pack, at)]
    yield (
        "done",
        "What was decided and done",
        [auto("done.decisions", _decisions(pack)), auto("done.steps", _steps(pack))],
    )
    missing = [
        Field(f"people.{name}", None, State.MISSING, f"{asks}; to be supplied by {pack.owner}", audit, None, None, LAW)
        for name, asks in ASKED.items()
    ]
    yield "people", "What people have to say", missing


def _last_said(pack: Pack) -> AuditRecord:
    """The record that says last what the incident is of."""
    said = [r for r in pack.records if r.event.startswith("incident.") and "kpis" in r.details and r.details["kpis"]]
    return next((record for record in reversed(said) if record.details["key"] == pack.key), pack.records[0])


def _timer(pack: Pack, at: datetime) -> Iterator[tuple[str, Mapping[str, object]]]:
    """A person who became aware at another time counts from then."""
    for name, days in DAYS.items():
        due = pack.opened + timedelta(days=days)
        left = (due - at.astimezone(UTC)).total_seconds() / 86400
        yield name, {"days": days, "due": due.isoformat(), "days_left": round(left, 1)}


def _decisions(pack: Pack) -> list[str]:
    found = [record for record in pack.records if record.event == "decision.made"]
    return [f"{r.at[:16]} {r.details['action']}: {'; '.join(map(str, r.details['reasons']))}" for r in found]


def _steps(pack: Pack) -> list[str]:
    """Trainings, gates, rollouts and what people did."""
    told = ("training.", "candidate.", "rollout.", "approval.", "incident.", "model.", "reference.")
    found = [record for record in pack.records if record.event.startswith(told)]
    return [f"{r.at[:16]} {r.event} by {r.actor} (record {r.seq}){_about(r.details)}" for r in found]


def _about(details: Mapping[str, object]) -> str:
    named = [str(details[name]) for name in ("version", "rollout_id", "reason") if details.get(name)]
    return f": {'; '.join(named)}" if named else ""


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
