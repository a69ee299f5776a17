"""The control store: a state change, its audit record and its outbox messages in one transaction, or none of them."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from drift_pipeline.clock import Clock
from drift_pipeline.control.audit import GENESIS, AuditRecord, Entry, read_record, seal, timestamp
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.schema import audit, memory, metadata, outbox, state
from drift_pipeline.errors import ConflictError, InputError, IntegrityError, UnavailableError

__all__ = ["AuditRecord", "ControlStore", "Entry", "Message", "Put", "Record"]

_BUSY_SECONDS = 30
_PAGE = 500
_SWITCHES = 100


@dataclass(frozen=True)
class Record:
    """State as it was read; `generation` counts its changes from 1."""

    kind: str
    key: str
    body: Mapping[str, Any]
    generation: int


@dataclass(frozen=True)
class Put:
    """New state, compare-and-set: `expected` is the generation that was read, 0 = must not exist yet."""

    kind: str
    key: str
    body: Mapping[str, Any]
    expected: int = 0


@dataclass(frozen=True)
class Message:
    """An effect to drive outside. The id comes from what it is about, never from chance; a repeated id is ignored."""

    id: str
    topic: str
    body: Mapping[str, Any]
    attempts: int = 0


class ControlStore:
    """State, audit chain and outbox in one database; `url` is SQLAlchemy's, for SQLite or PostgreSQL.

    Writers serialise across processes: BEGIN IMMEDIATE in SQLite (WAL, synchronous FULL), an advisory lock in
    PostgreSQL. Bodies are JSON; what is read is what RFC 8785 wrote, so 1.0 comes back as 1.

    Every method raises UnavailableError when the database does not answer (locked, full, gone), IntegrityError when
    what it holds is damaged.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        """Creates the tables that are absent; InputError for a url that no installed driver serves."""
        self._clock = clock
        self._engine = _engine(url)
        try:
            with self._transaction(write=True) as connection:
                metadata.create_all(connection)
        except BaseException:
            self.close()
            raise

    def commit(
        self,
        entry: Entry,
        puts: Sequence[Put] = (),
        messages: Sequence[Message] = (),
        memory: Put | None = None,
    ) -> AuditRecord:
        """Change state; there is no other way, so there is no transition without its audit record.

        Durable when it returns; whatever happens before that, all of it is written or nothing.

        Args:
            memory: what `remember` would write, in the same transaction.

        Raises:
            ConflictError: an expected generation does not fit. Nothing is written: read again, decide again.
            InputError: a body or a detail is not JSON, or a digest is malformed. Nothing is written.
        """
        written = [(put, _json(put.body)) for put in puts]
        enqueued = [(message, _json(message.body)) for message in messages]
        with self._transaction(write=True) as connection:
            record = seal(entry, self._clock.now(), *_next(connection))
            for put, body in written:
                _put(connection, put, body, record.seq)
            for message, body in enqueued:
                _enqueue(connection, message, body, record.seq)
            if memory is not None:
                _remember(connection, memory)
            values = {"seq": record.seq, "body": record.body().decode(), "hash": record.hash}
            connection.execute(sa.insert(audit).values(values))
        return record

    def remember(self, memory: Put) -> None:
        """Write what is no transition: a tick's counters and heartbeat. `kind` is not used.

        Raises:
            ConflictError: the expected generation does not fit: somebody else was here in the meantime.
        """
        with self._transaction(write=True) as connection:
            _remember(connection, memory)

    def recall(self, key: str) -> Record | None:
        """What was remembered under the key."""
        query = sa.select(memory).where(memory.c.key == key)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return Record("", row.key, read_canonical(row.body), row.generation) if row else None

    def get(self, kind: str, key: str) -> Record | None:
        query = sa.select(state).where(state.c.kind == kind, state.c.key == key)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return _record(row) if row else None

    def find(self, kind: str, prefix: str = "") -> list[Record]:
        """All of a kind whose key starts with the prefix (case counts), by key."""
        starts = sa.func.substr(state.c.key, 1, len(prefix)) == prefix
        query = sa.select(state).where(state.c.kind == kind, starts)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return sorted(map(_record, rows), key=lambda record: record.key)

    def pending(self, limit: int = 100, topic: str | None = None) -> list[Message]:
        """Undelivered messages, oldest first. Ask by topic, or a backend that is down fills the limit for all."""
        query = sa.select(outbox).where(outbox.c.delivered_at.is_(None)).order_by(outbox.c.position).limit(limit)
        if topic is not None:
            query = query.where(outbox.c.topic == topic)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return [Message(row.id, row.topic, read_canonical(row.body), row.attempts) for row in rows]

    def delivered(self, message_id: str) -> None:
        """Take a message off `pending`; again is no error. Delivery is at least once: the receiver knows the id."""
        at = timestamp(self._clock.now())
        self._attempted(message_id, delivered_at=sa.func.coalesce(outbox.c.delivered_at, at), error=None)

    def failed(self, message_id: str, reason: str) -> None:
        """Count an attempt that did not deliver, with its reason; the message stays pending."""
        self._attempted(message_id, error=reason)

    def records(self, after: int = 0) -> Iterator[AuditRecord]:
        """Audit records with seq > after, in order. They are read in pages: no transaction stays open in between.

        Raises IntegrityError, in its turn, at a record that is no canonical JSON; `audit.verify` reports its seq.
        """
        while True:
            query = sa.select(audit).where(audit.c.seq > after).order_by(audit.c.seq).limit(_PAGE)
            with self._transaction() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                yield read_record(row.body, row.hash)
            if not rows:
                return
            after = rows[-1].seq

    def head(self) -> AuditRecord | None:
        """The last record, read as `records` reads it; None before the first commit."""
        query = sa.select(audit).order_by(audit.c.seq.desc()).limit(1)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return read_record(row.body, row.hash) if row else None

    def close(self) -> None:
        self._engine.dispose()

    def _attempted(self, message_id: str, **values: Any) -> None:
        change = sa.update(outbox).where(outbox.c.id == message_id).values(attempts=outbox.c.attempts + 1, **values)
        with self._transaction(write=True) as connection:
            if connection.execute(change).rowcount == 0:
                raise InputError(f"the outbox has no message {message_id!r}")

    @contextmanager
    def _transaction(self, write: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(drift_write=write) as connection, connection.begin():
                if write and connection.dialect.name == "postgresql":
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(6074127)"))
                yield connection
        except exc.OperationalError as error:
            raise UnavailableError(f"the control store {self._engine.url} did not answer: {error.orig}") from error
        except exc.DatabaseError as error:
            if type(error) is not exc.DatabaseError:  # a subclass is the caller's mistake, such as a None for a key
                raise
            raise IntegrityError(f"the control store {self._engine.url} is damaged: {error.orig}") from error


def _engine(url: str) -> sa.Engine:
    try:
        backend = sa.make_url(url).get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise InputError(f"the control store's url is of {backend!r}; what works: sqlite, postgresql")
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS} if backend == "sqlite" else {})
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError) as error:
        raise InputError(f"the control store's url cannot be used: {error}") from error
    if backend not in ("sqlite", "postgresql"):
        raise InputError(
            f"the control store's url is of {backend}; sqlite and postgresql work, others do not serialise"
        )
    if backend == "sqlite":
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None  # else sqlite3 begins by itself, deferred, and only before a write
    connection.text_factory = _text
    connection.execute("PRAGMA synchronous=FULL")
    for _ in range(_SWITCHES):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:  # a new file's switch fails at once while another opens it: queue behind that
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    connection.execute("PRAGMA journal_mode=WAL")


def _text(stored: bytes) -> str:
    """Bytes that are no UTF-8 any more reach the reader of their record, who names it, instead of failing the page."""
    return stored.decode(errors="surrogateescape")


def _begin(connection: sa.Connection) -> None:
    """A deferred writer that read first cannot upgrade once another wrote; a reader must not wait for writers."""
    write = connection.get_execution_options().get("drift_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _next(connection: sa.Connection) -> tuple[int, str]:
    """Number and `prev` of the record to come; a damaged head is verify's business and must not stop a rollback."""
    row = connection.execute(sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).one_or_none()
    return (row.seq + 1, row.hash) if row else (1, GENESIS)


def _put(connection: sa.Connection, put: Put, body: str, seq: int) -> None:
    here = (state.c.kind == put.kind) & (state.c.key == put.key)
    found = connection.execute(sa.select(state.c.generation).where(here)).scalar_one_or_none() or 0
    if found != put.expected:
        raise ConflictError(f"{put.kind} {put.key} is at generation {found}, not {put.expected}: read it again")
    values = {"body": body, "generation": found + 1, "seq": seq}
    if found:
        connection.execute(sa.update(state).where(here).values(values))
    else:
        connection.execute(sa.insert(state).values(kind=put.kind, key=put.key, **values))


def _remember(connection: sa.Connection, put: Put) -> None:
    """One statement for the change, so that it holds without a lock of its own."""
    body, generation = _json(put.body), put.expected + 1
    if put.expected:
        here = (memory.c.key == put.key) & (memory.c.generation == put.expected)
        done = connection.execute(sa.update(memory).where(here).values(body=body, generation=generation)).rowcount
    else:
        done = connection.execute(sa.select(memory.c.key).where(memory.c.key == put.key)).first() is None
        if done:
            connection.execute(sa.insert(memory).values(key=put.key, body=body, generation=generation))
    if not done:
        raise ConflictError(f"{put.key}: somebody else ticked meanwhile, past generation {put.expected}: read it again")


def _enqueue(connection: sa.Connection, message: Message, body: str, seq: int) -> None:
    if connection.execute(sa.select(outbox.c.id).where(outbox.c.id == message.id)).first() is None:
        connection.execute(sa.insert(outbox).values(id=message.id, topic=message.topic, body=body, seq=seq))


def _record(row: Any) -> Record:
    return Record(row.kind, row.key, read_canonical(row.body), row.generation)


def _json(body: Mapping[str, Any]) -> str:
    return canonical(dict(body)).decode()
