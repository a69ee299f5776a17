"""PostgreSQL: a throwaway server of one folder, which nobody but this machine reaches."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from drift_pipeline_tests.parts.cache import MissingError, installed, pinned
from drift_pipeline_tests.parts.server import PATIENCE_S, Server, free_port

VARIABLE = "DRIFT_DATABASE"
USER, PASSWORD = "drift", "p@ss/w:rd%?#é '\""  # what a URL has to escape
DEBIAN = Path("/usr/lib/postgresql")
FAST = {"fsync": "off", "full_page_writes": "off"}  # the server may crash here, the machine does not


def find() -> Path:
    """The folder of its programs: the pinned one, that of the PATH, or the newest that Debian has."""
    found = [*installed("postgres").glob("*/pginstall/bin/initdb")]
    found += [Path(path) for path in [shutil.which("initdb")] if path]
    found += sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True)
    refused = []
    for initdb in found:
        ran = subprocess.run([*_unprivileged(), str(initdb), "--version"], capture_output=True, check=False)
        if ran.returncode == 0:
            return initdb.resolve().parent
        refused.append(f"{initdb} cannot be run by {'nobody' if os.getuid() == 0 else 'this user'}")
    how = "python -m drift_pipeline_tests.parts install postgres"
    raise MissingError(f"no PostgreSQL: {'; '.join(refused) or how} (DRIFT_PARTS names a folder that all may read)")


def install() -> Path:
    """The machine's own, else the wheel; needs the package index. Raises MissingError."""
    with suppress(MissingError):
        return find()
    pin, folder = pinned("postgres"), installed("postgres")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    wheel = f"{pin['wheel']}=={pin['version']}"
    got = subprocess.run([*command, wheel], capture_output=True, text=True, check=False)
    if got.returncode != 0:
        raise MissingError(f"{wheel} cannot be installed: {got.stderr.strip()[-1000:]}")
    return find()


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    group = pwd.getpwnam("nobody").pw_gid
    return ["setpriv", "--reuid=nobody", f"--regid={group}", "--clear-groups"]


class _Postmaster(Server):
    """Killed, it is missed by its own processes, which then end; before, no server of the folder begins."""

    def kill(self) -> None:
        if self._process is None:
            return
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        own = children.read_text().split() if children.exists() else []
        super().kill()
        until = time.monotonic() + PATIENCE_S
        while any(map(_is_alive, own)) and time.monotonic() < until:
            time.sleep(0.02)


def _is_alive(pid: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class Postgres:
    """A server at `url` of one database, `drift`, that is not there yet; `kill` and `start` are a crash's."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._port, data = find(), free_port(), folder / "data"
        if os.getuid() == 0:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        options = ("-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        made = subprocess.run(
            [*_unprivileged(), str(self._programs / "initdb"), "-D", str(data), *options, f"--pwfile={secret}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise MissingError(f"initdb fails here: {made.stderr.strip()}")
        fast = [part for name, value in FAST.items() for part in ("-c", f"{name}={value}")]
        where = ("-D", str(data), "-p", str(self._port), "-h", "127.0.0.1", "-k", "")
        command = [*_unprivileged(), str(self._programs / "postgres"), *where, *fast]
        self.server = _Postmaster(command, folder / "postgres.log", self._answers)
        self.url = self.of("drift")

    def of(self, database: str, password: str = PASSWORD) -> str:
        """The url of one of its databases, whatever its name."""
        secret, name = (quote(part, safe="") for part in (password, database))
        return f"postgresql://{USER}:{secret}@127.0.0.1:{self._port}/{name}"

    def close(self) -> None:
        self.server.stop(signal.SIGINT)  # without waiting for those who are connected

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as the owner of everything."""
        import sqlalchemy as sa

        engine = sa.create_engine(sa.make_url(self.of(database)).set(drivername="postgresql+psycopg2"))
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                found = connection.exec_driver_sql(statement)
                return [tuple(row) for row in found] if found.returns_rows else []
        finally:
            engine.dispose()

    def _answers(self) -> bool:
        from sqlalchemy.exc import OperationalError

        with suppress(OperationalError):
            return self.ask("SELECT 1") == [(1,)]
        return False


@contextmanager
def running() -> Iterator[Postgres]:
    """A server without a database of ours. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-postgres-") as folder:
        part = Postgres(Path(folder))
        try:
            part.server.start()
            yield part
        finally:
            part.close()
