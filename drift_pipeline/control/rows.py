"""What the tables of a control store hold, and the statements that write each row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from drift_pipeline.control.audit import GENESIS, AuditRecord, read_record, state_digest
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.engine import Prepared
from drift_pipeline.control.schema import BASELINE, alembic_version, audit, memory, outbox, state
from drift_pipeline.errors import ConflictError, InputError, IntegrityError

_AT_ONCE = 500  # keys in one statement


@dataclass(frozen=True)
class Record:
    """State as it was read; `generation` counts its changes from 1. `seq` and `digest` are for `attest`."""

    kind: str
    key: str
    body: Mapping[str, Any]
    generation: int
    seq: int = field(default=0, compare=False)
    digest: str = field(default="", compare=False)


@dataclass(frozen=True)
class Put:
    """New state, compare-and-set: `expected` is the generation that was read, 0 = must not exist yet."""

    kind: str
    key: str
    body: Mapping[str, Any]
    expected: int = 0


@dataclass(frozen=True)
class Message:
    """An effect to drive outside. The id comes from what it is about, never from chance; a repeated id is ignored.

    `seq`: the audit record that it came with, where it was read from the store.
    """

    id: str
    topic: str
    body: Mapping[str, Any]
    attempts: int = 0
    seq: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Snapshot:
    """State and outbox as they were after record `head`: each row's `seq` and the digest of what is stored."""

    head: int
    state: Mapping[tuple[str, str], tuple[int, str]]
    outbox: Mapping[str, tuple[int, str]]


# A writer holds the lock of all writers while it executes these.
_HEAD = Prepared(sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1))
_HERE = (state.c.kind == sa.bindparam("of_kind")) & (state.c.key == sa.bindparam("of_key"))
_GENERATION = Prepared(sa.select(state.c.generation).where(_HERE))
_NOW = sa.update(state).where(_HERE, state.c.generation == sa.bindparam("expected"))
_CHANGE = Prepared(_NOW.values({name: sa.bindparam(name) for name in ("body", "generation", "seq")}))
_ADD = Prepared(sa.insert(state))
_APPEND = Prepared(sa.insert(audit))
_NEW = [sa.bindparam(name, type_=outbox.c[name].type) for name in ("id", "topic", "body", "seq")]
_UNKNOWN = ~sa.exists().where(outbox.c.id == sa.bindparam("id", type_=outbox.c.id.type))
_ENQUEUE = Prepared(
    sa.insert(outbox).from_select(
        [*(new.key for new in _NEW), "attempts"], sa.select(*_NEW, sa.literal(0)).where(_UNKNOWN)
    )
)
_REMEMBERED = (memory.c.key == sa.bindparam("of_key")) & (memory.c.generation == sa.bindparam("expected"))
_RECALL = sa.select(memory).where(memory.c.key == sa.bindparam("of_key"))  # made once: a tick asks for each model
_REMEMBER = Prepared(
    sa.update(memory).where(_REMEMBERED).values({name: sa.bindparam(name) for name in ("body", "generation")})
)


def following(connection: sa.Connection) -> tuple[int, str]:
    """Number and `prev` of the record to come; a damaged head is verify's business and must not stop a rollback."""
    row = _HEAD(connection).fetchone()
    return (row[0] + 1, row[1]) if row else (1, GENESIS)


def append_row(connection: sa.Connection, record: AuditRecord) -> None:
    _APPEND(connection, {"seq": record.seq, "body": record.body.decode(), "hash": record.hash})


def refuse_unknown(connection: sa.Connection, url: str) -> None:
    """Raises InputError for a schema of another revision; a store of before there were any has this one's tables."""
    tables = sa.inspect(connection).get_table_names()
    found = connection.execute(sa.select(alembic_version)).scalars().all() if alembic_version.name in tables else []
    if found not in ([], [BASELINE]):
        raise InputError(
            f"{url}: another drift-pipeline made this control store (schema {', '.join(found)}, here {BASELINE}); use "
            "that one, or a database of its own"
        )
    if alembic_version.name in tables and audit.name not in tables:
        raise InputError(f"{url}: this database is another program's; give the control store one of its own")


def stamp(connection: sa.Connection) -> None:
    """Say of which revision the tables are, where nothing does."""
    if connection.execute(sa.select(alembic_version)).first() is None:
        connection.execute(sa.insert(alembic_version).values(version_num=BASELINE))


def refuse_old(connection: sa.Connection, url: str) -> None:
    """One look at the first record, which tells of which form they are."""
    if not sa.inspect(connection).has_table(audit.name):
        return
    first = connection.execute(sa.select(audit.c.body).order_by(audit.c.seq).limit(1)).scalar()
    if isinstance(first, str) and first.startswith('{"actor":') and '"wrote":{' not in first:
        raise InputError(
            f"{url}: an earlier drift-pipeline made this control store, whose audit does not name the state that it "
            "wrote; adopt the models in a new home (DRIFT_HOME), and read this one with the version that made it"
        )


def was_written_by(record: Record, rows: Sequence[Any]) -> bool:
    """Whether the audit record of these rows wrote it; the one after it, if any, holds it in its place."""
    if not rows or rows[0].seq != record.seq:
        return False
    try:
        by, *after = (read_record(row.body, row.hash) for row in rows)
    except IntegrityError:
        return False
    whole = by.computed_hash() == by.hash and all(one.prev == by.hash for one in after)
    return whole and by.wrote.state.get(record.kind, {}).get(record.key) == record.digest


def put_row(connection: sa.Connection, put: Put, body: str, seq: int) -> str:
    """The digest of what is stored."""
    here, values = {"of_kind": put.kind, "of_key": put.key}, {"body": body, "generation": put.expected + 1, "seq": seq}
    if put.expected and _CHANGE(connection, {**here, "expected": put.expected, **values}).rowcount:
        return state_digest(put.expected + 1, body)
    found = (_GENERATION(connection, here).fetchone() or (0,))[0]
    if found != put.expected:
        raise ConflictError(f"{put.kind} {put.key} is at generation {found}, not {put.expected}: read it again")
    _ADD(connection, {"kind": put.kind, "key": put.key, **values})
    return state_digest(1, body)


def recall_row(connection: sa.Connection, key: str) -> Record | None:
    """What was remembered under the key."""
    row = connection.execute(_RECALL, {"of_key": key}).one_or_none()
    return Record("", row.key, read_canonical(row.body), row.generation) if row else None


def remember_row(connection: sa.Connection, put: Put) -> None:
    """One statement for the change, so that it holds without a lock of its own."""
    body, generation = json_of(put.body), put.expected + 1
    if put.expected:
        here = {"of_key": put.key, "expected": put.expected}
        done = _REMEMBER(connection, {**here, "body": body, "generation": generation}).rowcount
    else:
        done = connection.execute(sa.select(memory.c.key).where(memory.c.key == put.key)).first() is None
        if done:
            connection.execute(sa.insert(memory).values(key=put.key, body=body, generation=generation))
    if not done:
        raise ConflictError(f"{put.key}: somebody else ticked meanwhile, past generation {put.expected}: read it again")


def forget_rows(connection: sa.Connection, keys: Sequence[str]) -> None:
    """Those that are there."""
    for start in range(0, len(keys), _AT_ONCE):
        connection.execute(sa.delete(memory).where(memory.c.key.in_(keys[start : start + _AT_ONCE])))


def enqueue_row(connection: sa.Connection, message: Message, body: str, seq: int) -> bool:
    """Whether it is new."""
    row = {"id": message.id, "topic": message.topic, "body": body, "seq": seq}
    return int(_ENQUEUE(connection, row).rowcount) > 0


def record_of(row: Any) -> Record:
    digest = state_digest(row.generation, row.body)
    return Record(row.kind, row.key, read_canonical(row.body), row.generation, row.seq, digest)


def json_of(body: Mapping[str, Any]) -> str:
    return canonical(dict(body)).decode()
