"""One model's entries in the control store: their names, and their change in one transaction with audit and alerts."""

from collections.abc import Mapping, Sequence
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.store import AuditRecord, ControlStore, Entry, Message, Put
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec

ALERTS = "alerts"


class Ledger:
    """State is named `kind`, or `kind/rest of the key` where a model has several of a kind."""

    def __init__(self, spec: ModelSpec, store: ControlStore, clock: Clock) -> None:
        self._spec, self._store, self._clock = spec, store, clock

    def find(self, name: str) -> Mapping[str, Any] | None:
        """State of this model; None where it was never written."""
        record = self._store.get(*self._place(name))
        return record.body if record else None

    def get(self, name: str) -> Mapping[str, Any]:
        """State of this model. Raises InputError where it was never written."""
        found = self.find(name)
        if found is None:
            raise InputError(f"{self._spec.name}: the control store holds no {name}; adopt the model first")
        return found

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
    ) -> AuditRecord:
        """State, audit record and messages in one transaction."""
        changed = []
        for name, body in (puts or {}).items():
            kind, key = self._place(name)
            before = self._store.get(kind, key)
            changed.append(Put(kind, key, body, before.generation if before else 0))
        entry = Entry(actor, str(event), self._spec.name, digests or {}, details, policy_digest)
        return self._store.commit(entry, changed, messages)

    def alert(self, key: str, what: str, why: str) -> Message:
        """One page an incident and one a rolled-back rollout: the id says what it is about."""
        body = {"model": self._spec.name, "what": str(what), "why": why, "at": self._clock.now().isoformat()}
        return Message(f"{self._spec.name}:{key}:{what}", ALERTS, {**body, "owner": self._spec.owner})

    def _place(self, name: str) -> tuple[str, str]:
        kind, _, rest = name.partition("/")
        return kind, f"{self._spec.name}/{rest}" if rest else self._spec.name
