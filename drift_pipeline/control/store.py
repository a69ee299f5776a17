"""The control store: a state change, its audit record and its outbox messages in one transaction, or none of them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from drift_pipeline.clock import Clock
from drift_pipeline.control.audit import AuditRecord, Entry, Wrote, message_digest, seal, timestamp
from drift_pipeline.control.checkpoints import Checkpoints, KeyElsewhereError
from drift_pipeline.control.engine import make_engine
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import (
    Message,
    Put,
    Record,
    Snapshot,
    append_row,
    enqueue_row,
    following,
    forget_rows,
    json_of,
    put_row,
    recall_row,
    remember_row,
)
from drift_pipeline.control.schema import outbox
from drift_pipeline.errors import DriftError, InputError

__all__ = ["AuditRecord", "ControlReader", "ControlStore", "Entry", "Message", "Put", "Record", "Snapshot"]

log = logging.getLogger(__name__)

GITOPS = "gitops"  # the topic of what changes files in the GitOps repository
_PUBLISHED = (
    *("home.made", "key.", "model.adopted", "model.put_back", "approval.", "waiver."),
    *("rollout.", "spec.", "policy.", "secret."),
)


class ControlStore(ControlReader):
    """State, audit chain and outbox in one database; `url` is SQLAlchemy's, for SQLite or PostgreSQL.

    Writers serialise across processes: BEGIN IMMEDIATE in SQLite (WAL, synced by `engine.sync`), an advisory lock in
    PostgreSQL. Bodies are JSON; what is read is what RFC 8785 wrote, so 1.0 comes back as 1.

    Errors as of `ControlReader`.
    """

    def __init__(self, url: str, clock: Clock, checkpoints: Checkpoints | None = None) -> None:
        """Creates the tables that are absent.

        Args:
            checkpoints: are written as the chain grows; without them nobody signs it, and nothing is published.

        Raises:
            InputError: a url that no installed driver serves, or a store that an earlier version made.
        """
        self._clock, self._checkpoints, self._uncovered = clock, checkpoints, False
        self._trouble, self._elsewhere = "", False  # what was told of checkpoints that could not be written
        self._engine, self._copied = make_engine(url), None
        self._begin(url, write=True)

    def commit(
        self,
        entry: Entry,
        puts: Sequence[Put] = (),
        messages: Sequence[Message] = (),
        memory: Sequence[Put] = (),
    ) -> AuditRecord:
        """Change state; there is no other way, so there is no transition without its audit record.

        Durable when it returns; whatever happens before that, all of it is written or nothing. A checkpoint that is due
        is written after it, or before the next one where the process is killed in between; what changes files in the
        GitOps repository is enqueued for it.

        Args:
            memory: what `remember` would write, in the same transaction.

        Raises:
            ConflictError: an expected generation does not fit. Nothing is written: read again, decide again.
            InputError: a body or a detail is not JSON, or a digest is malformed. Nothing is written.
        """
        written = [(put, json_of(put.body)) for put in puts]
        enqueued = [(message, json_of(message.body)) for message in messages]
        with self._transaction(write=True) as connection:
            seq, prev = following(connection)
            if self._checkpoints is not None and self._checkpoints.due(connection, seq - 1):
                self._cover(connection)  # its writer was killed before it could
            if self._checkpoints is not None and entry.event.startswith(_PUBLISHED):
                published = self._published(entry, seq)
                enqueued.append((published, json_of(published.body)))
            kept: dict[str, dict[str, str]] = {}
            for put, body in written:
                kept.setdefault(put.kind, {})[put.key] = put_row(connection, put, body, seq)
            told = {
                m.id: message_digest(m.topic, body) for m, body in enqueued if enqueue_row(connection, m, body, seq)
            }
            record = seal(entry, self._clock.now(), seq, prev, Wrote(kept, told))
            for put in memory:
                remember_row(connection, put)
            append_row(connection, record)
            self._uncovered = True
            due = self._checkpoints is not None and self._checkpoints.due(connection, record.seq, entry.event)
        if due:
            self._cover()
        return record

    def checkpoint(self, *, only_if_due: bool = False) -> None:
        """Sign what no checkpoint covers yet, whoever wrote it; nothing without checkpoints.

        Raises:
            IntegrityError: the chain, or the last checkpoint, is not what was signed before.
            InputError: the key cannot be read, or the file cannot be written.
        """
        if self._checkpoints is None:
            return
        if only_if_due:
            with self._transaction() as connection:
                if not self._checkpoints.due(connection):
                    return
        with self._transaction(write=True) as connection:
            self._checkpoints.write(connection)
        self._uncovered = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process writes to the store, nor does this one; for what has to be made once beside it."""
        with self._transaction(write=True):
            yield

    def remember(self, *memory: Put) -> None:
        """Write what is no transition, all or none: a tick's counters, what it saw, a heartbeat. `kind` is not used.

        What a power failure takes of it is done again, as by a tick that had not been; a `commit` after it syncs both.

        Raises:
            ConflictError: the expected generation does not fit: somebody else was here in the meantime.
        """
        with self._transaction(write=True, synced=False) as connection:
            for put in memory:
                remember_row(connection, put)

    def revise(self, key: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Remember under the key what `change` makes of what is remembered there, empty where nothing is. No other
        process comes in between, so this never conflicts; as durable as what `remember` writes."""
        with self._transaction(write=True, synced=False) as connection:
            found = recall_row(connection, key)
            body, generation = (found.body, found.generation) if found else ({}, 0)
            remember_row(connection, Put("", key, change(body), generation))

    def forget(self, keys: Sequence[str]) -> None:
        """Delete what was remembered under the keys, where it still is."""
        with self._transaction(write=True) as connection:
            forget_rows(connection, keys)

    def delivered(self, *message_ids: str) -> None:
        """Take messages off `pending`; again is no error. Delivery is at least once: the receiver knows the id."""
        at = timestamp(self._clock.now())
        self._attempted(message_ids, delivered_at=sa.func.coalesce(outbox.c.delivered_at, at), error=None)

    def failed(self, message_id: str, reason: str) -> None:
        """Count an attempt that did not deliver, with its reason; the message stays pending."""
        self._attempted([message_id], error=reason)

    def close(self) -> None:
        """What this process wrote is covered by a checkpoint first."""
        if self._uncovered and self._checkpoints is not None:
            self._cover()
        super().close()

    def _cover(self, within: sa.Connection | None = None) -> None:
        """What was committed is committed: where no checkpoint can be written, the next one covers it; why, is told
        once.

        Args:
            within: a transaction that is under way.
        """
        try:
            if within is not None and self._checkpoints is not None:
                self._checkpoints.write(within)
            else:
                self.checkpoint()
            self._trouble = ""
        except KeyElsewhereError as error:
            if not self._elsewhere:
                log.warning("no checkpoint of the audit is written here: %s", error)
            self._elsewhere = True
        except (DriftError, OSError) as error:
            if str(error) != self._trouble:
                log.error("no checkpoint of the audit could be written: %s", error)
            self._trouble = str(error)

    def _published(self, entry: Entry, seq: int) -> Message:
        told = {"event": entry.event, "subject": entry.subject, "actor": entry.actor, "seq": seq}
        return Message(f"{GITOPS}:{seq}", GITOPS, {**told, "at": timestamp(self._clock.now())})

    def _attempted(self, message_ids: Sequence[str], **values: Any) -> None:
        change = sa.update(outbox).values(attempts=outbox.c.attempts + 1, **values)
        with self._transaction(write=True) as connection:
            for message_id in message_ids:
                if connection.execute(change.where(outbox.c.id == message_id)).rowcount == 0:
                    raise InputError(f"the outbox has no message {message_id!r}")
