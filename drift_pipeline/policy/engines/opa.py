"""OpaEngine: an Open Policy Agent server, asked over REST; `deploy/opa/` says how it is run."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from drift_pipeline.clock import Clock
from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines import DATA, DECISION, ROOT, Answer, Bundle, bundle_data

if TYPE_CHECKING:
    from httpx import AsyncClient

MOST_BYTES = 4 * 2**20  # of one answer
_REST = 5  # times the timeout


class OpaEngine:
    """Decides by the one bundle of the server at `url`, and only while that is signed, fresh and names its revision.

    Whatever else comes back (no answer in time, an error, no result, no decision id, an old bundle, one without
    `signing`) raises UnavailableError: what is asked is then denied. The rules of a revision that is new here are read
    from the server and handed to `file`, once, before anything is decided by them.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        timeout_seconds: float = 2.0,
        stale: timedelta = timedelta(minutes=10),
        token: str = "",
        file: Callable[[Bundle], None] = lambda _: None,
    ) -> None:
        """
        Args:
            timeout_seconds: for all of one decision.
            stale: the server last heard from where its bundle comes from longer ago than this.
            token: a bearer token that the server asks for.
        """
        self._url, self._clock, self._timeout_seconds, self._stale = url.rstrip("/"), clock, timeout_seconds, stale
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._file, self._lock, self._known = file, threading.Lock(), dict[str, str]()
        self._silent_until = float("-inf")

    @property
    def digest(self) -> None:
        """The server may have other rules at any moment; each answer says by which it was given."""

    def evaluate(self, facts: Mapping[str, object], rule: str = DECISION) -> Answer:
        """A server that just did not answer is not waited for again at once, by one model after the other."""
        if time.monotonic() < self._silent_until:
            raise self._too_late()
        return asyncio.run(self._within(facts, rule))

    async def _within(self, facts: Mapping[str, object], rule: str) -> Answer:
        import httpx

        try:
            # a client reads every certificate there is, which takes longer than a decision
            client = httpx.AsyncClient(headers=self._headers, verify=self._url.startswith("https:"), timeout=None)
            async with asyncio.timeout(self._timeout_seconds), client:
                return await self._evaluate(client, facts, rule)
        except TimeoutError as error:
            self._silent_until = time.monotonic() + _REST * self._timeout_seconds
            raise self._too_late() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = str(error) or type(error).__name__
            raise UnavailableError(f"OPA at {self._url} cannot be reached: {told}") from error

    def _too_late(self) -> UnavailableError:
        return UnavailableError(f"OPA at {self._url} did not answer within {self._timeout_seconds:g} s")

    async def _evaluate(self, client: "AsyncClient", facts: Mapping[str, object], rule: str) -> Answer:
        name, revision = await self._bundle(client)
        digest = self._known.get(revision) or self._filed(revision, await self._rules(client))
        answer = await self._call(client, f"data/drift/{rule}?provenance=true", {"input": facts})
        decided_by = {bundle: told.get("revision") for bundle, told in _bundles(answer.get("provenance")).items()}
        if decided_by != {name: revision}:
            raise UnavailableError(f"OPA at {self._url} took up other rules while it was asked; the next time may do")
        decision_id, value = answer.get("decision_id"), answer.get("result")
        if not isinstance(decision_id, str):
            raise UnavailableError(f"OPA at {self._url} gives decisions no id: set decision_logs in its configuration")
        if value is None:
            raise UnavailableError(f"the policy is undefined for these facts (OPA's decision {decision_id})")
        if not isinstance(value, dict):
            raise UnavailableError(f"the policy's decision is not an object: {value!r}")
        by = {"engine": "opa", "decision_id": decision_id, "bundle": name, "revision": revision}
        return Answer(value, digest, by)

    async def _bundle(self, client: "AsyncClient") -> tuple[str, str]:
        """Name and revision of the bundle in use. Raises UnavailableError unless there is one, signed and fresh."""
        status = _bundles((await self._call(client, "status")).get("result"))
        config = _bundles((await self._call(client, "config")).get("result"))
        if len(status) != 1:
            raise UnavailableError(f"OPA at {self._url} has {len(status)} bundles, and decides by one")
        ((name, told),) = status.items()
        if not (config.get(name) or {}).get("signing"):
            raise UnavailableError(f"OPA at {self._url} does not verify who signed its bundle {name}: set signing")
        revision, heard = told.get("active_revision"), told.get("last_successful_request")
        if not isinstance(revision, str) or not revision or not isinstance(heard, str):
            raise UnavailableError(
                f"OPA at {self._url} has no bundle with a revision: {told.get('message', 'none yet')}"
            )
        try:
            age = self._clock.now() - datetime.fromisoformat(heard)
        except (TypeError, ValueError) as error:
            raise UnavailableError(f"OPA at {self._url} tells no time of its bundle: {heard!r}") from error
        if age > self._stale:
            raise UnavailableError(
                f"OPA's bundle {name} {revision} is stale: nothing was heard from its source for "
                f"{age // timedelta(seconds=1)} s{': ' + told['message'] if told.get('message') else ''}"
            )
        return name, revision

    async def _rules(self, client: "AsyncClient") -> Bundle:
        policies = (await self._call(client, "policies")).get("result")
        data = (await self._call(client, f"data/{ROOT}")).get("result")
        try:
            modules = {PurePosixPath(one["id"]).name: str(one["raw"]) for one in policies or ()}
            return Bundle({**modules, DATA: bundle_data({ROOT: data})} if data is not None else modules)
        except (LookupError, TypeError, ValueError) as error:
            raise UnavailableError(f"OPA at {self._url} does not tell its rules: {error}") from error

    def _filed(self, revision: str, rules: Bundle) -> str:
        with self._lock:
            if revision not in self._known:
                self._file(rules)
                self._known = {revision: rules.digest}
            return rules.digest

    async def _call(self, client: "AsyncClient", path: str, body: object = None) -> dict[str, Any]:
        method, content = ("GET", None) if body is None else ("POST", json.dumps(body, allow_nan=False))
        async with client.stream(method, f"{self._url}/v1/{path}", content=content) as response:
            answer = bytearray()
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > MOST_BYTES:
                    raise UnavailableError(f"OPA at {self._url} answers more than {MOST_BYTES:,} bytes")
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            found = None
        if response.status_code != 200 or not isinstance(found, dict):
            why = found.get("message") if isinstance(found, dict) else "no JSON object"
            raise UnavailableError(f"OPA at {self._url} answers {response.status_code} to /v1/{path}: {why}")
        return found


def _bundles(found: object) -> dict[str, dict[str, Any]]:
    bundles = found.get("bundles") if isinstance(found, dict) else None
    return bundles if isinstance(bundles, dict) else {}
