"""PostgreSQL: how it is reached, how long it is waited for, and its databases, made where they are absent."""

import select
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from drift_pipeline.errors import InputError, UnavailableError

DRIVER = "postgresql+psycopg2"  # SQLAlchemy 2.1 would take psycopg 3 for a plain postgresql://, and Dagster cannot
CONNECT_S, ANSWER_S = 5.0, 35.0
STATEMENT_S = 30  # the server's own limit, which a writer that waits for the others keeps to as well


def shown(url: str | sa.URL) -> str:
    """The url as people may see it: no password, and no options, which may have one."""
    return sa.make_url(url).set(query={}).render_as_string(hide_password=True)


def driven(url: sa.URL) -> sa.URL:
    """With the driver that is meant. Raises InputError for a url that names another, or no database."""
    if url.drivername not in ("postgresql", DRIVER):
        raise InputError(f"the control store's url names {url.drivername}; write postgresql://")
    if "@" in (url.host or ""):  # it would be shown as a part of the host
        raise InputError("the control store's url cannot be read: write an @ in its password as %40")
    if not url.database:
        raise InputError(f"the control store's url names no database: {shown(url)}/drift, for example")
    return url.set(drivername=DRIVER)


def make_postgres(url: sa.URL) -> sa.Engine:
    """An engine whose connections are tried before they are used: a server may have been away."""
    import psycopg2.extensions

    psycopg2.extensions.set_wait_callback(_wait)  # of the whole process: without it a server that hangs is waited for
    limits = f"-c statement_timeout={STATEMENT_S}s -c synchronous_commit=on -c idle_in_transaction_session_timeout=120s"
    connect = {"application_name": "drift_pipeline", "client_encoding": "utf8", "options": limits}
    return sa.create_engine(driven(url), pool_pre_ping=True, pool_timeout=ANSWER_S, connect_args=connect)


def _wait(connection: Any) -> None:
    """Until the server answered. psycopg2 itself waits without an end, and Ctrl-C does not reach it meanwhile."""
    from psycopg2 import OperationalError
    from psycopg2.extensions import POLL_OK, POLL_READ, STATUS_SETUP

    patience = CONNECT_S if connection.status == STATUS_SETUP else ANSWER_S
    end = time.monotonic() + patience
    while (state := connection.poll()) != POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        if not poller.poll(max(end - time.monotonic(), 0) * 1000):
            raise OperationalError(f"no answer within {patience:g} s")


def make_database(url: str | sa.URL) -> bool:
    """Make the url's database on its server; False where it is there.

    Raises:
        UnavailableError: the server does not answer.
        InputError: the user may not make one.
    """
    asked = driven(sa.make_url(url))
    engine = make_postgres(asked.set(database="postgres"))
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if _known(connection, asked):
                return False
            quoted = str(asked.database).replace('"', '""').replace("%", "%%")
            connection.exec_driver_sql(f"CREATE DATABASE \"{quoted}\" ENCODING 'UTF8' TEMPLATE template0")
        return True
    except (exc.OperationalError, exc.InterfaceError) as error:
        raise UnavailableError(f"PostgreSQL at {shown(url)} did not answer: {one_line(error)}") from error
    except exc.DBAPIError as error:
        if exists(asked):  # another process made it meanwhile
            return False
        raise InputError(
            f"there is no database {asked.database!r} at {shown(url)}, and none can be made: {one_line(error)}; let "
            f"its owner run CREATE DATABASE, with the encoding UTF8"
        ) from error
    finally:
        engine.dispose()


def exists(url: sa.URL) -> bool:
    """Whether the server has the url's database. Raises UnavailableError where it does not answer."""
    engine = make_postgres(driven(url).set(database="postgres"))
    try:
        with engine.connect() as connection:
            return _known(connection, url)
    except exc.DBAPIError as error:
        raise UnavailableError(f"PostgreSQL at {shown(url)} did not answer: {one_line(error)}") from error
    finally:
        engine.dispose()


def _known(connection: sa.Connection, url: sa.URL) -> bool:
    query = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
    return connection.execute(query, {"name": url.database}).first() is not None


def one_line(error: exc.DBAPIError) -> str:
    """What the driver says, without its line breaks."""
    return "; ".join(" ".join(line.split()) for line in str(error.orig).splitlines() if line.strip())


def beside(url: str, what: str) -> str:
    """The url of another database on the same server: drift -> drift_dagster."""
    asked = driven(sa.make_url(url))
    return asked.set(database=f"{asked.database}_{what}").render_as_string(hide_password=False)
