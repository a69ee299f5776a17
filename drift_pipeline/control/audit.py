"""The audit chain's records: each carries the hash of the one before, and digests of the state that it wrote."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import NoneType
from typing import Any

from drift_pipeline.control.canonical import canonical, read_canonical, sha256
from drift_pipeline.errors import InputError, IntegrityError

GENESIS = "0" * 64
ERASED = "erased"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """What the audit record of a transition will say: digests of what it touched, never a raw row.

    `event="erased"` says that its digests are gone on purpose (erasure, retention).
    """

    actor: str
    event: str
    subject: str
    digests: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    policy_digest: str | None = None


@dataclass(frozen=True)
class Wrote:
    """Digests of what a record's transaction wrote: `state` by kind and key, `outbox` by the message's id."""

    state: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    outbox: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditRecord:
    """One link: hash = hex(sha256(JCS(every field but the hash))), `prev` the hash of record seq - 1."""

    seq: int
    prev: str
    at: str
    actor: str
    event: str
    subject: str
    digests: Mapping[str, str]
    policy_digest: str | None
    details: Mapping[str, Any]
    wrote: Wrote = Wrote()
    hash: str = ""

    @cached_property
    def body(self) -> bytes:
        """The hashed bytes, which are also the stored ones."""
        fields = {name: getattr(self, name) for name in _SHAPE}
        return canonical({**fields, "wrote": {"state": self.wrote.state, "outbox": self.wrote.outbox}})

    def computed_hash(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


_SHAPE: dict[str, Any] = {
    **dict.fromkeys(("prev", "at", "actor", "event", "subject"), str),
    **{"seq": int, "digests": dict, "details": dict, "policy_digest": str | NoneType, "wrote": dict},
}


def timestamp(at: datetime) -> str:
    """ISO 8601 in UTC with microseconds: `2026-03-01T00:00:00.000000Z`; InputError for a naive time."""
    if at.tzinfo is None:
        raise InputError(f"{at!r} has no time zone; the control store wants aware times")
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def state_digest(generation: int, body: str | bytes) -> str:
    """Of a row of state: its generation and its body, as they are stored."""
    return sha256(f"{generation}\n".encode() + _stored(body))


def message_digest(topic: str, body: str | bytes) -> str:
    """Of a message in the outbox: its topic and its body, as they are stored."""
    return sha256(canonical(topic) + b"\n" + _stored(body))


def _stored(body: str | bytes) -> bytes:
    return body if isinstance(body, bytes) else body.encode(errors="surrogateescape")


def seal(entry: Entry, at: datetime, seq: int = 1, prev: str = GENESIS, wrote: Wrote = Wrote()) -> AuditRecord:
    """Record number `seq`, which follows the record whose hash is `prev` (the first one: 64 zeros).

    Raises:
        InputError: a digest that is not `sha256:<64 hex>`, or details that are not JSON.
    """
    if bad := _malformed(entry.digests, entry.policy_digest):
        raise InputError(f"{entry.event} {entry.subject}: {bad}")
    record = AuditRecord(
        seq=seq,
        prev=prev,
        at=timestamp(at),
        actor=entry.actor,
        event=entry.event,
        subject=entry.subject,
        digests=dict(entry.digests),
        policy_digest=entry.policy_digest,
        details=dict(entry.details),
        wrote=wrote,
    )
    vars(record)["hash"] = record.computed_hash()  # nobody else has it yet
    return record


def read_record(body: str | bytes, hash: str) -> AuditRecord:
    """A stored record. Its form is checked here, its place in the chain by `verify`.

    Raises:
        IntegrityError: the body is not canonical JSON, or has not the fields of a record.
    """
    fields = read_canonical(body)
    if not isinstance(fields, dict) or fields.keys() != _SHAPE.keys():
        raise IntegrityError(f"a record has the fields {', '.join(sorted(_SHAPE))} and no others")
    for name, kind in _SHAPE.items():
        if type(fields[name]) is not kind and not isinstance(fields[name], kind):
            raise IntegrityError(f"field {name} of a record cannot be {fields[name]!r}")
    if bad := _malformed(fields["digests"], fields["policy_digest"]):
        raise IntegrityError(bad)
    record = object.__new__(AuditRecord)  # the fields are checked: __init__ of a frozen class would take a tenth of all
    vars(record).update(
        fields,
        wrote=_read_wrote(fields["wrote"]),
        hash=hash,
        body=body.encode() if isinstance(body, str) else body,  # it was canonical: its only spelling
    )
    return record


def _read_wrote(found: Mapping[str, Any]) -> Wrote:
    state, outbox = found.get("state"), found.get("outbox")
    parts: list[Any] = [*state.values(), outbox] if isinstance(state, dict) else [None]
    for part in parts:
        if len(found) != 2 or not isinstance(part, dict):
            raise IntegrityError(f"field wrote of a record cannot be {found!r}")
        if bad := _malformed(part, None):
            raise IntegrityError(bad)
    return Wrote(state or {}, outbox or {})


def _malformed(digests: Mapping[str, object], policy_digest: object) -> str:
    """The first digest that is none, as a sentence; empty when all are well-formed."""
    named = digests if policy_digest is None else {**digests, "policy_digest": policy_digest}
    for name, digest in named.items():
        if not _DIGEST.fullmatch(str(digest)):
            return f"digest {name} is {digest!r}, not sha256:<64 hex digits>"
    return ""
