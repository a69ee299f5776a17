"""A real Dagster daemon with many models: prints tables. `python -m drift_pipeline_tests.benchmarks.daemon`.

A home of N served models, adopted in this process, then `drift up`: gateway, capture, webserver, daemon, code server.
Rows of every model come each minute through a spool of their own, and their labels five minutes later. In the first
third of the time nothing else happens. Then backfills and daily reports fill the queue, and while it is full hotfixes
(by `drift hotfix`) and rollbacks (by the job `rollback`, from the launchpad, of a rollout in the shadow) are asked for.

A tick counts as missed where an interval on the wall, from the first tick on, holds the start of none that ended well.
The daemon looks every 5 s, so that ticks 35 s apart miss one interval in seven: gaps and lost ticks (a gap of two
intervals loses one) are told beside it.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
import httpx
import numpy as np
import polars as pl

from drift_pipeline.clock import ManualClock, SystemClock, Window
from drift_pipeline.components.lanes import DECISION, LANE, NORMAL
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.home import Home, model_of, opened
from drift_pipeline.loop.releasing.starting import begin
from drift_pipeline.registry.bundle import dump_pipeline
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import History, read_history
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import synthetic_history
from drift_pipeline.training.trainers import TRAINERS, fit, score

DAYS, REFERENCE_DAYS, ROWS_PER_DAY = 56, 28, 100  # what follows the reference can be backfilled
LABEL_DELAY_S = 300.0
PATIENCE_S = 300.0
SLOTS = min(7, os.cpu_count() or 1)  # of the normal lane below drift up
WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]
AT_WORK = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
SPEC = """\
type: drift_pipeline.components.MonitoredModel
attributes:
  name: {name}
  owner: ml@example.com
  task: binary_classification
  since: {since}
  columns: {{timestamp: ts, prediction_id: prediction_id, entity: user_id, latency_ms: latency_ms}}
  features:
    session_length_s: numeric
    items_viewed: numeric
    price_eur: numeric
    days_since_visit: numeric
    device: categorical
    country: categorical
  prediction: {{score: score}}
  outcome: {{column: clicked, delay: 5m}}
  protected: {{age_band: categorical}}
  retrain: {{min_rows: 2000, trials: 2}}
  rollout: {{shadow: 1d, canary: 1d, deadline: 7d}}
"""
LOAD = """
import resource, time
began = time.perf_counter()
from drift_pipeline.definitions import defs
imported = time.perf_counter() - began
defs().get_repository_def()
used = resource.getrusage(resource.RUSAGE_SELF)
print(imported, time.perf_counter() - began, used.ru_utime + used.ru_stime)
"""
LOADED = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
  ... on PythonError { message } ... on RepositoryLocation { repositories { name } } } } } } }"""
LAUNCH = """mutation($asked: ExecutionParams!) { launchRun(executionParams: $asked) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
BACKFILL = """mutation($asked: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $asked) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""


def tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


# The world


@dataclass(frozen=True)
class World:
    """A home of models that were adopted; `rows` are those that its traffic is drawn from, scored by version v1."""

    settings: Settings
    names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    started: datetime
    days: Sequence[str]


def make_world(folder: Path, models: int, rollouts: int) -> World:
    """All models are given one bundle. The last `rollouts` of them have a candidate in the shadow."""
    began = time.monotonic()
    now = datetime.now(UTC)
    start = (now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    names = [f"m{number:03}" for number in range(models)]
    for name in names:
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "defs.yaml").write_text(SPEC.format(name=name, since=start.date()))
    settings = Settings(home=folder / "home", models=folder / "models", database="")
    spec = model_of(settings, names[0])
    data, fresh = folder / "history.parquet", folder / "fresh.parquet"
    synthetic_history(DAYS, ROWS_PER_DAY, 0, start=start).write_parquet(data)
    synthetic_history(DAYS, ROWS_PER_DAY, 1, start=start).write_parquet(fresh)
    history, pool = read_history(data, spec).frame, read_history(fresh, spec).frame
    then = start + timedelta(days=REFERENCE_DAYS)
    known, served = history.filter(pl.col("_time") < then), history.filter(pl.col("_time") >= then)
    trained = known.head(int(0.8 * known.height))
    pipelines = [fit(TRAINERS["gradient_boosting"].build({}, spec, seed), trained, spec.features) for seed in (0, 1)]
    bundle = folder / "given.skops"
    bundle.write_bytes(dump_pipeline(pipelines[0]))
    served = served.with_columns(_score=score(pipelines[0], served, spec.features))
    specs = [spec.model_copy(update={"name": name}) for name in names]
    with opened(settings, ManualClock(then), new=True) as home:
        for number, one in enumerate(specs, 1):
            adopt(home, one, History(known, ()), bundle=bundle)
            land(Lake(settings.lake / one.name, source="before"), served)
            if number % 10 == 0:
                tell(f"{number} models adopted, {time.monotonic() - began:.0f} s")
    with opened(settings, SystemClock()) as home:
        for one in specs[-rollouts:]:
            begin_rollout(home, one, dump_pipeline(pipelines[1]))
    scored = pool.with_columns(_score=score(pipelines[0], pool, spec.features))
    days = [(start + timedelta(days=number)).date().isoformat() for number in range(REFERENCE_DAYS, DAYS)]
    return World(settings, names, scored.to_dicts(), now, days)


def land(lake: Lake, served: pl.DataFrame) -> None:
    """What was answered between the adoption and now."""
    facts = served.drop("_label").with_columns(_version=pl.lit("v1"), _route=pl.lit("stable"))
    lake.append("predictions", facts, 0)
    observed_at = pl.col("_time") + timedelta(seconds=LABEL_DELAY_S)
    lake.append("outcomes", served.select("_id", observed_at.alias("_observed_at"), "_label"), 0)
    for table in ("predictions", "outcomes"):
        lake.flush(table)


def begin_rollout(home: Home, spec: ModelSpec, data: bytes) -> None:
    """Put a second bundle in the shadow. That its gates passed is only said: to prove it would take a retrain."""
    loop = home.loop(spec)
    champion = loop.ledger.get("model")
    digest = home.registry.put({"model": spec.name, "version": "v2"}, {"model.skops": data}).digest
    record = {**champion, "digest": digest, "version": "v2", "passed": True}
    loop.ledger.commit("candidate.given", {"version": "v2"}, puts={f"candidate/{digest}": record})
    assert begin(loop.rollouts, digest, champion["digest"])


class Traffic:
    """Each model's rows once a minute, each model at its own second of it; labels follow when they are known."""

    def __init__(self, world: World, rows_per_minute: int) -> None:
        self._world, self._rows_per_minute = world, rows_per_minute
        self._random = np.random.default_rng(0)
        self._owed: deque[tuple[float, list[dict[str, Any]]]] = deque()
        self._stop = Event()
        self.sent = self.labels = 0
        self.late_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        spool = SpoolWriter(self._world.settings.home / "spool" / "benchmark")
        began, second = time.monotonic(), 0
        while not self._stop.wait(max(0.0, began + second - time.monotonic())):
            self.late_s = max(self.late_s, time.monotonic() - began - second)
            lines = [json.dumps(event).encode() for event in self._due(second)]
            spool.write(lines)
            spool.rotate()
            second += 1
        spool.close()

    def _due(self, second: int) -> Iterator[dict[str, Any]]:
        now = datetime.now(UTC)
        for name in self._world.names[second % 60 :: 60]:
            drawn = self._random.integers(len(self._world.rows), size=self._rows_per_minute)
            labels = []
            for number, at in enumerate(drawn):
                row, about = self._world.rows[at], {"model": name, "id": f"{name}-{second}-{number}"}
                yield about | prediction(row, now - timedelta(seconds=60 * number / len(drawn)))
                labels.append(about | {"event": "outcome", "label": int(row["_label"])})
            self._owed.append((time.monotonic() + LABEL_DELAY_S, labels))
            self.sent += len(drawn)
        while self._owed and self._owed[0][0] <= time.monotonic():
            for told in self._owed.popleft()[1]:
                self.labels += 1
                yield {**told, "time": now.isoformat()}


def prediction(row: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    return {
        "event": "prediction",
        "time": at.isoformat(),
        "version": "v1",
        "route": "stable",
        "score": row["_score"],
        "latency_ms": row["_latency_ms"],
        "entity": row["_entity"],
        "features": {column: value for column, value in row.items() if not column.startswith("_")},
    }


# What runs


@dataclass
class Running:
    """A `drift up` on the world, Dagster's records of it, and the control store."""

    world: World
    url: str
    environment: Mapping[str, str]
    instance: dg.DagsterInstance
    store: ControlStore
    location: str = ""
    repository: str = ""
    ages: dict[int, float] = field(default_factory=dict)

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` of an answer of the webserver, as its launchpad asks."""
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=120, trust_env=False).json()
        if "errors" in answer:
            raise RuntimeError(str(answer["errors"]))
        return answer["data"]

    def loaded(self) -> bool:
        """Whether the webserver has the code location."""
        try:
            entries = self.ask(LOADED)["workspaceOrError"]["locationEntries"]
        except httpx.HTTPError:
            return False
        found = entries[0]["locationOrLoadError"] if entries else None
        if found and "message" in found:
            raise RuntimeError(found["message"])
        if found:
            self.location, self.repository = entries[0]["name"], found["repositories"][0]["name"]
        return bool(found)

    def launch(self, job: str, **asked: Any) -> str:
        """The id of a run that was put into the queue."""
        selector = {"repositoryName": self.repository, "repositoryLocationName": self.location, "jobName": job}
        selector |= {"assetSelection": asked.pop("assets")} if "assets" in asked else {}
        told = self.ask(LAUNCH, asked={"selector": selector, **asked})["launchRun"]
        if "run" not in told:
            raise RuntimeError(f"{job}: {told}")
        return str(told["run"]["runId"])

    def backfill(self, model: str) -> None:
        """All days of the model's monitoring half."""
        asked = {"assetSelection": monitoring(model), "partitionNames": list(self.world.days)}
        told = self.ask(BACKFILL, asked=asked)["launchPartitionBackfill"]
        if "backfillId" not in told:
            raise RuntimeError(f"{model}: {told}")

    def report(self, model: str) -> None:
        """Yesterday, as the schedule `report_yesterday` asks for it."""
        tags = {"tags": [{"key": "dagster/partition", "value": self.world.days[-1]}]}
        self.launch("__ASSET_JOB", assets=monitoring(model), executionMetadata=tags)

    def fill(self, backfills: int) -> None:
        """More than the normal lane can work off soon: backfills, and reports for the slots that those may not have."""
        for name in self.world.names[:backfills]:
            self.backfill(name)
        for name in self.world.names:
            self.report(name)

    def queue(self) -> tuple[int, int]:
        """Runs of the normal lane at work, and waiting."""
        lane = {LANE: NORMAL}
        at_work, waiting = (dg.RunsFilter(statuses=statuses, tags=lane) for statuses in (AT_WORK, WAITING))
        return self.instance.get_runs_count(at_work), self.instance.get_runs_count(waiting)

    def ticks(self, sensor: str = "loop_tick", last: int | None = None) -> list[Any]:
        """The sensor's ticks, or only the last of them; oldest first."""
        states = [state for state in self.instance.all_instigator_state() if state.name == sensor]
        found = [self.instance.get_ticks(one.instigator_origin_id, one.selector_id, limit=last) for one in states]
        return sorted((tick for ticks in found for tick in ticks), key=lambda tick: tick.timestamp)

    def oldest(self) -> float:
        """Seconds since the model was looked at that waits longest for the next look."""
        looks = [one for one in (self.store.recall(name) for name in self.world.names) if one]
        return time.time() - min(datetime.fromisoformat(one.body["at"]).timestamp() for one in looks)

    def sample(self) -> None:
        """`oldest`, as it is after the last tick that ended."""
        ended = [tick for tick in self.ticks(last=2) if good(tick)]
        if ended and ended[-1].tick_id not in self.ages:
            self.ages[ended[-1].tick_id] = self.oldest()

    def until(self, holds: Callable[[], Any], seconds: float) -> Any:
        """What came to hold, or None after so long; ticks are sampled meanwhile."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() >= end:
                return None
            self.sample()
            time.sleep(0.5)
        return found


def monitoring(model: str) -> list[dict[str, list[str]]]:
    return [{"path": [model, name]} for name in ("telemetry_snapshot", "drift_report")]


def good(tick: Any) -> bool:
    return tick.status.value in ("SKIPPED", "SUCCESS") and tick.end_timestamp is not None


@contextmanager
def running(world: World, tick_seconds: int) -> Iterator[Running]:
    """The whole of `drift up`; what it started ends with it."""
    settings = world.settings
    ports = [free(), free(), free()]
    environment = {
        **os.environ,
        "DRIFT_HOME": str(settings.home),
        "DRIFT_MODELS": str(settings.models),
        "DRIFT_TICK_SECONDS": str(tick_seconds),
    }
    command = [*drift("up"), "--port", str(ports[0]), "--dagster-port", str(ports[1]), "--pages-port", str(ports[2])]
    with (settings.home / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    store = ControlStore(settings.database_url, SystemClock())
    try:
        config = settings.home / "dagster" / "dagster.yaml"
        while not config.exists():  # this process reads the same instance
            assert process.poll() is None, (settings.home / "up.log").read_text()
            time.sleep(0.1)
        with dg.DagsterInstance.from_config(str(config.parent)) as instance:
            yield Running(world, f"http://127.0.0.1:{ports[1]}", environment, instance, store)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        store.close()


def drift(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from drift_pipeline.cli import main; main()", *arguments]


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# Asking


@dataclass(frozen=True)
class Asked:
    """Seconds from asking until the run was in the queue, and until it began; None: it did not within the patience."""

    what: str
    queued_s: float
    started_s: float | None
    ended: str = ""


def hotfix(at: Running, model: str) -> Asked:
    began = time.time()
    command = [*drift("hotfix"), model, "--reason", "a benchmark", "--json"]
    done = subprocess.run(command, env=at.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tell(f"drift hotfix {model}: {done.returncode}: {done.stdout} {done.stderr}")
        return Asked("hotfix", float("nan"), None, "refused")
    tell(f"{model}: the hotfix was decided {time.time() - began:.1f} s after it was asked for")
    return started(at, "hotfix", dg.RunsFilter(tags={DECISION: json.loads(done.stdout)["decision"]}), began)


def rollback(at: Running, model: str) -> Asked:
    began = time.time()
    config = {"ops": {"roll_back": {"config": {"model": model, "reason": "a benchmark"}}}}
    run = at.launch("rollback", runConfigData=json.dumps(config))
    return started(at, "rollback", dg.RunsFilter(run_ids=[run]), began)


def rollback_by_command(at: Running, model: str) -> Asked:
    """Dagster has no part in it: the command itself rolls back."""
    began = time.time()
    command = [*drift("rollback"), model, "--reason", "a benchmark"]
    done = subprocess.run(command, env=at.environment, capture_output=True, text=True, check=False)
    took = time.time() - began
    return Asked("drift rollback", took, took, f"exit code {done.returncode}")


def started(at: Running, what: str, runs: dg.RunsFilter, began: float) -> Asked:
    def record() -> Any:
        found = at.instance.get_run_records(runs)  # newest first
        return found[-1] if found and found[-1].start_time else None

    found = at.until(record, PATIENCE_S)
    if found is None:
        return Asked(what, float("nan"), None, "not started")
    at.until(lambda: at.instance.get_run_records(runs)[-1].end_time, PATIENCE_S)
    status = at.instance.get_run_records(runs)[-1].dagster_run.status.value
    return Asked(what, found.create_timestamp.timestamp() - began, found.start_time - began, status)


def ask_all(at: Running, asks: int) -> list[Asked]:
    """Rounds of a hotfix and, at the same time, a rollback; then one by the command."""
    found: list[Asked] = []
    names = at.world.names
    for number in range(asks):
        tell(f"round {number + 1}: {at.queue()} runs of the normal lane at work and waiting")
        aside = Thread(target=lambda number=number: found.append(rollback(at, names[-1 - number])))
        aside.start()
        found.append(hotfix(at, names[number]))
        aside.join()
        tell(", ".join(f"{one.what} {one.started_s and round(one.started_s, 1)} s {one.ended}" for one in found[-2:]))
    found.append(rollback_by_command(at, names[-1 - asks]))
    return found


# Tables


def quantiles(values: Sequence[float]) -> str:
    if not values:
        return f"{'-':>8}" * 3
    return "".join(f"{one:8.2f}" for one in (*np.quantile(values, [0.5, 0.95]), max(values)))


def show_ticks(label: str, at: Running, ticks: Sequence[Any], since: float, until: float, interval: int) -> None:
    """Of the ticks that began in the span."""
    inside = [tick for tick in ticks if since <= tick.timestamp < until]
    well = [tick for tick in inside if good(tick)]
    expected = int((until - since) / interval)
    slots = {int((tick.timestamp - since) / interval) for tick in well}
    gaps = [later.timestamp - earlier.timestamp for earlier, later in pairwise(well)]
    lost = sum(max(0, round(gap / interval) - 1) for gap in gaps)
    missed = expected - len(slots & set(range(expected)))
    print(
        f"{label:8}{quantiles([tick.end_timestamp - tick.timestamp for tick in well])}"
        f"{quantiles([at.ages[tick.tick_id] for tick in well if tick.tick_id in at.ages])}"
        f"{expected:6}{len(well):6}{len(inside) - len(well):8}{missed:8}{100 * missed / max(expected, 1):6.1f}"
        f"{lost:6}{quantiles(gaps)}"
    )


def show(at: Running, asked: Sequence[Asked], phases: Sequence[tuple[str, float, float]], interval: int) -> None:
    head = ("p50", "p95", "max")
    print(f"\nloop_tick, seconds: its own, since the oldest look at a model, to the next tick; one each {interval} s")
    print(f"{'':8}" + "".join(f"{'tick ' + h:>8}" for h in head) + "".join(f"{'old ' + h:>8}" for h in head), end="")
    print(
        f"{'due':>6}{'good':>6}{'not':>8}{'missed':>8}{'%':>6}{'lost':>6}" + "".join(f"{'gap ' + h:>8}" for h in head)
    )
    ticks = at.ticks()
    for label, since, until in phases:
        show_ticks(label, at, ticks, since, until, interval)
    rollouts = [tick.end_timestamp - tick.timestamp for tick in at.ticks("rollout_tick") if good(tick)]
    print(f"rollout_tick{quantiles(rollouts)}")
    failed = Counter(tick.error.message.strip()[:300] for tick in ticks if tick.error)
    for reason, count in failed.items():
        print(f"loop_tick failed {count}: {reason}")
    print(f"\n{'asked for, the queue full':28}{'in queue s':>12}{'began s':>10}  ended")
    for one in asked:
        began = f"{one.started_s:10.1f}" if one.started_s is not None else f"{'never':>10}"
        print(f"{one.what:28}{one.queued_s:12.1f}{began}  {one.ended}")


def show_runs(at: Running) -> None:
    records = at.instance.get_run_records()
    waited: dict[str, list[float]] = {}
    lasted: dict[str, list[float]] = {}
    for record in records:
        lane = record.dagster_run.tags.get(LANE, "none")
        if record.start_time:
            waited.setdefault(lane, []).append(record.start_time - record.create_timestamp.timestamp())
            if record.end_time:
                lasted.setdefault(lane, []).append(record.end_time - record.start_time)
    print(f"\n{'runs':8}{'begun':>7}{'wait p50':>9}{'p95':>8}{'max':>8}{'work p50':>9}{'p95':>8}{'max':>8}")
    for lane, seconds in sorted(waited.items()):
        print(f"{lane:8}{len(seconds):7} {quantiles(seconds)} {quantiles(lasted.get(lane, []))}")
    print(", ".join(f"{status} {n}" for status, n in Counter(r.dagster_run.status.value for r in records).items()))
    reasons = Counter(reason for record in records for reason in failures(at, record.dagster_run.run_id))
    for reason, count in reasons.most_common(5):
        print(f"failed {count}: {reason}")
    counted = Counter(record.event for record in at.store.records())
    print("audit: " + ", ".join(f"{event} {n}" for event, n in sorted(counted.items())))


def failures(at: Running, run_id: str) -> Iterator[str]:
    for entry in at.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        if entry.dagster_event and entry.dagster_event.step_key:
            failed = entry.dagster_event.step_failure_data
            told = failed.user_failure_data.description if failed.user_failure_data else None
            step = entry.dagster_event.step_key.rpartition("__")[2]
            yield f"{step}: {told or (failed.error.message.strip() if failed.error else '')}"[:300]


def show_rows(world: World, traffic: Traffic) -> None:
    window = Window(world.started - timedelta(minutes=5), datetime.now(UTC) + timedelta(days=1))
    rows = labels = 0
    for name in world.names:
        lake = Lake(world.settings.lake / name, source="benchmark")
        rows += lake.read("predictions", window).height
        labels += lake.read("outcomes", window).height
    print(f"rows sent {traffic.sent:,}, landed {rows:,}; labels sent {traffic.labels:,}, landed {labels:,}")
    print(f"the traffic was at most {traffic.late_s:.1f} s late")


def measure(world: World, minutes: float, rows: int, interval: int, backfills: int, asks: int) -> None:
    environment = {**os.environ, "DRIFT_HOME": str(world.settings.home), "DRIFT_MODELS": str(world.settings.models)}
    wall = time.monotonic()
    told = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=True)
    wall = time.monotonic() - wall
    imported, loaded, cpu = map(float, told.stdout.split())
    print(f"{len(world.names)} models, {rows} rows a minute each, {minutes:g} minutes")
    print(
        f"code location alone: {wall:.1f} s ({imported:.1f} imports, {loaded - imported:.1f} models), {cpu:.1f} s CPU",
        flush=True,
    )
    began, traffic = time.monotonic(), Traffic(world, rows)
    with running(world, interval) as at:
        if not at.until(at.loaded, PATIENCE_S):
            raise RuntimeError(f"no code location; read {world.settings.home / 'logs'}")
        print(f"code location in drift up, from its start: {time.monotonic() - began:.1f} s", flush=True)
        with traffic.running():
            first = at.until(lambda: [tick for tick in at.ticks() if good(tick)], PATIENCE_S)
            assert first, "no tick"
            print(f"the first tick: {first[0].end_timestamp - first[0].timestamp:.1f} s", flush=True)
            opened = at.until(lambda: at.oldest() < time.time() - first[0].timestamp, 3 * PATIENCE_S)
            after = f"{time.time() - first[0].timestamp:.0f} s" if opened else "never"
            print(f"each model was looked at once, what came since its adoption counted, after {after}", flush=True)
            quiet = time.time()
            full = quiet + 20 * minutes
            at.until(lambda: time.time() >= full, 60 * minutes)
            tell("the queue is filled")
            filling = Thread(target=at.fill, args=(backfills,))
            filling.start()
            is_full = at.until(lambda: at.queue()[0] >= SLOTS and at.queue()[1] >= SLOTS, PATIENCE_S)
            print(f"the queue is {'full' if is_full else 'NOT full'}: at work, waiting {at.queue()}", flush=True)
            asked = ask_all(at, asks)
            print(f"when all was answered: at work, waiting {at.queue()}", flush=True)
            at.until(lambda: time.time() >= quiet + 60 * minutes, 60 * minutes)
            end = time.time()
            filling.join()
        time.sleep(10)  # capture lands what came last
        show(at, asked, [("quiet", quiet, full), ("full", full, end), ("all", quiet, end)], interval)
        show_runs(at)
    show_rows(world, traffic)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=20.0, help="from the first tick on")
    parser.add_argument("--rows-per-minute", type=int, default=20)
    parser.add_argument("--tick-seconds", type=int, default=30)
    parser.add_argument("--backfills", type=int, default=20, help="models all of whose days are backfilled")
    parser.add_argument("--asks", type=int, default=3, help="rounds of a hotfix and a rollback")
    parser.add_argument("--folder", type=Path, help="a new one that is kept, to look at afterwards")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        world = make_world(folder.absolute(), given.models, given.asks + 1)
        measure(world, given.minutes, given.rows_per_minute, given.tick_seconds, given.backfills, given.asks)


if __name__ == "__main__":
    main()
