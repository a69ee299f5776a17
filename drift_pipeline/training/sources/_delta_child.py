"""Reads a Delta table that may lie far away; run by its path, in a process of its own.

delta-rs has no deadline for a catalogue, and after one failure of it hangs for ever (seen with 1.6.6). Its input is a
line of JSON: uri, options, version, wanted (columns), readable (features of tables), time (a column), begin, end. Its
output is a line of JSON (id, version, fields, features) and, where all of that can be read, the rows as Parquet.
"""

import io
import json
import os
import sys
from typing import Any

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

    if isinstance(error, TableNotFoundError):
        return "absent"
    return "gone" if "not found" in str(error).lower() else "failed"


def _answered(asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    options, version = asked["options"] or None, asked["version"]
    try:
        table = DeltaTable(asked["uri"], version=version, storage_options=options)
    except TableNotFoundError:
        raise
    except DeltaError as error:
        if version is None:
            raise
        there = DeltaTable(asked["uri"], storage_options=options).version()  # it answers: the version is not there
        return {"error": "no version", "why": f"it stands at {there}: {str(error).partition(chr(10))[0]}"}, b""
    mapped = table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
    features = {*(table.protocol().reader_features or ()), *(["columnMapping"] if mapped else [])}
    fields = {field.name: str(field.type) for field in table.schema().fields}
    said = {"id": str(table.metadata().id), "version": table.version(), "fields": fields}
    said["features"] = sorted(features - set(asked["readable"]))
    readable = not said["features"] and all(name in fields for name in asked["wanted"])
    return said, _rows(table, asked) if readable and "timestamp" in fields[asked["time"]] else b""


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
