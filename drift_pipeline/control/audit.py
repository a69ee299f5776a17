"""The audit chain: records that carry the hash of the one before, signed checkpoints over them, verification."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import NoneType
from typing import Any

from drift_pipeline.control import signing
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.merkle import Tree
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.errors import DriftError, InputError, IntegrityError

GENESIS = "0" * 64
CHECKPOINT_TYPE = "application/vnd.drift-pipeline.checkpoint+json"
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
    hash: str = ""

    def body(self) -> bytes:
        """The hashed bytes, which are also the stored ones."""
        return canonical({name: getattr(self, name) for name in _SHAPE})

    def computed_hash(self) -> str:
        return hashlib.sha256(self.body()).hexdigest()


_SHAPE: dict[str, Any] = {
    **dict.fromkeys(("prev", "at", "actor", "event", "subject"), str),
    **{"seq": int, "digests": dict, "details": dict, "policy_digest": str | NoneType},
}


def timestamp(at: datetime) -> str:
    """ISO 8601 in UTC with microseconds: `2026-03-01T00:00:00.000000Z`; InputError for a naive time."""
    if at.tzinfo is None:
        raise InputError(f"{at!r} has no time zone; the control store wants aware times")
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seal(entry: Entry, at: datetime, seq: int = 1, prev: str = GENESIS) -> AuditRecord:
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
    )
    return replace(record, hash=record.computed_hash())


def read_record(body: str | bytes, hash: str) -> AuditRecord:
    """A stored record. Its form is checked here, its place in the chain by `verify`.

    Raises:
        IntegrityError: the body is not canonical JSON, or has not the fields of a record.
    """
    fields = read_canonical(body)
    if not isinstance(fields, dict) or fields.keys() != _SHAPE.keys():
        raise IntegrityError(f"a record has the fields {', '.join(sorted(_SHAPE))} and no others")
    for name, kind in _SHAPE.items():
        if not isinstance(fields[name], kind):
            raise IntegrityError(f"field {name} of a record cannot be {fields[name]!r}")
    if bad := _malformed(fields["digests"], fields["policy_digest"]):
        raise IntegrityError(bad)
    return AuditRecord(**fields, hash=hash)


def _malformed(digests: Mapping[str, object], policy_digest: object) -> str:
    """The first digest that is none, as a sentence; empty when all are well-formed."""
    named = [*digests.items()] + ([] if policy_digest is None else [("policy_digest", policy_digest)])
    bad = ((name, digest) for name, digest in named if not _DIGEST.fullmatch(str(digest)))
    return next((f"digest {name} is {digest!r}, not sha256:<64 hex digits>" for name, digest in bad), "")


def checkpoint(records: Iterable[AuditRecord], signer: Signer, origin: str, at: datetime) -> dict[str, Any]:
    """Signed tree head of the whole chain, to be kept where the store's owner cannot change it.

    Payload: `{origin, size, root, head, at, signer}`; origin names the store, so that one key may serve several.

    Raises:
        IntegrityError: the chain does not hold; a broken one is never signed.
    """
    walk = _walk(records, frozenset())
    if walk.fault:
        raise IntegrityError(f"no checkpoint of a broken chain: record {walk.fault[0]}: {walk.fault[1]}")
    root = walk.tree.head().hex()
    claim = {"origin": origin, "size": walk.count, "root": root, "head": walk.head, "at": timestamp(at)}
    return signer.sign({**claim, "signer": str(signer.public)}, CHECKPOINT_TYPE)


@dataclass(frozen=True)
class Verification:
    """`records` counts the good ones from the start, `head` is the last one's hash, `covered` how many are signed.

    `first_bad` is None for a chain without fault, and for a checkpoint that itself cannot be believed.
    """

    ok: bool
    records: int
    head: str
    first_bad: int | None = None
    reason: str = ""
    covered: int = 0


def verify(
    records: Iterable[AuditRecord],
    *,
    checkpoints: Iterable[Mapping[str, Any]] = (),
    keys: Mapping[str, PublicKey] | None = None,
    exists: Callable[[str], bool] | None = None,
    origin: str | None = None,
) -> Verification:
    """Check the chain from record 1: numbers without gap, links, hashes, spelling, checkpoints, named digests.

    A digest must exist (`exists("sha256:...")`) unless an `erased` record that comes after its last mention
    covers it. A tail that was cut is found by a checkpoint that counts more records; a history that was rewritten
    as a whole by one whose root differs, and then the first bad record is only known to be no earlier than
    `first_bad`, the first one past the last good checkpoint.

    What this cannot detect:
      - records cut from the tail, or rewritten, after the last checkpoint that is passed in;
      - anything by whoever holds both a signing key and the storage, back to the last checkpoint that was copied
        to a place out of their reach; checkpoints that the caller was not given;
      - what was never recorded: a row of state or outbox changed beside `ControlStore.commit`, an actor or a time
        that was wrong when it was written;
      - an artefact whose bytes changed, when `exists` does not hash them; an `erased` record that should not be.

    Errors of `exists`, such as UnavailableError, pass through: the question is then undecided.
    """
    claims, forged = _read_checkpoints(checkpoints, keys or {}, origin)
    walk = _walk(records, {claim["size"] for claim in claims})
    covered, contradicted = _compare(walk, claims)
    faults = [fault for fault in (walk.fault, contradicted, _missing(walk, exists)) if fault]
    if faults:
        first_bad, reason = min(faults, key=lambda fault: fault[0])
        return Verification(False, walk.count, walk.head, first_bad, "; ".join([reason, *forged]), covered)
    return Verification(not forged, walk.count, walk.head, None, "; ".join(forged), covered)


class _Walk:
    """One pass over the records: what was good, the tree heads on the way, and the first fault."""

    def __init__(self) -> None:
        self.count = 0
        self.head = GENESIS
        self.tree = Tree()
        self.roots: dict[int, str] = {}
        self.named: dict[str, int] = {}
        self.fault: tuple[int, str] | None = None

    def step(self, record: AuditRecord) -> None:
        due = self.count + 1
        if record.seq != due:
            raise IntegrityError(f"record {due} is due, record {record.seq} stands there")
        if record.computed_hash() != record.hash:
            raise IntegrityError("its hash is not the hash of its content")
        if record.prev != self.head:
            raise IntegrityError(f"it does not follow the record before it: prev is {record.prev}, not {self.head}")
        self.count, self.head = due, record.hash
        self.tree.append(bytes.fromhex(record.hash))
        self._remember(record)

    def _remember(self, record: AuditRecord) -> None:
        if record.event == ERASED:
            for digest in record.digests.values():
                self.named.pop(digest, None)
        else:
            for digest in record.digests.values():
                self.named.setdefault(digest, record.seq)
        if record.policy_digest is not None:
            self.named.setdefault(record.policy_digest, record.seq)


def _walk(records: Iterable[AuditRecord], sizes: Collection[int]) -> _Walk:
    walk = _Walk()
    walk.roots[0] = walk.tree.head().hex()
    try:
        for record in records:
            walk.step(record)
            if walk.count in sizes:
                walk.roots[walk.count] = walk.tree.head().hex()
    except (IntegrityError, InputError) as error:
        walk.fault = (walk.count + 1, str(error))
    return walk


def _read_checkpoints(
    envelopes: Iterable[Mapping[str, Any]], keys: Mapping[str, PublicKey], origin: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """The claims that can be believed, smallest first, and why the others cannot."""
    claims, forged = [], []
    for number, envelope in enumerate(envelopes, start=1):
        try:
            claim, _ = signing.verify(envelope, keys, CHECKPOINT_TYPE)
            if origin is not None and claim["origin"] != origin:
                raise IntegrityError(f"it is of {claim['origin']!r}, not of {origin!r}")
            claims.append({"size": int(claim["size"]), "root": str(claim["root"]), "at": claim["at"]})
        except (DriftError, KeyError, ValueError, TypeError) as error:
            forged.append(f"checkpoint {number}: {error}")
    return sorted(claims, key=lambda claim: claim["size"]), forged


def _compare(walk: _Walk, claims: Iterable[Mapping[str, Any]]) -> tuple[int, tuple[int, str] | None]:
    """How many records the agreeing checkpoints cover, and the first contradiction."""
    covered = 0
    for claim in claims:
        size = claim["size"]
        signed = f"the checkpoint of {claim['at']}"
        if size > walk.count:
            return covered, (walk.count + 1, f"{signed} counts {size} records, {walk.count} hold")
        if walk.roots.get(size) != claim["root"]:
            return covered, (covered + 1, f"records {covered + 1} to {size} are not those of {signed}")
        covered = size
    return covered, None


def _missing(walk: _Walk, exists: Callable[[str], bool] | None) -> tuple[int, str] | None:
    """The first record that names a digest which is neither there nor erased; each digest is asked for once."""
    if exists is None:
        return None
    gone = ((seq, digest) for digest, seq in walk.named.items() if not exists(digest))
    return next(((seq, f"it names {digest}, which is neither there nor erased") for seq, digest in gone), None)
