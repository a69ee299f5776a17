"""Signed checkpoints of an audit chain: RFC 6962 tree heads, one small file each, that are kept for ever.

A checkpoint carries the peaks of its tree, so the next one hashes only what came since: its cost does not grow with
the chain. `next` names the key that signs the next one, which is how a new key is handed on by the one before it.
"""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from drift_pipeline.control import signing
from drift_pipeline.control.audit import GENESIS, AuditRecord, read_record, timestamp
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.engine import sync
from drift_pipeline.control.merkle import Tree
from drift_pipeline.control.schema import audit, memory, state
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.errors import DriftError, InputError, IntegrityError
from drift_pipeline.files import read_plain, write_whole

_MOST_BYTES = 1 << 20  # of a file
CHECKPOINT_TYPE = "application/vnd.drift-pipeline.checkpoint+json"
HOME, KEY = "home", "key"  # kinds of state: the key of the home itself, and every key by its id
KEY_EVENTS = ("home.made", "key.rotated")  # whose details tell the home's key from there on
_ALWAYS = (*KEY_EVENTS, "key.added", "key.revoked", "model.adopted", "approval.given", "rollout.")
LAST = "_checkpoint"  # in memory: size and time of the last one; no model's name begins with an underscore
_LAST_ONE = sa.select(memory.c.body).where(memory.c.key == LAST)


@dataclass(frozen=True)
class Claim:
    """What a checkpoint says: after `size` records the last one's hash is `head` and the tree's `root`, with `peaks`.

    `signer` and `next` are key ids: of who signed it, and of who has to sign the next one.
    """

    size: int
    root: str
    head: str
    at: str
    next: str
    peaks: tuple[str, ...]
    signer: str = ""

    def tree(self) -> Tree:
        """To go on from. Raises IntegrityError where the peaks are not those of the root."""
        try:
            tree = Tree(self.size, [bytes.fromhex(peak) for peak in self.peaks])
        except ValueError as error:
            raise IntegrityError(f"its peaks are not those of {self.size} records: {error}") from error
        if tree.head().hex() != self.root:
            raise IntegrityError("its peaks are not those of its root")
        return tree


def sign(
    records: Iterable[AuditRecord], signer: Signer, at: datetime, before: Claim | None = None, following: str = ""
) -> dict[str, Any]:
    """The envelope of a checkpoint over `before` and the records that follow it.

    Args:
        following: the key id that signs the next one; else the same.

    Raises:
        IntegrityError: a record does not follow the one before it; a broken chain is never signed.
    """
    size, head, tree = (before.size, before.head, before.tree()) if before else (0, GENESIS, Tree())
    for record in records:
        size += 1
        if record.seq != size or record.prev != head or record.computed_hash() != record.hash:
            raise IntegrityError(f"no checkpoint of a broken chain: record {size} does not follow the one before it")
        head = record.hash
        tree.append(bytes.fromhex(head))
    claim = {"size": size, "root": tree.head().hex(), "head": head, "at": timestamp(at)}
    peaks = [peak.hex() for peak in tree.peaks]
    return signer.sign({**claim, "peaks": peaks, "next": following or signer.key_id}, CHECKPOINT_TYPE)


def read_claim(envelope: Mapping[str, Any], keys: Mapping[str, PublicKey]) -> Claim:
    """Raises IntegrityError where none of the keys signed it, or where it is no checkpoint's."""
    payload, signers = signing.verify(envelope, keys, CHECKPOINT_TYPE)
    try:
        claim = Claim(**{**payload, "peaks": tuple(payload["peaks"])}, signer=min(signers))
        told = datetime.fromisoformat(claim.at), *map(bytes.fromhex, (claim.root, claim.head, *claim.peaks))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"it is no checkpoint's: {error}") from error
    if type(claim.size) is not int or claim.size < 0 or not told:
        raise IntegrityError(f"it cannot count {claim.size!r} records")
    return claim


def claimed_size(envelope: Mapping[str, Any]) -> int:
    """How many records a checkpoint says that it counts, whether it can be believed or not; -1 where it does not."""
    try:
        size = json.loads(base64.b64decode(envelope["payload"]))["size"]
    except (LookupError, TypeError, ValueError, RecursionError):
        return -1
    return size if type(size) is int else -1


def read_checkpoints(folder: Path) -> list[tuple[str, Mapping[str, Any] | DriftError]]:
    """Every checkpoint of a folder by its file's name, smallest first; what cannot be read is an error in its place."""
    return [(path.name, _read(path)) for path in sorted(folder.glob("*.dsse.json"))]


def _read(path: Path) -> Mapping[str, Any] | DriftError:
    try:
        envelope = json.loads(read_plain(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        return IntegrityError(f"cannot be read: {error}")
    return envelope if isinstance(envelope, dict) else IntegrityError("is no JSON object")


def checkpoint_file(folder: Path, size: int) -> Path:
    """Where the one that counts so many records lies."""
    return folder / f"{size:012d}.dsse.json"


class KeyElsewhereError(InputError):
    """The home's key is not on this machine; the next tick where it is covers what this one writes."""


class Checkpoints:
    """Those of one home, written as its chain grows: at once after what matters most, else after `records` of them, or
    when the last one is older than `every`. Private keys lie in the folder `keys`."""

    def __init__(
        self, folder: Path, keys: Path, now: Callable[[], datetime], *, records: int, every: timedelta
    ) -> None:
        self._folder, self._keys, self._now = folder, keys, now
        self._records, self._every = records, every
        self._signers: dict[str, Signer] = {}
        self._known: dict[str, Any] = {"size": 0}  # the last one that this process knows of
        self._looked_at = 0  # the last record of which it knows that it can wait

    def due(self, connection: sa.Connection, head: int | None = None, event: str = "") -> bool:
        """Whether the records that no checkpoint covers are too many or too old. A look-up or two, whatever the chain.

        Args:
            head: how many there are, where it is known; `event` is then the last one's. Else all are looked at that
                came since this process last looked: who wrote them may have had no key, or died.
        """
        always = event.startswith(_ALWAYS) if head is not None else self._matters(connection)
        head = _head(connection) if head is None else head
        known = self._known["size"]
        if known and head > known and not always and not self._waited(head, self._known):
            return False  # much less is any that came after a later one, which another process wrote
        self._known = _last(connection)
        return head > self._known["size"] and (always or self._waited(head, self._known))

    def _matters(self, connection: sa.Connection) -> bool:
        """Whether a record that no checkpoint covers is one of those that do not wait. Of very many that is not asked:
        they are due."""
        query = sa.select(audit.c.seq, audit.c.body).order_by(audit.c.seq).limit(self._records)
        after = max(_last(connection)["size"], self._looked_at)
        for row in connection.execute(query.where(audit.c.seq > after)).all():
            with suppress(IntegrityError, LookupError, TypeError):  # a damaged one is for `verify` to find
                if str(read_canonical(row.body)["event"]).startswith(_ALWAYS):
                    return True
            self._looked_at = row.seq
        return False

    def _waited(self, head: int, last: Mapping[str, Any]) -> bool:
        """Whether what came since a checkpoint is too much, or has waited for too long."""
        old = self._now() - datetime.fromisoformat(last["at"]) >= self._every if last["size"] else True
        return old or head - last["size"] >= self._records

    def write(self, connection: sa.Connection) -> None:
        """Cover every record there is; the connection holds the lock of writers.

        Raises:
            KeyElsewhereError: no key of the home is here.
            IntegrityError: the chain or the last checkpoint is not what was signed before.
            InputError: the key cannot be read, or the file cannot be written.
        """
        head, size = _head(connection), _last(connection)["size"]
        if head == size:
            return
        keys = _home_keys(connection)
        if keys and not any((self._keys / file).exists() for _, file in keys.values()):
            raise KeyElsewhereError(
                f"the home's key is not in {self._keys.absolute()}; the next tick on the machine that has it signs one"
            )
        if head < size:
            raise IntegrityError(f"the last checkpoint counts {size} records, and {head} are there")
        before = self._claim(size, {key: found[0] for key, found in keys.items()}) if size else None
        ours = _ours(connection)
        signer, now = self._signer(before.next if before else ours, keys), self._now()
        envelope = sign(_since(connection, size), signer, now, before, ours)
        data = json.dumps(envelope, indent=1, sort_keys=True) + "\n"
        sync(connection)  # it never counts a record that a power failure takes back
        write_whole(checkpoint_file(self._folder, head), data)
        _note(connection, {"size": head, "at": timestamp(now)})

    def _claim(self, size: int, keys: Mapping[str, PublicKey]) -> Claim:
        path = checkpoint_file(self._folder, size)
        envelope = _read(path)
        if isinstance(envelope, DriftError):
            raise IntegrityError(f"{path}: {envelope}")
        try:
            claim = read_claim(envelope, keys)
        except IntegrityError as error:
            raise IntegrityError(f"{path}: {error}") from error
        if claim.size != size:
            raise IntegrityError(f"{path}: it counts {claim.size} records, not {size}")
        return claim

    def _signer(self, key_id: str, keys: Mapping[str, tuple[PublicKey, str]]) -> Signer:
        if key_id not in self._signers:
            if key_id not in keys:
                raise IntegrityError(f"the key {key_id[:16]}, next to sign a checkpoint, is not this home's")
            self._signers = {key_id: Signer.load(self._keys / keys[key_id][1])}
        return self._signers[key_id]


def _head(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar() or 0)


def _last(connection: sa.Connection) -> dict[str, Any]:
    """What is remembered of it; where that is spoilt, as if there were none: it is found by its file, and no record
    waits for it."""
    row = connection.execute(_LAST_ONE).one_or_none()
    with suppress(IntegrityError, LookupError, TypeError, ValueError):
        last = read_canonical(row.body) if row else {}
        if type(last["size"]) is int and last["size"] > 0 and datetime.fromisoformat(last["at"]).tzinfo:
            return {"size": last["size"], "at": last["at"]}
    return {"size": 0}


def _note(connection: sa.Connection, last: Mapping[str, Any]) -> None:
    connection.execute(sa.delete(memory).where(memory.c.key == LAST))
    connection.execute(sa.insert(memory).values(key=LAST, body=canonical(dict(last)).decode(), generation=1))


def _since(connection: sa.Connection, size: int) -> Iterable[AuditRecord]:
    # of the statement alone: the connection goes on to write, which PostgreSQL cannot do through a cursor
    query = sa.select(audit).where(audit.c.seq > size).order_by(audit.c.seq).execution_options(yield_per=500)
    return (read_record(row.body, row.hash) for row in connection.execute(query))


def _ours(connection: sa.Connection) -> str:
    """The id of the home's key."""
    row = connection.execute(sa.select(state.c.body).where(state.c.kind == HOME)).one_or_none()
    with suppress(LookupError, TypeError):
        if row is not None:
            return str(read_canonical(row.body)["key_id"])
    raise IntegrityError("no record says which key signs the checkpoints of this home")


def _home_keys(connection: sa.Connection) -> dict[str, tuple[PublicKey, str]]:
    """Keys that are or were the home's own, by id, with the file of the private half."""
    rows = connection.execute(sa.select(state.c.body).where(state.c.kind == KEY)).all()
    found: dict[str, tuple[PublicKey, str]] = {}
    for row in rows:
        with suppress(IntegrityError, LookupError, TypeError, ValueError):  # spoilt beside the audit: it is no key
            body = read_canonical(row.body)
            if body["role"] == HOME:
                key = PublicKey(bytes.fromhex(body["public"]), body["label"])
                found[key.key_id] = key, str(body["file"])
    return found
