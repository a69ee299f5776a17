"""One model's entries in the control store: their names, and their change in one transaction with audit and alerts."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import Clock
from drift_pipeline.control.store import AuditRecord, ControlStore, Entry, Message, Put
from drift_pipeline.control.traces import key_of, trace_id
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import ConflictError, InputError, IntegrityError
from drift_pipeline.spec import ModelSpec

log = logging.getLogger(__name__)


class Ledger:
    """State is named `kind`, or `kind/rest of the key` where a model has several of a kind.

    What was read is what a change is based on: `commit` raises ConflictError where somebody else changed it since.
    What is read is what its audit record says was written: else reading it raises IntegrityError.
    """

    def __init__(self, spec: ModelSpec, store: ControlStore, clock: Clock, environment: str = "") -> None:
        """environment: of which traces are named; "" = lines about records name no trace."""
        self._spec, self._store, self._clock, self._environment = spec, store, clock, environment
        self._read: dict[str, int] = {}
        self._ticked = 0

    def find(self, name: str) -> Mapping[str, Any] | None:
        """State of this model; None where it was never written."""
        record = self._store.get(*self._place(name))
        if record is not None:
            self._store.attest(record)
        self._read[name] = record.generation if record else 0
        return record.body if record else None

    def get(self, name: str) -> Mapping[str, Any]:
        """State of this model. Raises InputError where it was never written."""
        found = self.find(name)
        if found is None:
            raise InputError(f"{self._spec.name}: the control store holds no {name}; adopt the model first")
        return found

    def is_amiss(self, name: str) -> bool:
        """Whether its row is gone or not what the audit wrote; nothing of that is read, and a commit may replace it."""
        record = self._store.get(*self._place(name))
        self._read[name] = record.generation if record else 0
        try:
            return record is None or not self._store.attest(record)
        except IntegrityError:
            return True

    def history(self) -> list[AuditRecord]:
        """This model's audit records. Raises IntegrityError where the chain does not hold."""
        found = verify(self._store.records())
        if not found.ok:
            raise IntegrityError(
                f"the audit does not hold from record {found.first_bad} on: {found.reason}; nothing was changed: see "
                "drift audit verify, and restore the control store from a copy that verifies"
            )
        return [record for record in self._store.records() if record.subject == self._spec.name]

    def whole(self, kind: str) -> list[Mapping[str, Any]]:
        """As `all`, without those that were changed beside the audit."""
        found = []
        for record in self._store.find(kind, f"{self._spec.name}/"):
            with suppress(IntegrityError):
                found.append(self._store.attest(record).body)
        return found

    def all(self, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
        """All of a kind of which a model has several, as (name, body), by name."""
        found = [self._store.attest(record) for record in self._store.find(kind, f"{self._spec.name}/")]
        names = [(f"{kind}/{record.key.removeprefix(f'{self._spec.name}/')}", record) for record in found]
        self._read |= {name: record.generation for name, record in names}
        return [(name, record.body) for name, record in names]

    def commit(
        self,
        event: str,
        details: Mapping[str, Any],
        digests: Mapping[str, str] | None = None,
        *,
        puts: Mapping[str, Mapping[str, Any]] | None = None,
        messages: Sequence[Message] = (),
        actor: str = "loop",
        policy_digest: str | None = None,
        memory: Mapping[str, Any] | None = None,
        kpis: Mapping[str, Any] | None = None,
    ) -> AuditRecord:
        """State, audit record, messages and what the tick remembers, in one transaction; `kpis` as of `remember`.

        Raises:
            ConflictError: state that was read, or the tick, has moved on since. Nothing is written: read it again.
        """
        changed = []
        for name, body in (puts or {}).items():
            if name not in self._read:
                self.find(name)
            changed.append(Put(*self._place(name), body, self._read[name]))
        entry = Entry(actor, str(event), self._spec.name, digests or {}, details, policy_digest)
        remembered = () if memory is None else self._remembered(memory, kpis)
        try:
            record = self._store.commit(entry, changed, messages, remembered)
        except ConflictError:
            self._read.clear()
            raise
        for name in puts or {}:
            self._read[name] += 1
        self._ticked += memory is not None
        log.info("%s: %s", self._spec.name, entry.event, extra={**_about(entry), **self._trace(entry)})
        return record

    def _trace(self, entry: Entry) -> dict[str, str]:
        if not self._environment or not log.isEnabledFor(logging.INFO):
            return {}
        key = key_of(self._store, entry.subject, entry.event, entry.details, entry.digests)
        return {"trace_id": trace_id(self._environment, entry.subject, key)} if key else {}

    def remember(self, memory: Mapping[str, Any], kpis: Mapping[str, Any] | None = None) -> None:
        """What the next tick goes on from. Raises ConflictError where another process ticked since it was recalled.

        Args:
            kpis: what this tick said of them, for `kpi_history`; beside what the ticks before said.
        """
        self._store.remember(*self._remembered(memory, kpis))
        self._ticked += 1

    def _remembered(self, memory: Mapping[str, Any], kpis: Mapping[str, Any] | None) -> list[Put]:
        """The number of the tick is part of the key: two ticks of one time are two."""
        model = self._spec.name
        said = [] if kpis is None else [Put("", f"{kpis_prefix(model)}{self._ticked:012d}", kpis)]
        return [Put("", model, memory, self._ticked), *said]

    def kpis(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What ticks said of the KPIs and is not in the lake yet, by a name to `forget` it by; oldest first."""
        return [(record.key, record.body) for record in self._store.recalled(kpis_prefix(self._spec.name))]

    def forget(self, names: Sequence[str]) -> None:
        """Of `kpis`, what is in the lake."""
        self._store.forget(names)

    def recall(self) -> Mapping[str, Any] | None:
        """What the last tick remembered, of whichever process it was; None before the first."""
        record = self._store.recall(self._spec.name)
        self._ticked = record.generation if record else 0
        return record.body if record else None

    def moved_on(self) -> bool:
        """Whether another process ticked since this one last remembered or recalled."""
        record = self._store.recall(self._spec.name)
        return (record.generation if record else 0) != self._ticked

    def beat(self, name: str) -> None:
        """Tell that what goes by this name goes on; from a thread beside the one that works on the ledger."""
        key, at = f"{self._spec.name}/{name}", self._clock.now().isoformat()
        record = self._store.recall(key)
        self._store.remember(Put("", key, {"at": at}, record.generation if record else 0))

    def last_beat(self, name: str) -> datetime | None:
        """When `beat` was last called for the name, in whichever process; None where it never was."""
        record = self._store.recall(f"{self._spec.name}/{name}")
        return datetime.fromisoformat(record.body["at"]) if record else None

    def alert(self, key: str, what: str, why: str) -> Message:
        """One page an incident and one a rolled-back rollout: the id says what it is about."""
        body = {"model": self._spec.name, "what": str(what), "why": why, "at": self._clock.now().isoformat()}
        return Message(f"{self._spec.name}:{key}:{what}", ALERTS, {**body, "owner": self._spec.owner})

    def _place(self, name: str) -> tuple[str, str]:
        kind, _, rest = name.partition("/")
        return kind, f"{self._spec.name}/{rest}" if rest else self._spec.name


def kpis_prefix(model: str) -> str:
    """What the keys start with under which ticks remember what they said of a model's KPIs."""
    return f"{model}/kpis/"


def _about(entry: Entry) -> dict[str, str]:
    """What a line about a record says of it; its details, its actor and its reasons stay in the audit."""
    said, incident = entry.details, "key" if entry.event.startswith("incident.") else "incident"
    keys = {"incident": incident, "decision": "decision", "rollout": "rollout_id"}
    found = {field: said[key] for field, key in keys.items() if isinstance(said.get(key), str)}
    return {"model": entry.subject, **found}
