"""A fake: what is asked of a workspace's Unity Catalog to find a table, answered for one table in a folder.

It is no Databricks: no permission, no cloud storage, credentials that open nothing.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAME = "main.fraud.rows"
_EMPTY = ("storage_credential_name", "access_point", "metastore_id", "sql_path")
_UNSET = {"enable_auto_maintenance": "INHERIT", "enable_predictive_optimization": "INHERIT"}


@contextmanager
def unity_catalog(
    table: Path, token: str, *, gives: Mapping[str, Any] | None = None, elsewhere: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked, as it is asked. Whoever has another token is answered 401.

    Args:
        gives: as credentials, in place of some of AWS. elsewhere: where everybody is sent to.
    """
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(f"{self.command} {self.path}")
            known = self.headers.get("Authorization") == f"Bearer {token}"
            wanted = self.path.endswith((f"/tables/{NAME}", "/temporary-table-credentials"))
            given = _credentials(table) if gives is None else dict(gives)
            document = _table(table) if "/tables/" in self.path else given
            body = json.dumps(document if known and wanted else {"error_code": "NO", "message": "no"}).encode()
            self.send_response(302 if elsewhere else 200 if known and wanted else 404 if known else 401)
            self.send_header("Location", f"{elsewhere}{self.path}")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815  # their names are the library's

        def log_message(self, *_: Any) -> None:
            """No word."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _table(folder: Path) -> dict[str, Any]:
    catalog, schema, name = NAME.split(".")
    runtime: dict[str, Any] = {"delta_runtime_properties": {}}
    predicted = {"value": "DISABLE", "inherited_from_type": "CATALOG", "inherited_from_name": catalog}
    return {
        **{"name": name, "schema_name": schema, "catalog_name": catalog, "full_name": NAME, "table_id": "t-1"},
        **{"table_type": "EXTERNAL", "data_source_format": "DELTA", "securable_kind": "TABLE_DELTA", "columns": []},
        **{"storage_location": folder.as_uri(), "properties": {}, "generation": 0, "comment": None},
        **{"owner": "x", "created_by": "x", "updated_by": "x", "created_at": 1, "updated_at": 1},
        **{"delta_runtime_properties_kwargs": runtime, "effective_predictive_optimization_flag": predicted},
        **{"view_definition": None, "data_access_configuration_id": "d"},
        **dict.fromkeys(_EMPTY, ""),
        **_UNSET,
    }


def _credentials(folder: Path) -> dict[str, Any]:
    keys = {"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}
    return {"expiration_time": 4_102_444_800_000, "url": folder.as_uri(), "aws_temp_credentials": keys}
