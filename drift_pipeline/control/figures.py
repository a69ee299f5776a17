"""Figures of a control store, for metrics: state, memory, outbox and chain, by a few statements in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from drift_pipeline.control.canonical import read_canonical
from drift_pipeline.control.rows import Record, record_of
from drift_pipeline.control.schema import audit, memory, outbox, state
from drift_pipeline.errors import IntegrityError

_AT_ONCE = 500  # keys in one statement
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """Which figures: all state of `kinds`; of `holding`, by kind, what has one of the texts in its body; what is
    remembered under the keys of the kind `named`, and under `keys`; messages of `topic` from `position` on."""

    kinds: Sequence[str]
    holding: Mapping[str, Sequence[str]]
    named: str
    keys: Sequence[str]
    topic: str
    position: int


@dataclass(frozen=True)
class Pending:
    """Messages of a topic that were not delivered: how many, how many of them were tried, when the oldest was told."""

    messages: int
    tried: int
    oldest_at: datetime


@dataclass(frozen=True)
class Delivery:
    """A message by its position in the outbox; `delivered_at` is None while it is pending."""

    position: int
    at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True)
class Figures:
    """`state` by kind and key, `memory` by key, `pending` by topic, `records` of the audit.

    `damaged`: rows that were left out, since what they hold is not what the store writes.
    """

    state: Mapping[str, Mapping[str, Record]]
    memory: Mapping[str, Record]
    pending: Mapping[str, Pending]
    deliveries: Sequence[Delivery]
    records: int
    damaged: int


def read_figures(connection: sa.Connection, asked: Asked) -> Figures:
    return _Reading(connection).figures(asked)


class _Reading:
    def __init__(self, connection: sa.Connection) -> None:
        self._connection, self._damaged = connection, 0

    def figures(self, asked: Asked) -> Figures:
        kept: dict[str, dict[str, Record]] = {kind: {} for kind in (*asked.kinds, *asked.holding)}
        for where in (state.c.kind.in_(asked.kinds), *(_holds(kind, texts) for kind, texts in asked.holding.items())):
            for record in self._whole(record_of, sa.select(state).where(where)):
                kept[record.kind][record.key] = record
        remembered = self._remembered([*kept[asked.named], *asked.keys])
        deliveries = self._deliveries(asked.topic, asked.position)
        records = int(self._connection.execute(sa.select(sa.func.max(audit.c.seq))).scalar() or 0)
        return Figures(kept, remembered, self._pending(), deliveries, records, self._damaged)

    def _remembered(self, keys: Sequence[str]) -> dict[str, Record]:
        def read(row: Any) -> Record:
            return Record("", row.key, read_canonical(row.body), row.generation)

        return {one.key: one for part in _parts(keys) for one in self._whole(read, _of(memory.c.key, part, memory))}

    def _pending(self) -> dict[str, Pending]:
        tried = sa.func.sum(sa.case((outbox.c.attempts > 0, 1), else_=0)).label("tried")
        counts = (sa.func.count().label("messages"), tried, sa.func.min(outbox.c.seq).label("seq"))
        waiting = sa.select(outbox.c.topic, *counts).where(outbox.c.delivered_at.is_(None)).group_by(outbox.c.topic)
        rows = self._connection.execute(waiting).all()
        told = self._told_at([row.seq for row in rows])
        return {row.topic: Pending(row.messages, int(row.tried), told[row.seq]) for row in rows if row.seq in told}

    def _deliveries(self, topic: str, position: int) -> list[Delivery]:
        asked = sa.select(outbox.c.position, outbox.c.seq, outbox.c.delivered_at)
        asked = asked.where(outbox.c.topic == topic, outbox.c.position >= position).order_by(outbox.c.position)
        rows = self._connection.execute(asked).all()
        told = self._told_at(sorted({row.seq for row in rows}))
        known = [row for row in rows if row.seq in told]
        return [Delivery(row.position, told[row.seq], _moment(row.delivered_at)) for row in known]

    def _told_at(self, seqs: Sequence[int]) -> dict[int, datetime]:
        """When the records of the audit were written."""

        def read(row: Any) -> tuple[int, datetime]:
            return row.seq, datetime.fromisoformat(read_canonical(row.body)["at"])

        return dict(one for part in _parts(seqs) for one in self._whole(read, _of(audit.c.seq, part, audit)))

    def _whole(self, read: Callable[[Any], T], asked: sa.Select[Any]) -> list[T]:
        """What the rows hold, without those that are damaged."""
        found = []
        for row in self._connection.execute(asked):
            try:
                found.append(read(row))
            except (IntegrityError, LookupError, TypeError, ValueError):
                self._damaged += 1
        return found


def _holds(kind: str, texts: Sequence[str]) -> sa.ColumnElement[bool]:
    return (state.c.kind == kind) & sa.or_(*(state.c.body.contains(text, autoescape=True) for text in texts))


def _of(column: sa.Column[Any], values: Sequence[Any], table: sa.Table) -> sa.Select[Any]:
    return sa.select(table).where(column.in_(values))


def _parts(values: Sequence[T]) -> list[Sequence[T]]:
    return [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
