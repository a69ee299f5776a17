"""Moving a control store: from SQLite to PostgreSQL, every row as it is, so that the chain goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from drift_pipeline.control.engine import make_engine
from drift_pipeline.control.postgres import make_database, one_line, shown
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import refuse_unknown, stamp
from drift_pipeline.control.schema import MOVED, audit, memory, metadata, outbox, state
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import InputError, IntegrityError, NothingToDoError, RefusedError, UnavailableError
from drift_pipeline.settings import ASIDE, STORE

TABLES = (state, memory, audit, outbox)
_AT_ONCE = 1000


@dataclass(frozen=True)
class Moved:
    """How many rows each table has on either side, and the hash of the last record."""

    rows: dict[str, int]
    head: str
    to: str


def move_store(home: Path, target: str) -> Moved:
    """Copy a home's `control.db` to PostgreSQL, and let nobody write to the old one any more.

    Nobody writes meanwhile. The rows go over in one transaction, and the copy is verified before the old store is shut:
    whatever ends this before, the home goes on with the old one, and it may be begun again. Processes that run go on
    reading the old store, and are refused when they write.

    Raises:
        NothingToDoError: it was moved already.
        InputError: the home has no such store, or the url is no PostgreSQL database's.
        RefusedError: the database holds something else.
        IntegrityError: the chain does not hold; nothing is moved.
        UnavailableError: either does not answer.
    """
    path, url = home / STORE, sa.make_url(target) if target.startswith("postgresql") else None
    if url is None:
        raise InputError("a home moves to a url such as postgresql://USER:PASSWORD@HOST/DATABASE")
    if not path.is_file():
        if (home / ASIDE).is_file():
            raise NothingToDoError(f"{home}: was moved already; {ASIDE} is what it was")
        raise InputError(f"{home}: has no control store ({STORE}) to move")
    _verified(f"sqlite:///{path}", "the home's own")
    make_database(url)
    source, sink = make_engine(f"sqlite:///{path}"), make_engine(target)
    try:
        with _alone(source, shown(url)) as old:
            with _alone(sink, shown(url)) as new:
                moved = _copied(old, new, shown(url))
            _verified(target, "the copied")
            _closed(old, shown(url))
        with source.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        source.dispose()
        sink.dispose()
    for suffix in ("-wal", "-shm", ""):  # the store itself last
        if (file := home / f"{STORE}{suffix}").exists():
            file.rename(home / f"{ASIDE}{suffix}")
    return moved


@contextmanager
def _alone(engine: sa.Engine, to: str) -> Iterator[sa.Connection]:
    try:
        with engine.connect().execution_options(drift_write=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(6074127)"))
            yield connection
    except exc.IntegrityError as error:
        if MOVED in str(error.orig):
            raise NothingToDoError(str(error.orig)) from error
        raise
    except (exc.OperationalError, exc.InterfaceError) as error:
        what = to if engine.dialect.name == "postgresql" else STORE
        raise UnavailableError(f"{what} did not answer, nothing was moved: {one_line(error)}") from error


def _copied(old: sa.Connection, new: sa.Connection, to: str) -> Moved:
    """Into tables that are empty, or hold this very store from a move that was interrupted."""
    refuse_unknown(new, to)
    metadata.create_all(new)
    stamp(new)
    rows, there = _counts(old), _counts(new)
    if any(there.values()):
        if there != rows or _last(old) != _last(new):
            raise RefusedError(f"{to}: holds another control store's rows already; give an empty database")
        return Moved(there, _last(new), to)
    for table in TABLES:
        for part in old.execute(sa.select(table)).mappings().partitions(_AT_ONCE):
            new.execute(sa.insert(table), [dict(row) for row in part])
    top = sa.select(sa.func.coalesce(sa.func.max(outbox.c.position), 1))
    new.execute(sa.text("SELECT setval(pg_get_serial_sequence('outbox', 'position'), :top)"), {"top": new.scalar(top)})
    if (copied := _counts(new)) != rows or _last(old) != _last(new):
        raise IntegrityError(f"{to}: holds {copied} rows of {rows}; nothing was moved")
    return Moved(rows, _last(new), to)


def _closed(old: sa.Connection, to: str) -> None:
    """From now on who still has it open is told when writing; readers go on."""
    why = f"{MOVED} {to}: set DRIFT_DATABASE and start again".replace("'", "''")
    for table in TABLES:
        for verb in ("INSERT", "UPDATE", "DELETE"):
            name = f"moved_{table.name}_{verb.lower()}"
            what = f"TRIGGER IF NOT EXISTS {name} BEFORE {verb} ON {table.name}"
            old.exec_driver_sql(f"CREATE {what} BEGIN SELECT RAISE(ABORT, '{why}'); END")


def _counts(connection: sa.Connection) -> dict[str, int]:
    count = sa.func.count()
    return {table.name: int(connection.scalar(sa.select(count).select_from(table)) or 0) for table in TABLES}


def _last(connection: sa.Connection) -> str:
    head: Any = connection.scalar(sa.select(audit.c.hash).order_by(audit.c.seq.desc()).limit(1))
    return str(head or "")


def _verified(url: str, whose: str) -> None:
    reader = ControlReader(url)
    try:
        found = verify(reader.records(), snapshot=reader.snapshot())
    finally:
        reader.close()
    if not found.ok:
        raise IntegrityError(f"{whose} control store does not verify, nothing was moved: {found.reason}")
