"""Verification of an audit chain: links, signed checkpoints, the digests that it names, and the state that it wrote."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.control.audit import ERASED, GENESIS, AuditRecord, Wrote
from drift_pipeline.control.checkpoints import KEY_EVENTS, Claim, claimed_size, read_claim
from drift_pipeline.control.merkle import Tree, levels
from drift_pipeline.control.rows import Snapshot
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.errors import DriftError, InputError, IntegrityError

Fault = tuple[int, str]  # the first bad record, and why
MOST_TOLD = 3  # checkpoints that cannot be believed


@dataclass(frozen=True)
class Verification:
    """`records` counts the good ones from the start, `head` is the last one's hash, `covered` how many are signed, by
    `checkpoints` that can be believed, the last of them signed at `signed_at`.

    `first_bad` is None for a chain without fault, and for a checkpoint that itself cannot be believed. `signers` are
    the key ids of who signed those that can be.
    """

    ok: bool
    records: int
    head: str
    first_bad: int | None = None
    reason: str = ""
    covered: int = 0
    checkpoints: int = 0
    signed_at: datetime | None = None
    signers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Cover:
    """How much a live chain may be ahead of its last checkpoint: so many records, and for so long."""

    records: int
    lasting: timedelta


def verify(
    records: Iterable[AuditRecord],
    *,
    checkpoints: Iterable[tuple[str, Mapping[str, Any] | DriftError]] = (),
    exists: Callable[[str], bool] | None = None,
    snapshot: Snapshot | None = None,
    wanted: Cover | None = None,
    kept: tuple[str, Mapping[str, Any]] | None = None,
) -> Verification:
    """Check the chain from record 1: numbers without gap, links, hashes, spelling, checkpoints, named digests, state.

    The key of the checkpoints is the one that the chain's own record of `KEY_EVENTS` names; each checkpoint names the
    key of the next one, so another key counts only once the one before it has signed for it. A digest must exist
    (`exists("sha256:...")`) unless an `erased` record that comes after its last mention covers it. A tail that was cut
    is found by a checkpoint that counts more records; a history that was rewritten as a whole by one whose root
    differs, and then the first bad record is only known to be no earlier than `first_bad`, the first one past the last
    good checkpoint. The records are read once, in order, and are not kept.

    Args:
        checkpoints: by name, or why one cannot be read.
        snapshot: state and outbox, each row of which has to be what the last record that names it wrote.
        wanted: what has to be covered by checkpoints; None = whatever is.
        kept: a checkpoint that somebody kept elsewhere, by name: the chain has to go on from it.

    What this cannot detect:
      - records cut from the tail, or rewritten, after the last checkpoint that is passed in;
      - anything by whoever holds both a signing key and the storage, back to the last checkpoint that was copied
        to a place out of their reach; checkpoints that the caller was not given;
      - what was never recorded: what a tick remembers (`memory`), whether and when a message was delivered, an actor
        or a time that was wrong when it was written;
      - an artefact whose bytes changed, when `exists` does not hash them; an `erased` record that should not be.

    Errors of `exists`, such as UnavailableError, pass through: the question is then undecided.
    """
    named = sorted(checkpoints, key=lambda named: _size(named[1]))
    walk = _walk(records, _sizes([*named, *([kept] if kept else [])]), snapshot)
    claims, forged = _believed(named, walk)
    covered, contradicted = _compare(walk, claims)
    faults = (walk.fault, contradicted, _extends(walk, *kept) if kept else None, _missing(walk, exists))
    told = [fault for fault in faults if fault] or walk.beside
    at = datetime.fromisoformat(claims[-1].at) if claims else None
    if not told and not forged and (uncovered := _uncovered(walk, covered, at, wanted)):
        forged = [uncovered]
    first_bad, why = min(told, default=(None, ""))
    more = [f"and {len(forged) - MOST_TOLD} more checkpoints"] if len(forged) > MOST_TOLD else []
    reason = "; ".join(filter(None, [why, *forged[:MOST_TOLD], *more]))
    signers = frozenset(claim.signer for claim in claims)
    return Verification(not reason, walk.count, walk.head, first_bad, reason, covered, len(claims), at, signers)


class _Walk:
    """One pass over the records: what was good, the tree heads on the way, and the first fault."""

    def __init__(self, sizes: Collection[int], snapshot: Snapshot | None) -> None:
        self.count = 0
        self.head = GENESIS
        self.tree = Tree()
        self.roots: dict[int, str] = {0: self.tree.head().hex()}
        self.peaks: dict[int, tuple[str, ...]] = {0: ()}
        self.times: dict[int, str] = {}  # of the first record past each size
        self.last_two: tuple[str, ...] = ()
        self.named: dict[str, int] = {}
        self.keys: list[tuple[int, PublicKey]] = []
        self.fault: Fault | None = None
        self.beside: list[Fault] = []
        self._sizes, self._snapshot = sizes, snapshot
        self._state: dict[tuple[str, str], tuple[int, str]] = {}
        self._outbox: dict[str, tuple[int, str]] = {}

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
        if due in self._sizes:
            self.roots[due] = self.tree.head().hex()
            self.peaks[due] = tuple(peak.hex() for peak in self.tree.peaks)
        if self._snapshot is not None and due == self._snapshot.head:
            self.hold()

    def hold(self) -> None:
        """Hold state and outbox, once, against what the records so far wrote."""
        if self._snapshot is None:
            return
        faults = _differences("state", self._state, self._snapshot.state, self.count)
        faults += _differences("message", self._outbox, self._snapshot.outbox, self.count)
        self.beside, self._snapshot = sorted(faults)[:1], None
        if len(faults) > 1:
            self.beside = [(self.beside[0][0], f"{self.beside[0][1]} (and {len(faults) - 1} more)")]

    def _remember(self, record: AuditRecord) -> None:
        if record.event == ERASED:
            for digest in record.digests.values():
                self.named.pop(digest, None)
        else:
            for digest in record.digests.values():
                self.named.setdefault(digest, record.seq)
        if record.policy_digest is not None:
            self.named.setdefault(record.policy_digest, record.seq)
        if record.event in KEY_EVENTS:
            self.keys.append((record.seq, _key(record)))
        if record.seq - 1 in self._sizes or record.seq == 1:
            self.times[record.seq] = record.at
        self.last_two = (*self.last_two[-1:], record.at)
        self._replay(record.seq, record.wrote)

    def _replay(self, seq: int, wrote: Wrote) -> None:
        for kind, keys in wrote.state.items():
            for key, digest in keys.items():
                self._state[kind, key] = seq, digest
        for message, digest in wrote.outbox.items():
            self._outbox[message] = seq, digest


def _key(record: AuditRecord) -> PublicKey:
    try:
        return PublicKey(bytes.fromhex(record.details["public"]))
    except (LookupError, TypeError, ValueError) as error:
        raise IntegrityError(f"it names no key: {error}") from error


def _differences(
    what: str, wrote: Mapping[Any, tuple[int, str]], found: Mapping[Any, tuple[int, str]], count: int
) -> list[Fault]:
    """Rows that are gone, that were changed, and that none of so many records wrote."""
    faults = []
    for place, (seq, digest) in wrote.items():
        if place not in found:
            faults.append((seq, f"the {what} {_spelt(place)} that it wrote is gone"))
        elif found[place] != (seq, digest) and not _later(found[place][0], count):
            faults.append((seq, f"the {what} {_spelt(place)} is not what it wrote"))
    for place, (seq, _) in found.items():
        if _later(seq, count):
            faults.append((count + 1, f"record {seq}, which wrote the {what} {_spelt(place)}, is not there"))
        elif place not in wrote:
            at = seq if isinstance(seq, int) and seq > 0 else 1
            faults.append((at, f"the {what} {_spelt(place)} was written by no record"))
    return faults


def _later(seq: object, count: int) -> bool:
    return isinstance(seq, int) and seq > count


def _spelt(place: object) -> str:
    return " ".join(map(str, place)) if isinstance(place, tuple) else str(place)


def _walk(records: Iterable[AuditRecord], sizes: Collection[int], snapshot: Snapshot | None) -> _Walk:
    walk = _Walk(sizes, snapshot)
    try:
        for record in records:
            walk.step(record)
        walk.hold()
    except (IntegrityError, InputError) as error:
        walk.fault = (walk.count + 1, str(error))
    return walk


def _sizes(named: Iterable[tuple[str, Mapping[str, Any] | DriftError]]) -> set[int]:
    """What the checkpoints say that they count, whether they can be believed or not: the chain is read once."""
    return {_size(envelope) for _, envelope in named}


def _size(envelope: Mapping[str, Any] | DriftError) -> int:
    return -1 if isinstance(envelope, DriftError) else claimed_size(envelope)


def _believed(
    named: Iterable[tuple[str, Mapping[str, Any] | DriftError]], walk: _Walk
) -> tuple[list[Claim], list[str]]:
    """The claims that can be believed, smallest first, and why the others cannot."""
    claims: list[Claim] = []
    forged: list[str] = []
    if walk.fault and not walk.keys:
        return claims, forged  # nothing is known of the keys, and the fault is told
    keys = {key.key_id: key for _, key in walk.keys}
    wanted = walk.keys[0][1].key_id if walk.keys else ""
    for name, envelope in named:
        try:
            if isinstance(envelope, DriftError):
                raise envelope
            claim = read_claim(envelope, keys)
            if claim.signer != wanted:
                raise IntegrityError(f"{claim.signer[:16]} signed it, where {wanted[:16]} has to")
            if claim.next not in keys:
                raise IntegrityError(f"it hands over to {claim.next[:16]}, a key that no record names")
            claim.tree()
        except DriftError as error:
            forged.append(f"checkpoint {name}: {error}")
            continue
        claims.append(claim)
        wanted = claim.next
    return claims, forged


def _compare(walk: _Walk, claims: Iterable[Claim]) -> tuple[int, Fault | None]:
    """How many records the agreeing checkpoints cover, and the first contradiction."""
    covered = 0
    for claim in claims:
        signed = f"the checkpoint of {claim.at}"
        if claim.size > walk.count:
            return covered, (walk.count + 1, f"{signed} counts {claim.size} records, {walk.count} hold")
        if claim.size < covered or walk.roots.get(claim.size) != claim.root:
            return covered, (covered + 1, f"records {covered + 1} to {claim.size} are not those of {signed}")
        covered = claim.size
    return covered, None


def _extends(walk: _Walk, name: str, envelope: Mapping[str, Any]) -> Fault | None:
    """Where the chain first differs from the one that the checkpoint was signed of: at a peak of its tree."""
    try:
        claim = read_claim(envelope, {key.key_id: key for _, key in walk.keys})
        claim.tree()
    except IntegrityError as error:
        return 1, f"{name}: {error}"
    if claim.size > walk.count:
        return walk.count + 1, f"{name} counts {claim.size} records, {walk.count} hold"
    start = 0
    for level, (ours, theirs) in zip(
        levels(claim.size), zip(walk.peaks[claim.size], claim.peaks, strict=True), strict=True
    ):
        if ours != theirs:
            return start + 1, f"records {start + 1} to {start + 2**level} are not those of {name}"
        start += 2**level
    return None


def _uncovered(walk: _Walk, covered: int, at: datetime | None, wanted: Cover | None) -> str:
    """Why the checkpoints, the last of which is of `at`, cover too little; the last record's own may be about to be
    written. A record is of the moment that it was decided at, which may be before that checkpoint."""
    waiting = walk.count - covered
    if wanted is None or not waiting:
        return ""
    if not covered or at is None:
        return f"no checkpoint covers any of the {walk.count} records"
    since = max(at, datetime.fromisoformat(walk.times[covered + 1]))
    lasting = datetime.fromisoformat(walk.last_two[0]) - since if waiting > 1 else timedelta()
    if waiting - 1 > wanted.records or lasting > wanted.lasting:
        return (
            f"records {covered + 1} to {walk.count}, since {since:%Y-%m-%d %H:%M}, are under no checkpoint, where "
            f"{wanted.records} records or {wanted.lasting} may wait for one"
        )
    return ""


def _missing(walk: _Walk, exists: Callable[[str], bool] | None) -> Fault | None:
    """The first record that names a digest which is neither there nor erased; each digest is asked for once."""
    if exists is None:
        return None
    gone = ((seq, digest) for digest, seq in walk.named.items() if not exists(digest))
    return next(((seq, f"it names {digest}, which is neither there nor erased") for seq, digest in gone), None)
