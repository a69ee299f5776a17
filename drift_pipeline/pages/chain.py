"""The audit chain as pages need it: the records of each model, read on from where the last look ended."""

from collections.abc import Sequence
from threading import Lock

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import AuditRecord

_TOLD = {
    *("approval", "candidate", "decision", "documents", "incident", "model", "monitoring", "reference", "rollout"),
    *("training", "waiver"),
}


class Chain:
    """Grows by what was written since the last look; where the store is another one meanwhile it begins anew."""

    def __init__(self) -> None:
        self._records: dict[str, list[AuditRecord]] = {}
        self._last: tuple[int, str] | None = None
        self._lock = Lock()

    def of(self, store: ControlReader, model: str) -> Sequence[AuditRecord]:
        """All records that a page tells of the model, in their order. Raises as `ControlReader.records`."""
        with self._lock:
            if not self._goes_on(store):
                self._records, self._last = {}, None
            for record in store.records(self._last[0] if self._last else None):
                self._last = record.seq, record.hash
                if record.event.partition(".")[0] in _TOLD:
                    self._records.setdefault(record.subject, []).append(record)
            return tuple(self._records.get(model, ()))

    def _goes_on(self, store: ControlReader) -> bool:
        if self._last is None:
            return True
        found = next(store.records(self._last[0] - 1), None)
        return found is not None and (found.seq, found.hash) == self._last
