"""Feast, in an environment of its own since it needs pandas < 3, made once and kept in DRIFT_PARTS."""

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from drift_pipeline_tests.parts.environment import Environment

ENVIRONMENT = Environment("feast", "feast-requirements.txt")
PATIENCE_S = 1200.0
_QUIET = {"FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}

_KEYS = ("user_id", "ts", "created")

REPOSITORY = """
import sys
from datetime import timedelta
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

source = FileSource(path="rows.parquet", timestamp_field="ts", created_timestamp_column="created")
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.{kind})
fields = [{fields}]
view = FeatureView(name="clicks", entities=[user], ttl=timedelta(days=3650), schema=fields, source=source)
store = FeatureStore(repo_path=sys.argv[1])
store.apply([user, view, FeatureService(name="fraud", features=[view{chosen}])])
"""
MATERIALIZE = """
import sys
from datetime import datetime
from feast import FeatureStore
FeatureStore(repo_path=sys.argv[1]).materialize(datetime(2020, 1, 1), datetime.fromisoformat(sys.argv[2]))
"""


find, install = ENVIRONMENT.find, ENVIRONMENT.install


def run(python: Path, script: str, *arguments: str) -> str:
    """What a script prints that runs beside Feast; from a file, since Feast keeps the source of functions."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        return _run(python, file.name, *arguments)


def _run(python: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_QUIET, "PYTHONPATH": ""},
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def repository(
    python: Path, folder: Path, rows: pl.DataFrame, *, key: str = "STRING", features: tuple[str, ...] = ()
) -> Path:
    """A repository with the feature service `fraud`: SQLite online, a file offline.

    Args:
        rows: `user_id`, `ts`, `created`, and the features, floats and texts.
        features: those that the service has; none = all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    online = "online_store: {type: sqlite, path: online.db}\noffline_store: {type: dask}\n"
    (folder / "feature_store.yaml").write_text(
        f"project: drift\nprovider: local\nregistry: registry.db\n{online}entity_key_serialization_version: 3\n"
    )
    rows.write_parquet(folder / "rows.parquet")
    kinds = {name: "Float64" if dtype.is_float() else "String" for name, dtype in rows.schema.items()}
    fields = [f"Field(name={name!r}, dtype={kind})" for name, kind in kinds.items() if name not in _KEYS]
    chosen = f"[{list(features)}]" if features else ""
    run(python, REPOSITORY.format(kind=key, fields=", ".join(fields), chosen=chosen), str(folder))
    return folder


@contextmanager
def served(python: Path, repo: Path) -> Iterator[str]:
    """The address of `feast serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python.with_name("feast")), "serve", "-h", "127.0.0.1", "-p", str(port), "--workers", "1"]
    with (repo / "serve.log").open("w") as log:
        server = subprocess.Popen(
            ["nice", "-n", "19", *command],
            cwd=repo,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_QUIET, "PYTHONPATH": ""},
        )
        try:
            _await(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _await(url: str, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < until, "feast serve did not answer"
            assert server.poll() is None, "feast serve ended"
            time.sleep(0.3)
