"""`drift simulate`: sends seeded traffic to a running gateway, and tells it later how each row turned out.

Of a model that is served elsewhere it tells the gateway what the other system is said to have answered.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from drift_pipeline.clock import Clock, SystemClock
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop.state import RECORDED
from drift_pipeline.serving.traffic import Injected, Request, requests
from drift_pipeline.spec import ModelSpec

if TYPE_CHECKING:
    import httpx

_IN_FLIGHT = 64  # requests; a gateway that is slower makes the traffic late, not endless
_ELSEWHERE: dict[str, Any] = {"parameters": {"route": "external"}, "model_version": RECORDED}  # in place of an answer
_LABELS_AT_ONCE = 1000
_LABELS_EVERY_S = 0.2
_LABEL_ATTEMPTS = 10
_TELL_EVERY_S = 5.0
_TOLD_OF_A_ROW = {"score": "_score", "latency_ms": "_latency_ms"}  # an event's key: the history's column


@dataclass(frozen=True)
class Simulated:
    """What came of the traffic, in rows. `routes` counts a request that both models answered as "split".

    `refused` is by the answer's status, "unreachable" where there was none; `labels_refused` likewise. Latencies are
    those of requests that were answered, as the caller saw them; None when there was none. `partial`: Ctrl-C ended it;
    what was under way or waited for its label is not counted.
    """

    sent: int
    versions: Mapping[str, int]
    routes: Mapping[str, int]
    refused: Mapping[str, int]
    labels: int
    labels_refused: Mapping[str, int]
    latency_ms: Mapping[str, float] | None
    partial: bool = False

    @property
    def answered(self) -> int:
        return sum(self.versions.values())

    def to_json(self) -> dict[str, Any]:
        return {"answered": self.answered, **asdict(self)}


def simulate(
    url: str,
    key: str,
    spec: ModelSpec,
    source: pl.DataFrame,
    *,
    rows_per_second: float,
    duration: timedelta,
    seed: int,
    drifts: Sequence[Injected] = (),
    label_delay: timedelta | None = None,
    prefix: str = "",
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock | None = None,
) -> Simulated:
    """Send the whole traffic, then wait until the last label is due; Ctrl-C ends it with what was counted so far.

    Where the gateway says that the model is served elsewhere, rows go to its `/events` with the score, and the latency,
    that the source recorded of them; a drift moves their features and labels, and no score.

    The same seed and source make the same rows with the same ids in the same order, at the same times; a second run
    against one gateway wants another `prefix`, since capture takes an id once.

    Args:
        label_delay: how long after its answer a row's label is told; None = the spec's `outcome.delay`.
        progress: told a line every few seconds.
        clock: the gateway's, for the times of events; None = the system's.

    Raises:
        InputError: the key or the model is refused, or there is nothing to send.
        UnavailableError: no gateway answers at the url.
    """

    def draw(elsewhere: bool) -> Iterable[Request]:
        return requests(
            _with_records(spec, source, drifts) if elsewhere else spec,
            source,
            rows_per_second=rows_per_second,
            duration_seconds=duration.total_seconds(),
            seed=seed,
            drifts=drifts,
            prefix=prefix or f"sim{seed}-",
        )

    delay = spec.outcome.delay if label_delay is None else label_delay
    clock = clock or SystemClock()
    return asyncio.run(_simulate(_checked(url), key, spec.name, draw, delay.total_seconds(), progress, clock))


async def _simulate(
    url: str,
    key: str,
    model: str,
    draw: Callable[[bool], Iterable[Request]],
    label_delay_s: float,
    progress: Callable[[str], None],
    clock: Clock,
) -> Simulated:
    import httpx

    limits = httpx.Limits(max_connections=_IN_FLIGHT + 1)
    async with httpx.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, limits=limits, trust_env=False
    ) as client:
        elsewhere = await _is_elsewhere(client, url, model)
        traffic = draw(elsewhere)
        run = _Run(client, f"/v2/models/{model}", label_delay_s, clock if elsewhere else None)
        telling = asyncio.create_task(run.tell(progress))
        try:
            await run.all(traffic)
        except asyncio.CancelledError:  # Ctrl-C: what was counted is worth telling
            run.partial = True
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
    return run.simulated()


def _with_records(spec: ModelSpec, source: pl.DataFrame, drifts: Sequence[Injected]) -> ModelSpec:
    """The spec with what was recorded of a row as columns that are drawn with it, and that no drift moves."""
    if "_score" not in source.columns or source["_score"].null_count() == source.height:
        raise InputError(f"{spec.name}: is served elsewhere, and its history records no score that could be told")
    if any(drift.kind == "unfairness" for drift in drifts):
        raise InputError(
            f"{spec.name}: is served elsewhere, so its scores are the recorded ones and treat nobody unfairly; "
            "inject another drift"
        )
    records = {column: "numeric" for column in _TOLD_OF_A_ROW.values() if column in source.columns}
    return spec.model_copy(update={"protected": {**spec.protected, **records}})


def _checked(url: str) -> str:
    """Raises InputError where it is no address of a gateway."""
    import httpx

    with suppress(httpx.InvalidURL):
        read = httpx.URL(url)
        if read.scheme in ("http", "https") and read.host:
            return url
    raise InputError(f"{url}: is no address of a gateway; write http://HOST:PORT")


async def _is_elsewhere(client: "httpx.AsyncClient", url: str, model: str) -> bool:
    """Whether another system answers for the model; raises where nothing that is sent would be taken."""
    import httpx

    try:
        told, ready = [await client.get(f"/v2/models/{model}{path}") for path in ("", "/ready")]
    except httpx.HTTPError as error:
        raise UnavailableError(f"{url}: no gateway answers: {error}; start one with drift up or drift serve") from error
    if told.status_code == 503:
        raise UnavailableError(f"{url}: is not ready: {told.text}; ask again in a moment")
    if told.status_code != 200:
        raise InputError(f"{url}: answers {told.status_code} for {model}: {told.text}")
    return ready.status_code == 404  # 503: not yet, but here


@dataclass
class _Run:
    """One simulation under way: counts, and the labels that wait. `events_clock`: rows are told, not asked."""

    client: "httpx.AsyncClient"
    path: str
    label_delay_s: float
    events_clock: Clock | None
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("versions", "routes", "refused", "labels_refused")}
    )
    sent: int = 0
    labels: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    waiting: deque[tuple[float, dict[str, Any]]] = field(default_factory=deque)
    began: float = field(default_factory=time.monotonic)
    ended: bool = False
    partial: bool = False

    async def all(self, traffic: Iterable[Request]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_labels())
            free = asyncio.Semaphore(_IN_FLIGHT)
            async with asyncio.TaskGroup() as sending:
                for request in traffic:
                    await asyncio.sleep(max(0.0, self.began + request.at_seconds - time.monotonic()))
                    await free.acquire()
                    self.sent += len(request.ids)
                    sending.create_task(self._send(request)).add_done_callback(lambda _: free.release())
            self.ended = True

    async def _send(self, request: Request) -> None:
        began, n = time.perf_counter(), len(request.ids)
        if self.events_clock is None:
            told = await self._post("/infer", request.body)
        else:
            told = await self._post("/events", {"events": _events(request, self.events_clock.now())})
        if told is None or told.status_code not in (200, 202):
            self.counts["refused"][_status(told)] += n
            return
        self.latencies_ms.append(1000 * (time.perf_counter() - began))
        answer = told.json() if told.status_code == 200 else _ELSEWHERE
        self.counts["routes"][answer["parameters"]["route"]] += n
        self.counts["versions"].update(answer["parameters"].get("versions") or [answer["model_version"]] * n)
        due = time.monotonic() + self.label_delay_s
        for id, label in zip(request.ids, request.labels, strict=True):
            self.waiting.append((due, {"id": id, "label": label}))

    async def _tell_labels(self) -> None:
        """Until all traffic was sent and no label waits."""
        while not self.ended or self.waiting:
            due: list[dict[str, Any]] = []
            while self.waiting and self.waiting[0][0] <= time.monotonic() and len(due) < _LABELS_AT_ONCE:
                due.append(self.waiting.popleft()[1])
            if due:
                await self._tell(due)
            if len(due) < _LABELS_AT_ONCE:
                await asyncio.sleep(_LABELS_EVERY_S)

    async def _tell(self, outcomes: list[dict[str, Any]]) -> None:
        """Again where the gateway is busy: a label that is not told is a row that nobody learns from."""
        for attempt in range(_LABEL_ATTEMPTS):
            told = await self._post("/outcomes", {"outcomes": outcomes})
            if told is not None and told.status_code not in (429, 503):
                break
            await asyncio.sleep(min(2.0**attempt, 10.0) / 10)
        if told is not None and told.status_code == 202:
            self.labels += len(outcomes)
        else:
            self.counts["labels_refused"][_status(told)] += len(outcomes)

    async def _post(self, path: str, body: Mapping[str, Any]) -> "httpx.Response | None":
        """None where nothing answered."""
        import httpx

        try:
            return await self.client.post(self.path + path, json=body)
        except httpx.HTTPError:
            return None

    async def tell(self, progress: Callable[[str], None]) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            told = self.simulated()
            refused = sum(told.refused.values())
            p95 = f", p95 {told.latency_ms['p95']:.1f} ms" if told.latency_ms else ""
            progress(
                f"{time.monotonic() - self.began:,.0f} s: {told.sent:,} sent, {told.answered:,} answered, "
                f"{refused:,} refused, {told.labels:,} labels told{p95}"
            )

    def simulated(self) -> Simulated:
        counts = {name: dict(sorted(counter.items())) for name, counter in self.counts.items()}
        latency_ms = None
        if self.latencies_ms:
            shares = dict(zip(("p50", "p95", "p99"), np.percentile(self.latencies_ms, (50, 95, 99)), strict=True))
            latency_ms = {name: round(float(value), 3) for name, value in shares.items()}
        return Simulated(sent=self.sent, labels=self.labels, latency_ms=latency_ms, partial=self.partial, **counts)


def _events(request: Request, now: datetime) -> list[dict[str, Any]]:
    """The request's rows as the system that answered them tells of them; a delay makes the recorded latency longer."""
    parameters, n = request.body["parameters"], len(request.ids)
    columns = {tensor["name"]: tensor["data"] for tensor in request.body["inputs"]}
    records = {key: columns.pop(column, [None] * n) for key, column in _TOLD_OF_A_ROW.items()}
    entities = parameters.get("entity", [None] * n)
    if delay_ms := parameters.get("delay_ms"):
        records["latency_ms"] = [(latency_ms or 0) + delay_ms for latency_ms in records["latency_ms"]]
    return [
        {
            "id": id,
            "time": now.isoformat(),
            "version": RECORDED,
            "entity": entities[row],
            **{key: cells[row] for key, cells in records.items()},
            "features": {name: cells[row] for name, cells in columns.items()},
        }
        for row, id in enumerate(request.ids)
    ]


def _status(told: "httpx.Response | None") -> str:
    return "unreachable" if told is None else str(told.status_code)
