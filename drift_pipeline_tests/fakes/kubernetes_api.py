"""Kubernetes' API as far as it is published REST: objects by path, resource versions, 404, 409, 415 and the status
subresource. No controller stands behind it: a test writes the statuses itself. It is no cluster, and proves nothing of
admission, CRD schemas or what Argo and Istio do.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

Object = dict[str, Any]


class Refused(Exception):  # noqa: N818
    """The API answers with this code."""


class Api:
    """`objects` by their path. `calls` are method and path, as they came."""

    def __init__(self) -> None:
        self.objects, self.calls, self._version, self._lock = dict[str, Object](), list[str](), 0, threading.Lock()

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], kind: str, body: Any) -> Object:
        with self._lock:
            self.calls.append(f"{method} {path}")
            match method:
                case "POST":
                    return self._create(f"{path}/{body['metadata']['name']}", body)
                case "PUT":
                    return self._changed(path, body, {key: body[key] for key in body if key != "status"})
                case "PATCH":
                    return self._patched(path, kind, body)
            if path in self.objects:
                return self.objects[path]
            if path.rsplit("/", 1)[-1] in ("replicasets", "rollouts"):
                return {"items": [one for one in self._below(path) if self._selected(one, query)]}
            raise Refused(404)

    def write_status(self, path: str, **status: Any) -> None:
        """As a controller does."""
        with self._lock:
            one = self.objects[path]
            read = {"observedGeneration": str(one["metadata"]["generation"])}
            self._keep(path, {**one, "status": {**one.get("status", {}), **read, **status}})

    def add(self, path: str, body: Object) -> None:
        with self._lock:
            self._keep(path, body)

    def _create(self, path: str, body: Object) -> Object:
        if path in self.objects:
            raise Refused(409)
        made = {key: body[key] for key in body if key != "status"}
        return self._keep(path, {**made, "metadata": {**body["metadata"], "generation": 1, "uid": uuid4().hex}})

    def _patched(self, path: str, kind: str, body: Object) -> Object:
        if kind != "application/merge-patch+json":
            raise Refused(415)
        of_status, path = path.endswith("/status"), path.removesuffix("/status")
        if path not in self.objects:
            raise Refused(404)
        live = self.objects[path]
        part = {"status": body.get("status", {})} if of_status else {k: v for k, v in body.items() if k != "status"}
        return self._changed(path, body, merged(live, part), status=of_status)

    def _changed(self, path: str, told: Object, new: Object, *, status: bool = False) -> Object:
        if path not in self.objects:
            raise Refused(404)
        live, wanted = self.objects[path], (told.get("metadata") or {}).get("resourceVersion")
        if wanted is not None and wanted != live["metadata"]["resourceVersion"]:
            raise Refused(409)
        if not status and "status" in live:
            new = {**new, "status": live["status"]}
        generation = live["metadata"].get("generation", 1) + (new.get("spec") != live.get("spec"))
        return self._keep(path, {**new, "metadata": {**live["metadata"], "generation": generation}})

    def _keep(self, path: str, body: Object) -> Object:
        self._version += 1
        kept = deepcopy(body)
        kept["metadata"] = {**kept["metadata"], "resourceVersion": str(self._version)}
        self.objects[path] = kept
        return kept

    def _below(self, path: str) -> list[Object]:
        return [one for at, one in self.objects.items() if at.startswith(f"{path}/")]

    def _selected(self, one: Object, query: Mapping[str, list[str]]) -> bool:
        wanted = dict(pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair)
        return wanted.items() <= (one["metadata"].get("labels") or {}).items()


def merged(live: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    base = live if isinstance(live, dict) else {}
    kept = {key: value for key, value in base.items() if key not in patch}
    return kept | {key: merged(base.get(key), value) for key, value in patch.items() if value is not None}


@contextmanager
def serving(api: Api) -> Iterator[int]:
    """Its port on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            parts, size = urlsplit(self.path), int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            kind = self.headers.get("Content-Type", "")
            try:
                code, said = 200, api.answer(self.command, parts.path, parse_qs(parts.query), kind, body)
            except Refused as refused:
                code, said = int(str(refused)), {"kind": "Status", "message": f"refused: {refused}"}
            text = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)
