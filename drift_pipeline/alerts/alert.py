"""One alert as every channel tells it: what is the matter, since when, what was decided, and what people can do."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import Message
from drift_pipeline.control.traces import key_of, trace_id

WORST = 3  # columns
ROUTE = '{}/{alertname="DriftIncident",severity="page"}'  # in deploy/prometheus/alertmanager.yaml
_PAGES = ("incident.", "rollout.", "controller.", "model.", "tick.")
_REOPENED, _ACKNOWLEDGED = "incident.reopened", "incident.acknowledged"
CONCERN_OVER = "concern.over"
_ENDS = ("incident.closed", "reference.frozen", CONCERN_OVER)


class Severity(StrEnum):
    """Whether somebody has to look now, or may look in the morning."""

    PAGE = "page"
    TICKET = "ticket"


class Action(StrEnum):
    """Where in the life of its incident an alert stands."""

    TRIGGER = "trigger"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"


@dataclass(frozen=True)
class Alert:
    """What is told. Times are ISO 8601, UTC; texts are empty where there is nothing to tell.

    `id` is of this telling, `incident` of what it is about: a receiver that knows the pair (incident, action) knows it.
    `columns`: the worst three, each with how it moved. `link`: the incident's page, where one is known. `trace_id`: of
    what the loop traces of the incident, or of the decision, that it came of; "" of what came of neither.
    """

    id: str
    incident: str
    action: Action
    severity: Severity
    environment: str
    model: str
    owner: str
    what: str
    why: str
    at: str
    since: str
    columns: tuple[str, ...] = ()
    decided: str = ""
    link: str = ""
    commands: tuple[str, ...] = ()
    trace_id: str = ""

    @property
    def lasts(self) -> bool:
        """Whether the loop tells of its end; else it is over when nothing more is heard of it."""
        return self.what.startswith("incident.") or self.what in _ENDS

    @property
    def title(self) -> str:
        """One line, at most 200 letters."""
        word = {Action.TRIGGER: self.what, Action.ACKNOWLEDGE: "acknowledged", Action.RESOLVE: "over"}[self.action]
        about = f"{self.model or 'drift'}: {word}"
        return _line(f"[{self.severity}] {about} ({self.environment}): {self.why}")[:200]

    def to_json(self) -> dict[str, Any]:
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return told | {"dedup_key": dedup_key(self.incident)}

    def facts(self) -> list[tuple[str, str]]:
        """What people read, by name; without what is empty."""
        named = [
            ("what", self.what),
            ("why", self.why),
            ("since", self.since),
            ("columns", "\n".join(self.columns)),
            ("decided", self.decided),
            ("owner", self.owner),
            ("page", self.link),
            ("trace", self.trace_id),
            ("do", "\n".join(self.commands)),
        ]
        return [(name, told) for name, told in named if told]

    def text(self) -> str:
        """Plain text of a few lines."""
        blocks = [f"{name + ':':<9} " + told.replace("\n", "\n" + " " * 10) for name, told in self.facts()]
        return "\n".join([self.title, "", *blocks]) + "\n"


class Teller:
    """Makes alerts of what the control store holds; whatever is missing or odd there is left out, and never raised."""

    def __init__(self, store: ControlReader, environment: str, pages: str) -> None:
        """
        Args:
            pages: the address of the live pages, without a slash at its end; "" = no links.
        """
        self._store, self._environment, self._pages = store, environment, pages
        self._read: dict[tuple[str, str], Mapping[str, Any]] = {}

    def triggered(self, message: Message, records: Iterable[AuditRecord]) -> Alert:
        """What a message of the outbox says.

        Args:
            records: the audit's, of the same time: one of them may tell what the policy decided, and one came with it.
        """
        records = list(records)
        body = message.body
        model, what, at = (str(body.get(name, "")) for name in ("model", "what", "at"))
        key = str(body.get("incident") or message.id.removesuffix(f":{what}").removeprefix(f"{model}:"))
        finding = self._body("finding", f"{model}/{key}")
        return self._alert(
            message.id,
            key,
            Action.TRIGGER,
            model,
            what,
            str(body.get("why", "")),
            at,
            owner=str(body.get("owner", "")),
            since=self._onset(model, key) or at,
            columns=tuple(map(_column, [*finding.get("columns", ())][:WORST])),
            decided=decided(records, model, key),
            trace_id=self._trace(model, next((one for one in records if one.seq == message.seq), None)),
        )

    def followed(self, record: AuditRecord, owner: str = "") -> Alert | None:
        """What became of an incident, or of ticks that failed: reopened, acknowledged or over; None where the record is
        of something else."""
        details, event = record.details, record.event
        key = details.get("closes") if event == "reference.frozen" else details.get("key")
        if not key or event not in (_REOPENED, _ACKNOWLEDGED, *_ENDS):
            return None
        action = Action.RESOLVE if event in _ENDS else Action.ACKNOWLEDGE
        by = "another version is watched" if event == "reference.frozen" else f"by {record.actor}"
        why, reason = by, str(details.get("reason", ""))
        if event == _REOPENED:
            if self._snoozed(record.subject, record.at):
                return None
            action, kpis = Action.TRIGGER, details.get("kpis") or {}
            why = "; ".join(f"{name} {kpi.get('verdict')}: {kpi.get('reason')}" for name, kpi in kpis.items())
        at, model = record.at, record.subject
        told = f"{why}: {reason}" if reason else why
        name = f"{model}:{key}:{event}:{record.seq}"
        trace = self._trace(model, record)
        return self._alert(name, str(key), action, model, event, told, at, owner=owner, since=at, trace_id=trace)

    def test(self, at: str) -> list[Alert]:
        """A trigger and its end, to try a channel with."""
        key = f"test-{at}"
        told = [(Action.TRIGGER, "alerts.test"), (Action.RESOLVE, "alerts.tested")]
        why = "somebody tries this channel: drift alerts test"
        return [self._alert(f"{key}:{what}", key, action, "", what, why, at, since=at) for action, what in told]

    def _alert(
        self, name: str, key: str, action: Action, model: str, what: str, why: str, at: str, **more: Any
    ) -> Alert:
        incident = name_of(self._environment, model, key)
        severity = Severity.PAGE if what.startswith(_PAGES) or what in _ENDS else Severity.TICKET
        link = f"{self._pages}/{quote(model)}" if self._pages and model else ""
        if link and (what.startswith("incident.") or what in _ENDS) and what != CONCERN_OVER:
            link += f"#incident-{quote(key)}"
        columns = tuple(map(_clean, more.pop("columns", ())))
        texts = {"id": name, "incident": incident, "environment": self._environment, "model": model, "what": what}
        texts = {"owner": "", **texts, "why": why, "at": at, "link": link, **more}
        commands = tuple(_commands(model, what)) if action is Action.TRIGGER else ()
        clean = {field: _clean(text) for field, text in texts.items()}
        return Alert(action=action, severity=severity, columns=columns, commands=commands, **clean)

    def _trace(self, model: str, record: AuditRecord | None) -> str:
        if record is None or record.subject != model:
            return ""
        key = key_of(self._store, model, record.event, record.details, record.digests)
        return trace_id(self._environment, model, key) if key else ""

    def _snoozed(self, model: str, at: str) -> bool:
        return at < str(self._body("snooze", model).get("until", ""))

    def _onset(self, model: str, key: str) -> str:
        incident = self._body("incident", model)
        return str(incident.get("onset") or "") if incident.get("key") == key else ""

    def _body(self, kind: str, key: str) -> Mapping[str, Any]:
        """Read once, for a storm is of a few incidents."""
        if (kind, key) not in self._read:
            found = self._store.get(kind, key)
            self._read[kind, key] = found.body if found else {}
        return self._read[kind, key]


def name_of(environment: str, model: str, key: str) -> str:
    """An incident's name, among all environments."""
    return "/".join(filter(None, (environment, model, key)))


def dedup_key(incident: str) -> str:
    """The key of an incident's page, 64 letters: the one that Alertmanager makes of its route and of the label.

    So PagerDuty takes what both tell for one. Alertmanager cannot be given a key: it is sha256 of the alert's group.
    """
    group = f"{ROUTE}:{{incident={json.dumps(incident, ensure_ascii=False)}}}"
    return hashlib.sha256(group.encode()).hexdigest()


def decided(records: Iterable[AuditRecord], model: str, key: str) -> str:
    """What the policy first said to the incident; "" where it was not asked yet."""
    for record in records:
        said = record.details
        if record.event == "decision.made" and record.subject == model and said.get("incident") == key:
            return f"{said.get('action')} ({said.get('decision')}): {'; '.join(map(str, said.get('reasons') or ()))}"
    return ""


def _column(found: Mapping[str, Any]) -> str:
    direction, psi = found.get("direction") or "no drift", found.get("psi")
    size = f", PSI {psi:.3g}" if isinstance(psi, int | float) else ""
    return f"{found.get('name')}: {direction}{size} over {found.get('window')}"


def _commands(model: str, what: str) -> Iterable[str]:
    if not model:
        return
    if what.startswith("incident."):
        yield f'drift incident ack {model} --reason "looking into it"'
    yield f"drift status {model}"
    yield f'drift rollback {model} --reason "WHY"'


def _clean(text: str) -> str:
    """What can be written as UTF-8, whatever a damaged row holds."""
    return text.encode("utf-8", "replace").decode()


def _line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
