"""Reads a Delta table that may lie far away; run by its path, in a process of its own, which can be ended.

Its input is a line of JSON: uri, catalog (host and token of a workspace whose Unity Catalog tells where the table lies;
null = the uri does), version, wanted (columns), readable (features of tables), time (a column), begin, end. Its output
is a line of JSON (id, version, fields, features) and, where all of that can be read, the rows as Parquet.

The catalog is asked here: delta-rs, which can do it too, waits for itself for ever in every second look-up (1.6.6), and
wants credentials to write.
"""

import io
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

_API = "/api/2.1/unity-catalog"
_WITH_ZONE = 'Timestamp(Microsecond, Some("UTC"))'


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints is no answer
    asked, rows = json.loads(sys.stdin.buffer.readline()), b""
    try:
        said, rows = _answered(asked)
    except Exception as error:  # of delta-rs, or of what it streams through, which raises no class of its own
        said = {"error": _kind(error), "why": str(error).partition("\n")[0]}
    answers.write(json.dumps(said).encode() + b"\n" + rows)
    answers.close()


def _kind(error: Exception) -> str:
    from deltalake.exceptions import TableNotFoundError

    if isinstance(error, TableNotFoundError | _UnknownTableError):
        return "absent"
    return "gone" if "not found" in str(error).lower() else "failed"


def _answered(asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    version = asked["version"]
    uri, options = _located(asked["uri"], **asked["catalog"]) if asked["catalog"] else (asked["uri"], None)
    try:
        table = DeltaTable(uri, version=version, storage_options=options)
    except TableNotFoundError:
        raise
    except DeltaError as error:
        if version is None:
            raise
        there = DeltaTable(uri, storage_options=options).version()  # it answers: the version is not there
        return {"error": "no version", "why": f"it stands at {there}: {str(error).partition(chr(10))[0]}"}, b""
    mapped = table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
    features = {*(table.protocol().reader_features or ()), *(["columnMapping"] if mapped else [])}
    fields = {field.name: str(field.type) for field in table.schema().fields}
    said = {"id": str(table.metadata().id), "version": table.version(), "fields": fields}
    said["features"] = sorted(features - set(asked["readable"]))
    readable = not said["features"] and all(name in fields for name in asked["wanted"])
    return said, _rows(table, asked) if readable and "timestamp" in fields[asked["time"]] else b""


class _UnknownTableError(Exception):
    """The catalog knows no such table."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _located(name: str, host: str, token: str) -> tuple[str, dict[str, str]]:
    """Where a table of Unity Catalog lies, and what opens it for reading: two calls of its REST API 2.1."""
    table = _call(f"{host}{_API}/tables/{name}", token)
    try:
        asked = {"table_id": table["table_id"], "operation": "READ"}
        given = _call(f"{host}{_API}/temporary-table-credentials", token, asked)
        if aws := given.get("aws_temp_credentials"):
            named = ("access_key_id", "secret_access_key", "session_token")
            return table["storage_location"], {f"aws_{key}": aws[key] for key in named}
        if azure := given.get("azure_user_delegation_sas"):
            return table["storage_location"], {"azure_storage_sas_token": azure["sas_token"]}
    except KeyError as error:
        raise ValueError(f"the workspace's answer has no {error}") from error
    kinds = ", ".join(sorted(given.keys() - {"expiration_time", "url"})) or "none"
    raise ValueError(f"the workspace gives credentials that are not known here: {kinds}")


def _call(url: str, token: str, body: Any = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    direct = [urllib.request.ProxyHandler({})] if url.startswith("http:") else []  # which is this machine
    opener = urllib.request.build_opener(_NoRedirect, *direct)
    try:
        with opener.open(urllib.request.Request(url, data, headers)) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        kind = _UnknownTableError if error.code == 404 else OSError
        raise kind(f"the workspace answers {error.code} to {url}") from error


def _rows(table: Any, asked: dict[str, Any]) -> bytes:
    import polars as pl
    from deltalake import QueryBuilder

    time, columns = _quoted(asked["time"]), ", ".join(map(_quoted, asked["wanted"]))
    begin, end = (f"arrow_cast('{asked[name]}', '{_WITH_ZONE}')" for name in ("begin", "end"))
    query = f"SELECT {columns} FROM rows WHERE {time} >= {begin} AND {time} < {end}"  # the spec's names
    made = io.BytesIO()
    pl.DataFrame(QueryBuilder().register("rows", table).execute(query).read_all()).write_parquet(made)
    return made.getvalue()


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


if __name__ == "__main__":
    main()
