"""The database of a control store: SQLite or PostgreSQL, to write to or only to read."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from drift_pipeline.control.postgres import make_postgres
from drift_pipeline.errors import InputError, UnavailableError

_BUSY_SECONDS = 30
_SOON, _SOONEST, _GROWTH = 1.0, 0.0001, 1.5  # seconds of looking at the writers' lock, and between two looks
_SWITCHES = 100
_LOG_PAGES = 4000  # four times SQLite's default: whoever moves them into the database syncs both, beside all writers
_LOG = "drift_log"  # where a connection's log lies, if `sync` syncs it
_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has but one


def make_engine(url: str) -> sa.Engine:
    """Raises InputError for a url that no installed driver serves; what it says of the url has no password."""
    try:
        asked = sa.make_url(url)
        backend = asked.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise InputError(f"the control store's url is of {backend!r}; what works: sqlite, postgresql")
        if backend == "postgresql":
            return make_postgres(asked)
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    except ImportError as error:
        raise InputError(
            f"the control store's url cannot be used: {error}; pip install 'drift-pipeline[postgres]'"
        ) from error
    except (exc.ArgumentError, ValueError) as error:  # their words may hold a part of a password
        raise InputError("the control store's url cannot be used: it is none, or its port is no number") from error
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, pooled: Any) -> None:
    ((_, _, file),) = connection.execute("PRAGMA database_list").fetchall()
    with suppress(OSError):  # somebody else's copy, or one that nobody can write
        if file and os.stat(file).st_mode & 0o077:
            os.chmod(file, 0o600)  # what SQLite puts beside it has the same mode
    connection.isolation_level = None  # else sqlite3 begins by itself, deferred, and only before a write
    connection.text_factory = _text
    connection.execute("PRAGMA synchronous=FULL")
    if _logged(connection):
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        pooled.info[_LOG] = f"{file}-wal"


def _logged(connection: Any) -> bool:
    """Whether the database has a log ahead of it, which one in memory has not."""
    switch = "PRAGMA journal_mode=WAL"
    for _ in range(_SWITCHES):
        try:
            return bool(connection.execute(switch).fetchone() == ("wal",))
        except sqlite3.OperationalError:  # a new file's switch fails at once while another opens it: queue behind that
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    return bool(connection.execute(switch).fetchone() == ("wal",))


def sync(connection: sa.Connection) -> None:
    """What any process committed is durable when this returns.

    SQLite would sync its log within the commit, while it holds the lock of all writers: one sync, one transaction.
    Synced afterwards, one sync does for whatever was committed until then. Until its own returns a transaction can be
    read by others: messages, records and checkpoints are synced before they are handed out, state and memory are not.

    Raises:
        UnavailableError: the disk refused.
    """
    if (log := connection.info.get(_LOG)) is None:  # the database itself syncs, or is in memory
        return
    try:
        descriptor = os.open(log, os.O_RDONLY)
        try:
            _fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnavailableError(f"what was written to {log} may not outlast a power failure: {error}") from error


def _text(stored: bytes) -> str:
    """Bytes that are no UTF-8 any more reach the reader of their record, who names it, instead of failing the page."""
    return stored.decode(errors="surrogateescape")


def _begin(connection: sa.Connection) -> None:
    """A deferred writer that read first cannot upgrade once another wrote; a reader must not wait for writers."""
    if not connection.get_execution_options().get("drift_write"):
        connection.exec_driver_sql("BEGIN")
        return
    held: Any = connection.connection.driver_connection
    if not _begun(held):
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLite waits, and SQLAlchemy raises


def _begun(held: sqlite3.Connection) -> bool:
    """Whether the writers' lock was had soon. SQLite sleeps 1 to 100 ms between two looks, while a writer that comes by
    takes the lock for one ms; this looks more often at first."""
    ends, pause = time.monotonic() + _SOON, _SOONEST
    held.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                held.execute("BEGIN IMMEDIATE")
                return True
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                    return False
            time.sleep(pause)
            pause *= _GROWTH
    finally:
        held.execute(f"PRAGMA busy_timeout={1000 * _BUSY_SECONDS}")


class Prepared:
    """A statement that a writer executes while it holds the lock of all writers.

    SQLite's driver executes it as it was compiled once, which takes a sixth of the time that SQLAlchemy takes for it.
    """

    def __init__(self, statement: sa.Executable) -> None:
        self._statement = statement
        self._compiled: tuple[str, list[str], Mapping[str, Any]] | None = None

    def __call__(self, connection: sa.Connection, values: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """A cursor, or what is used as one: `fetchone`, `rowcount`. Errors as of `connection.execute`."""
        held = connection.connection.driver_connection
        if isinstance(held, sqlite3.Connection):
            text, names, fixed = self._compiled = self._compiled or self._compile(connection, values)
            with suppress(sqlite3.Error):  # it did nothing, and does so once more for SQLAlchemy, which tells
                return held.execute(text, [values[name] if name in values else fixed[name] for name in names])
        return connection.execute(self._statement, dict(values))

    def _compile(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        statement: Any = self._statement
        compiled = statement.compile(dialect=connection.dialect, column_keys=list(values))
        return str(compiled), compiled.positiontup, compiled.params


def reading_engine(url: str) -> tuple[sa.Engine, tempfile.TemporaryDirectory[str] | None]:
    """An engine that changes nothing, not even beside the database, and a folder to clean up in the end.

    SQLite's own way to read only would make a -wal and a -shm file beside a database that nobody has open: then it is
    read as it lies there. One that is in use is read beside its writers. One whose log was copied without the rest is
    read from a copy.
    """
    if not url.startswith("sqlite") or not (found := sa.make_url(url)).database:
        return make_engine(url), None
    path, copied = Path(str(found.database)).absolute(), None
    log = path.with_name(f"{path.name}-wal")
    in_use = log.is_file() and log.stat().st_size > 0
    if in_use and not path.with_name(f"{path.name}-shm").exists():
        copied = tempfile.TemporaryDirectory(prefix="drift-read-")
        for file in (path, log):
            shutil.copyfile(file, Path(copied.name, file.name))
        return make_engine(f"sqlite:///{Path(copied.name, path.name)}"), copied
    asked = f"{path.as_uri()}?{'mode=ro' if in_use else 'immutable=1'}"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(asked, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool)
    sa.event.listen(engine, "connect", lambda connection, _: setattr(connection, "text_factory", _text))
    sa.event.listen(engine, "begin", _begin)
    return engine, None
