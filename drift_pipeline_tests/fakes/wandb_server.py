"""A FAKE of the service of Weights & Biases: a real HTTP server on this machine that answers what the real client and
wandb-core ask when they send runs and artifacts, change aliases and metadata, link and download.

How the real service behaves (aliases move, the same content is the same version, metadata of the first upload stays) is
our reading of its documentation. The client reads the answers by its own generated classes, so that a wrong shape is
caught; an operation that is not known is answered with nothing.
"""

# ruff: noqa: N802, ARG002  # operations are found by their name, and each is given what was asked
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

ENTITY, PROJECT, ORGANISATION = "team", "drift", "org-entity"
WHEN = "2026-01-01T00:00:00Z"
INFO = {"__typename": "Project", "id": "p1", "internalId": "1", "name": PROJECT, "entity": {"name": ENTITY}}


@dataclass
class FakeArtifact:
    id: str
    name: str
    kind: str
    digest: str
    index: int
    run: str
    metadata: str
    aliases: list[str] = field(default_factory=list)
    state: str = "PENDING"

    @property
    def said(self) -> dict[str, Any]:
        """Its metadata."""
        found: dict[str, Any] = json.loads(self.metadata)
        return found


@dataclass
class FakeWandb:
    """A service that nobody else has.

    answer: how it fails. refuses: what status an operation with its variables is answered with; 0 = well. lie: what
    files are given as, instead of what they are. used: (run, artifact's name, its index). links: (collection,
    artifact's id). keys: that came with requests.
    """

    url: str = ""
    answer: str = ""  # "" = well; a status; "hang"
    pause_s: float = 0.0
    loses: dict[str, int] = field(default_factory=dict)  # so many of a kind stay as they were begun
    registry: bool = True  # whether the organisation has one
    refuses: Callable[[str, str], int] = lambda _name, _given: 0
    lie: Any = None  # (path, bytes) -> bytes
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, list[FakeArtifact]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    used: list[tuple[str, str, int]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: Any = field(default_factory=threading.RLock)

    def named(self, name: str, alias: str) -> FakeArtifact | None:
        known = self.artifacts.get(name, [])
        return next((one for one in known if alias in one.aliases or alias == f"v{one.index}"), None)

    def by_id(self, id_: str) -> FakeArtifact:
        return next(one for known in self.artifacts.values() for one in known if one.id == id_)

    def call(self, aliases: Any, artifact: FakeArtifact) -> None:
        """An alias is of one version of a name."""
        for alias in aliases:
            for other in self.artifacts[artifact.name]:
                other.aliases = [one for one in other.aliases if one != alias]
            artifact.aliases.append(alias)


class _Operations:
    """What is answered to an operation of GraphQL, by its name."""

    def __init__(self, fake: FakeWandb) -> None:
        self._fake = fake

    def answer(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        known = getattr(self, f"op_{name}", None)
        with self._fake.lock:
            return known({**given, **(given.get("input") or {})}) if known else {}

    def op_UpsertBucket(self, v: Any) -> Any:
        run = self._fake.runs.setdefault(v["name"], {})
        run.update({key: value for key, value in v.items() if value is not None})
        entity = {"id": "e1", "name": v.get("entity") or ENTITY}
        bucket = {"id": f"r-{v['name']}", "name": v["name"], "displayName": v.get("displayName") or v["name"]}
        bucket |= {"description": "", "config": "{}", "sweepName": None, "historyLineCount": 0}
        bucket |= {"project": {"id": "p1", "name": v.get("project"), "entity": entity}}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def op_CreateArtifact(self, v: Any) -> Any:
        name = v.get("artifactCollectionName") or v["artifactCollectionNames"][0]
        known = self._fake.artifacts.setdefault(name, [])
        made = next((one for one in known if one.digest == v["digest"]), None)
        if made is None:
            about = (v["artifactTypeName"], v["digest"], len(known), v.get("runName") or "", v.get("metadata") or "{}")
            made = FakeArtifact(f"a-{name}-{len(known)}", name, *about)
            known.append(made)
        self._fake.call([one["alias"] for one in v.get("aliases") or []], made)
        return {"createArtifact": {"artifact": _node(made)}}

    def _upload(self, artifact: str, name: str) -> dict[str, Any]:
        address = f"{self._fake.url}/store/{artifact}/{quote(name)}"
        return {"id": "f", "name": name, "displayName": name, "uploadUrl": address, "uploadHeaders": []}

    def op_CreateArtifactManifest(self, v: Any) -> Any:
        manifest = {"id": f"m-{v['artifactID']}", "file": self._upload(v["artifactID"], v["name"])}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def op_CreateArtifactFiles(self, v: Any) -> Any:
        more = {"storagePath": "store", "uploadMultipartUrls": None}
        edges = [
            {"node": {**self._upload(one["artifactID"], one["name"]), **more, "artifact": {"id": one["artifactID"]}}}
            for one in v["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def op_CommitArtifact(self, v: Any) -> Any:
        artifact = self._fake.by_id(v["artifactID"])
        if self._fake.loses.get(artifact.kind):
            self._fake.loses[artifact.kind] -= 1
        else:
            artifact.state = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def op_UseArtifact(self, v: Any) -> Any:
        artifact = self._fake.by_id(v["artifactID"])
        self._fake.used.append((v["runName"], artifact.name, artifact.index))
        return {"useArtifact": {"artifact": _node(artifact)}}

    def op_CreateRunFiles(self, v: Any) -> Any:
        files = [{"name": one, "uploadUrl": f"{self._fake.url}/runfiles/{quote(one)}"} for one in v.get("files") or []]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def op_UpdateArtifact(self, v: Any) -> Any:
        artifact = self._fake.by_id(v["artifactID"])
        artifact.metadata = v["metadata"]
        return {"result": {"artifact": _whole(artifact)}}

    def op_AddAliases(self, v: Any) -> Any:
        self._fake.call([one["alias"] for one in v["aliases"]], self._fake.by_id(v["artifactID"]))
        return {"addAliases": {"success": True}}

    def op_DeleteAliases(self, v: Any) -> Any:
        artifact, gone = self._fake.by_id(v["artifactID"]), {one["alias"] for one in v["aliases"]}
        artifact.aliases = [one for one in artifact.aliases if one not in gone]
        return {"deleteAliases": {"success": True}}

    def op_LinkArtifact(self, v: Any) -> Any:
        self._fake.links.append((f"{v['entityName']}/{v['projectName']}/{v['artifactPortfolioName']}", v["artifactID"]))
        return {"result": {"versionIndex": 0, "artifactMembership": _membership(self._fake.by_id(v["artifactID"]))}}

    def op_FetchOrgInfoFromEntity(self, v: Any) -> Any:
        has = {"name": "Org", "orgEntity": {"name": ORGANISATION}} if self._fake.registry else None
        return {"entity": {"organization": has, "user": None}}

    def op_ArtifactTypeArtifactCollections(self, v: Any) -> Any:
        kinds = {name: known[0].kind for name, known in self._fake.artifacts.items()}
        edges: list[dict[str, Any]] = [
            {
                "node": {
                    **{"__typename": "ArtifactSequence", "id": f"s-{name}", "name": name, "description": None},
                    **{"createdAt": WHEN, "updatedAt": None, "project": INFO, "type": {"name": kind}},
                    "tags": {"edges": []},
                }
            }
            for name, kind in kinds.items()
            if kind == v["type"]
        ]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        found = {"totalCount": len(edges), "pageInfo": page, "edges": edges}
        return {"project": {"artifactType": {"artifactCollections": found} if edges else None}}

    def _named(self, v: Any) -> FakeArtifact | None:
        name, _, alias = v["name"].partition(":")
        return self._fake.named(name, alias)

    def op_ArtifactType(self, v: Any) -> Any:
        found = self._named(v)
        return {"project": {"artifact": found and {"artifactType": {"name": found.kind}}}}

    def op_ArtifactMembershipByName(self, v: Any) -> Any:
        found = self._named(v)
        return {"project": {"artifactCollectionMembership": found and _membership(found)}}

    def op_ArtifactByID(self, v: Any) -> Any:
        return {"artifact": _whole(self._fake.by_id(v["id"]))}

    def op_FetchArtifactManifest(self, v: Any) -> Any:
        address = f"{self._fake.url}/store/{v.get('id') or v.get('artifactID')}/wandb_manifest.json"
        found = {"currentManifest": {"file": {"id": "f", "directUrl": address}}}
        return {"artifact": found, "project": {"artifact": found}}

    def op_GetArtifactMembershipFileUrls(self, v: Any) -> Any:
        found = self._fake.named(v["collection"], v["alias"])
        start = f"/store/{found.id if found else ''}/"
        names = [path for path in self._fake.files if path.startswith(start) and "wandb_manifest" not in path]
        edges = [
            {"node": {"__typename": "File", "name": unquote(path[len(start) :]), "directUrl": self._fake.url + path}}
            for path in names
        ]
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        member = {"files": {"pageInfo": page, "edges": edges}}
        return {"project": {"artifactCollection": {"__typename": "ArtifactSequence", "artifactMembership": member}}}

    def op_Viewer(self, v: Any) -> Any:
        teams, keys = {"edges": [{"node": {"name": ENTITY}}]}, {"edges": [{"node": {"id": "k"}}]}
        about = {"id": "v", "entity": ENTITY, "flags": "{}", "username": "u", "email": "u@localhost", "admin": False}
        return {"viewer": {**about, "teams": teams, "apiKeys": keys}}

    def op_OrganizationCoreWeaveOrganizationID(self, v: Any) -> Any:
        return {"entity": {"organization": None}}

    def op_ServerFeaturesQuery(self, v: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def op_ServerInfo(self, v: Any) -> Any:
        info: dict[str, Any] = {"cliVersionInfo": {}, "latestLocalVersionInfo": None}
        return {"serverInfo": info, "viewer": {"organizations": {"edges": []}}}

    def op_Run(self, v: Any) -> Any:
        run = self._fake.runs.get(v["name"])
        about = {"id": f"r-{v['name']}", "name": v["name"], "displayName": v["name"], "state": "finished", "tags": []}
        about |= {"sweepName": None, "config": "{}", "group": None, "jobType": None, "commit": None, "readOnly": False}
        about |= {"createdAt": WHEN, "heartbeatAt": WHEN, "description": "", "notes": None, "systemMetrics": "{}"}
        about |= {"summaryMetrics": "{}", "historyLineCount": 0, "user": {"name": "u", "username": "u"}}
        about |= {"historyKeys": None, "projectId": "1"}
        return {"project": {"run": about if run is not None else None}}

    def op_RunResumeStatus(self, v: Any) -> Any:
        return {"model": {"id": "p1", "name": PROJECT, "entity": {"id": "e1", "name": ENTITY}, "bucket": None}}


def _node(a: FakeArtifact) -> dict[str, Any]:
    latest = {"id": a.id, "versionIndex": a.index}
    sequence = {"id": f"s-{a.name}", "name": a.name, "latestArtifact": latest}
    return {"id": a.id, "state": a.state, "digest": a.digest, "versionIndex": a.index, "artifactSequence": sequence}


def _whole(a: FakeArtifact) -> dict[str, Any]:
    of = {"__typename": "ArtifactSequence", "id": f"s-{a.name}", "name": a.name, "project": INFO}
    aliases = [
        {"__typename": "ArtifactAlias", "id": f"al-{one}", "alias": one, "artifactCollection": of} for one in a.aliases
    ]
    return {
        **{"__typename": "Artifact", "id": a.id, "artifactSequence": of, "versionIndex": a.index},
        **{"artifactType": {"name": a.kind}, "description": None, "metadata": a.metadata, "ttlDurationSeconds": -2},
        **{"ttlIsInherited": False, "tags": [], "historyStep": None, "state": a.state, "size": 1, "digest": a.digest},
        **{"digestAlgorithm": None, "commitHash": "c", "fileCount": 1, "createdAt": WHEN, "updatedAt": None},
        "aliases": aliases,
    }


def _membership(a: FakeArtifact) -> dict[str, Any]:
    aliases = [{"__typename": "ArtifactAlias", "id": f"al-{one}", "alias": one} for one in a.aliases]
    of = {"__typename": "ArtifactSequence", "id": f"s-{a.name}", "name": a.name, "project": INFO}
    about = {"__typename": "ArtifactCollectionMembership", "id": "mb", "createdAt": WHEN, "versionIndex": a.index}
    return {**about, "aliases": aliases, "artifactCollection": of, "artifact": _whole(a)}


def _handler(fake: FakeWandb) -> type[BaseHTTPRequestHandler]:
    operations = _Operations(fake)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Tests tell what matters."""

        def do_PUT(self) -> None:
            body = self._body()
            if self._well():
                fake.files[self.path] = body
                self._reply({})

        def do_GET(self) -> None:
            if self._well():
                path = urlsplit(self.path).path
                data = fake.files.get(path) or self._by_content(path)
                data = fake.lie(path, data) if fake.lie and data is not None else data
                self._reply(data if data is not None else {}, 404 if data is None else 200)

        def do_POST(self) -> None:
            body = self._body()
            if not self._well():
                return
            if "/file_stream" in self.path:
                self._streamed(json.loads(body))
            elif self.path.startswith("/graphql"):
                asked = json.loads(body)
                name = asked.get("operationName") or re.findall(r"(?:query|mutation)\s+(\w+)", asked["query"])[0]
                fake.asked.append(name)
                if status := fake.refuses(name, json.dumps(asked.get("variables"))):
                    self._reply({"errors": [{"message": "the fake refuses it"}]}, status)
                else:
                    self._reply({"data": operations.answer(name, asked.get("variables") or {})})
            else:
                self._reply({})

        def _by_content(self, path: str) -> bytes | None:
            """`/artifactsV2/<region>/<entity>/.../<md5 in hex>/<name>`"""
            asked = [part for part in path.split("/") if re.fullmatch(r"[0-9a-f]{32}", part)]
            known = (data for data in fake.files.values() if asked and hashlib.md5(data).hexdigest() == asked[0])
            return next(known, None)

        def _streamed(self, said: Any) -> None:
            run = self.path.split("/")[-2]
            lines = (said.get("files") or {}).get("wandb-history.jsonl", {}).get("content", [])
            fake.history.setdefault(run, []).extend(json.loads(line) for line in lines)
            for line in (said.get("files") or {}).get("wandb-summary.json", {}).get("content", []):
                fake.summaries.setdefault(run, {}).update(json.loads(line))
            self._reply({"exitcode": None, "limits": {}})

        def _well(self) -> bool:
            fake.keys.add(self.headers.get("Authorization") or "")
            time.sleep(fake.pause_s)
            if fake.answer == "hang":
                fake.stopped.wait(120)
                self.close_connection = True
                return False
            if fake.answer:
                self._reply({"errors": [{"message": f"the fake answers {fake.answer}"}]}, int(fake.answer))
            return not fake.answer

        def _reply(self, said: Any, status: int = 200) -> None:
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            length, body = self.headers.get("Content-Length"), b""
            if length is not None:
                body = self.rfile.read(int(length))
            elif "chunked" in self.headers.get("Transfer-Encoding", ""):
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed hangs up."""


@contextmanager
def fake_wandb() -> Iterator[FakeWandb]:
    """On a free port of this machine, until the end of the block."""
    fake = FakeWandb()
    server = _Server(("127.0.0.1", 0), _handler(fake))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
