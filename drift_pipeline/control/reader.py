"""Reading a control store: as it lies there, beside its writers, and without a trace."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from drift_pipeline.control.audit import AuditRecord, message_digest, read_record, state_digest
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.engine import reading_engine, sync
from drift_pipeline.control.figures import Asked, Figures, read_figures
from drift_pipeline.control.postgres import exists, make_database, one_line, shown
from drift_pipeline.control.rows import (
    Message,
    Record,
    Snapshot,
    recall_row,
    record_of,
    refuse_old,
    refuse_unknown,
    stamp,
    was_written_by,
)
from drift_pipeline.control.schema import MOVED, audit, memory, metadata, outbox, state
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError

_PAGE = 500
# Made once: a tick asks them for each model.
_GET = sa.select(state).where(state.c.kind == sa.bindparam("of_kind"), state.c.key == sa.bindparam("of_key"))
_BY = sa.select(audit).where(audit.c.seq.between(sa.bindparam("first"), sa.bindparam("last"))).order_by(audit.c.seq)


class ControlReader:
    """State, audit chain and outbox, to be read; nothing is created or changed, not even beside the database.

    Every method raises UnavailableError when the database does not answer (locked, full, gone), IntegrityError when
    what it holds is damaged.
    """

    def __init__(self, url: str) -> None:
        """Raises InputError for a url that no installed driver serves, or a store that an earlier version made."""
        self._engine, self._copied = reading_engine(url)
        self._begin(url)

    def _begin(self, url: str, write: bool = False) -> None:
        self._url, self._attested = shown(url), dict[tuple[str, str], tuple[int, str]]()
        asked = sa.make_url(url)
        try:
            try:
                self._first_look(asked, write)
            except UnavailableError:
                if asked.get_backend_name() != "postgresql":
                    raise
                if not exists(asked):
                    if not write:
                        raise InputError(
                            f"{self._url}: the server has no such database; drift adopt makes it"
                        ) from None
                    make_database(asked)
                self._first_look(asked, write)  # another process may have made it meanwhile
        except BaseException:
            self._engine.dispose()
            raise

    def _first_look(self, url: sa.URL, write: bool) -> None:
        with self._transaction(write) as connection:
            refuse_unknown(connection, self._url)
            if write:
                metadata.create_all(connection)
                stamp(connection)
            elif url.get_backend_name() == "postgresql" and not sa.inspect(connection).has_table(audit.name):
                raise InputError(f"{self._url}: no control store is in this database; drift adopt makes one")
            refuse_old(connection, self._url)

    def recall(self, key: str) -> Record | None:
        """What was remembered under the key."""
        with self._transaction() as connection:
            return recall_row(connection, key)

    def recalled(self, prefix: str) -> list[Record]:
        """All that was remembered under keys that start with the prefix (case counts), by key."""
        starts = sa.func.substr(memory.c.key, 1, len(prefix)) == prefix
        with self._transaction() as connection:
            rows = connection.execute(sa.select(memory).where(memory.c.key.between(prefix, prefix + "~"), starts)).all()
        found = [Record("", row.key, read_canonical(row.body), row.generation) for row in rows]
        return sorted(found, key=lambda record: record.key)

    def get(self, kind: str, key: str) -> Record | None:
        with self._transaction() as connection:
            row = connection.execute(_GET, {"of_kind": kind, "of_key": key}).one_or_none()
        return record_of(row) if row else None

    def attest(self, record: Record) -> Record:
        """The record, if it is what its audit record says was written; looked up once for each that was read.

        Raises:
            IntegrityError: it was changed beside the audit.
        """
        place, found = (record.kind, record.key), (record.seq, record.digest)
        if self._attested.get(place) != found:
            with self._transaction() as connection:
                rows = connection.execute(_BY, {"first": record.seq, "last": record.seq + 1}).all()
            if not was_written_by(record, rows):
                raise IntegrityError(
                    f"{record.kind} {record.key} is not what record {record.seq} of the audit wrote: it was changed "
                    "beside the audit; see drift audit verify, and restore the control store from a copy that verifies"
                )
            self._attested[place] = found
        return record

    def snapshot(self) -> Snapshot:
        """What `control.verifying.verify` holds against the chain; in one transaction, beside writers."""
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            head = int(connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar() or 0)
            rows = connection.execute(sa.select(state)).all()
            kept = {(row.kind, row.key): (row.seq, state_digest(row.generation, row.body)) for row in rows}
            rows = connection.execute(sa.select(outbox)).all()
            return Snapshot(head, kept, {row.id: (row.seq, message_digest(row.topic, row.body)) for row in rows})

    def find(self, kind: str, prefix: str = "", ending: str = "") -> list[Record]:
        """All of a kind whose key starts with the prefix and ends so (case counts), by key."""
        starts = sa.func.substr(state.c.key, 1, len(prefix)) == prefix
        query = sa.select(state).where(state.c.kind == kind, starts, state.c.key.endswith(ending, autoescape=True))
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        found = map(record_of, (row for row in rows if row.key.endswith(ending)))
        return sorted(found, key=lambda record: record.key)

    def keys(self, kind: str) -> list[str]:
        """Of all of a kind, whatever their bodies hold."""
        query = sa.select(state.c.key).where(state.c.kind == kind)
        with self._transaction() as connection:
            return sorted(connection.execute(query).scalars())

    def pending(self, limit: int = 100, topic: str | None = None) -> list[Message]:
        """Undelivered messages, oldest first. Ask by topic, or a backend that is down fills the limit for all."""
        query = sa.select(outbox).where(outbox.c.delivered_at.is_(None)).order_by(outbox.c.position).limit(limit)
        if topic is not None:
            query = query.where(outbox.c.topic == topic)
        return self._messages(query)

    def messages(self, topic: str, first: int, last: int) -> list[Message]:
        """Of a topic, delivered or not, those that came with the audit records `first` to `last`; oldest first."""
        chosen = sa.select(outbox).where(outbox.c.topic == topic, outbox.c.seq.between(first, last))
        return self._messages(chosen.order_by(outbox.c.position))

    def figures(self, asked: Asked) -> Figures:
        """What metrics tell, in one transaction; rows that are damaged are counted and left out."""
        with self._transaction() as connection:
            return read_figures(connection, asked)

    def records(self, after: int | None = None, about: str | None = None) -> Iterator[AuditRecord]:
        """Audit records in order, all or those with seq > after; in pages: no transaction stays open in between.

        Args:
            about: only those whose subject it is, such as a model; the others are not read.

        Raises IntegrityError, in its turn, at a record that is no canonical JSON; `verifying.verify` reports its seq.
        """
        while True:
            query = sa.select(audit).order_by(audit.c.seq).limit(_PAGE)
            query = query if after is None else query.where(audit.c.seq > after)
            if about is not None:
                query = query.where(audit.c.body.contains(f'"subject":{canonical(about).decode()}', autoescape=True))
            for row in (rows := self._durable(query)):
                record = read_record(row.body, row.hash)
                if about is None or record.subject == about:  # details may have a subject, too
                    yield record
            if not rows:
                return
            after = rows[-1].seq

    def head(self) -> AuditRecord | None:
        """The last record, read as `records` reads it; None before the first commit."""
        query = sa.select(audit).order_by(audit.c.seq.desc()).limit(1)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return read_record(row.body, row.hash) if row else None

    def _messages(self, query: sa.Select[Any]) -> list[Message]:
        return [
            Message(row.id, row.topic, read_canonical(row.body), row.attempts, row.seq) for row in self._durable(query)
        ]

    def _durable(self, query: sa.Select[Any]) -> Sequence[Any]:
        """Rows that others may be told of: no power failure takes them back."""
        with self._transaction() as connection:
            if rows := connection.execute(query).all():
                sync(connection)
        return rows

    def close(self) -> None:
        self._engine.dispose()
        if self._copied is not None:
            self._copied.cleanup()

    @contextmanager
    def _transaction(self, write: bool = False, synced: bool = True) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(drift_write=write) as connection:
                with connection.begin():
                    if write and connection.dialect.name == "postgresql":
                        connection.execute(sa.text("SELECT pg_advisory_xact_lock(6074127)"))
                        if not synced:
                            connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
                    yield connection
                if write and synced:
                    sync(connection)
        except (exc.OperationalError, exc.InterfaceError) as error:
            raise UnavailableError(f"the control store {self._url} did not answer: {one_line(error)}") from error
        except exc.TimeoutError as error:  # every connection is in use
            raise UnavailableError(f"the control store {self._url} has no connection left: {error}") from error
        except exc.DatabaseError as error:
            if MOVED in str(error.orig):
                raise InputError(f"{self._url}: {error.orig}") from error
            if type(error) is not exc.DatabaseError:  # a subclass is the caller's mistake, such as a None for a key
                raise
            raise IntegrityError(f"the control store {self._url} is damaged: {one_line(error)}") from error
