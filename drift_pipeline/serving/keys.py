"""API keys of producers: who may ask and tell of which model, and how much a second. A key itself is never stored."""

import hashlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from drift_pipeline.control.store import ControlReader, ControlStore, Entry, Put, Record
from drift_pipeline.errors import InputError, IntegrityError, NothingToDoError

log = logging.getLogger(__name__)
KIND, ANY_MODEL = "producer", "*"


@dataclass(frozen=True)
class Producer:
    """`models` may be ("*",). `sha256` is the hex digest of the key.

    A plain hash is right for it: a key is 256 random bits, so there is nothing to guess that salt or slowness would
    hinder, and one look-up finds it. The look-up's time tells of the hash, which nobody can steer to a stored one.
    """

    name: str
    sha256: str
    models: tuple[str, ...]
    rows_per_second: int
    revoked: bool = False

    def may(self, model: str) -> bool:
        return model in self.models or ANY_MODEL in self.models

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "name"} | {"models": [*self.models]}


def key_hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def add_producer(store: ControlStore, name: str, models: Sequence[str], rows_per_second: int, actor: str) -> str:
    """The new key, which is told this once. A revoked name may be given a new one.

    Raises:
        InputError: the name has a key already, no model, or a rate below 1.
        ConflictError: somebody else changed the producer meanwhile.
    """
    if not name or not models or rows_per_second < 1:
        raise InputError(f"a producer has a name, models and a rate of 1 row a second or more, not {name!r}, {models}")
    found = store.get(KIND, name)
    if found is not None and not found.body["revoked"]:
        raise InputError(f"the producer {name} has a key already; revoke it first")
    key = secrets.token_urlsafe(32)
    producer = Producer(name, key_hash(key), tuple(models), rows_per_second)
    _commit(store, "producer.added", producer, found.generation if found else 0, actor)
    return key


def revoke_producer(store: ControlStore, name: str, actor: str, reason: str) -> None:
    """Its key is refused from the next second on.

    Raises:
        InputError: there is no such producer.
        NothingToDoError: its key was revoked before.
    """
    found = store.get(KIND, name)
    if found is None:
        known = ", ".join(record.key for record in store.find(KIND)) or "none"
        raise InputError(f"there is no producer {name!r}; there are: {known}")
    if found.body["revoked"]:
        raise NothingToDoError(f"{name}: its key was revoked before")
    revoked = Producer(**{**asdict(_producer(found)), "revoked": True})
    _commit(store, "producer.revoked", revoked, found.generation, actor, reason=reason)


def producers(store: ControlReader) -> list[Producer]:
    """All, revoked ones too; a row that is damaged, or was written beside the audit, is nobody's."""
    return [found for name in store.keys(KIND) if (found := _attested(store, name)) is not None]


def _attested(store: ControlReader, name: str) -> Producer | None:
    try:
        record = store.get(KIND, name)
        return _producer(store.attest(record)) if record else None
    except IntegrityError as error:
        log.error("producer %s: %s", name, error)
        return None


def refused(store: ControlStore, producer: str, model: str) -> None:
    """Record that a producer asked for what is not its own."""
    store.commit(Entry("gateway", "producer.refused", producer, details={"model": model}))


def _commit(store: ControlStore, event: str, producer: Producer, generation: int, actor: str, **told: str) -> None:
    details = {"models": [*producer.models], "rows_per_second": producer.rows_per_second, **told}
    entry = Entry(actor, event, producer.name, details=details)
    store.commit(entry, [Put(KIND, producer.name, producer.to_json(), generation)])


def _producer(record: Record) -> Producer:
    return Producer(record.key, **{**record.body, "models": tuple(record.body["models"])})
