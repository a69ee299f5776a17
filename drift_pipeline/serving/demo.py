"""`drift demo --live`: the real processes on a fast clock, a change that is made good, and a canary that is taken back.

The clock runs 120 times as fast, so that an hour is half a minute; what is measured in real time (how long an
answer or a run takes) is not faster by it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drift_pipeline.clock import system_clock
from drift_pipeline.control.store import AuditRecord, ControlStore
from drift_pipeline.errors import DriftError, UnavailableError
from drift_pipeline.evidence.timeline import Story
from drift_pipeline.files import write_whole
from drift_pipeline.serving.up import DRIFT, WORKSPACE, answers, dagster_environment, refuse_taken, services, up
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.synthetic import synthetic_history

MODEL, SPEED = "clicks", 120
DAYS, ROWS_PER_DAY, RATE = 28, 5000, 100  # enough rows that windows of an hour can be judged
CHANGE_S = 40  # of traffic before the world changes
CRON = f"{datetime.now(UTC) + timedelta(days=180):0 3 %-d %-m} *"  # no retrain by the calendar comes in between
SPEC = f"""\
type: drift_pipeline.components.MonitoredModel
attributes:
  name: {MODEL}
  owner: ml-platform@example.com
  task: binary_classification
  columns: {{timestamp: ts, prediction_id: prediction_id, entity: user_id, latency_ms: latency_ms}}
  features:
    session_length_s: numeric
    items_viewed: numeric
    price_eur: numeric
    days_since_visit: numeric
    device: categorical
    country: categorical
  outcome: {{column: clicked, delay: 5m}}
  protected: {{age_band: categorical}}
  kpis: {{latency_p95_ms: {{threshold: 500}}}}  # of a busy machine; the canary of the second act is slower
  retrain: {{min_rows: 3000, trials: 2, cooldown: 2h, cron: "{CRON}", trainer: logistic_regression}}
  rollout: {{shadow: 20m, canary: 20m, deadline: 5d}}
"""
_KEY = "ada.pem"
_LOOK_EVERY_S = 0.5


class LiveDemo:
    """In a home of its own. `say` is told each line; use `run` once, from the main thread."""

    def __init__(self, home: Path, ports: tuple[int, int, int], say: Callable[[str], None], *, stay: bool) -> None:
        """
        Args:
            home: a new or empty folder.
            ports: of the gateway, Dagster and the pages.
            stay: go on after the last act, until Ctrl-C.
        """
        self._home, self._ports, self._say, self._stay = home.absolute(), ports, say, stay
        self._traffic: list[subprocess.Popen[bytes]] = []
        self._ending, self._story, self._told = threading.Event(), Story(), 0
        self._began = 0.0
        self.fault = "it was ended before its last act"

    def run(self) -> int:
        """0 where each act ended as it should, 1 where not, or where a process died.

        Raises:
            InputError: a port is in use, or the home cannot be written.
        """
        refuse_taken("127.0.0.1", *self._ports)
        self._prepare()
        director = threading.Thread(target=self._direct, name="demo", daemon=True)
        gateway, dagster, pages = self._ports
        started = services("127.0.0.1", gateway, dagster, pages, drills=True, log=Settings().log)
        director.start()
        try:
            code = up(Settings(), "127.0.0.1", gateway, dagster, pages, started=started, tell=self._say)
        finally:
            self._ending.set()
            for process in self._traffic:
                process.terminate()
                process.wait()
        director.join()
        return code or int(bool(self.fault))

    def _prepare(self) -> None:
        folder = self._home / "models" / MODEL
        write_whole(folder / "defs.yaml", SPEC)
        began = datetime.now(UTC)
        start = (began - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
        history = self._home / "history.parquet"
        synthetic_history(DAYS, ROWS_PER_DAY, 0, score=False, start=start).write_parquet(history)
        given = {"DRIFT_MODELS": folder.parent, "DRIFT_HOME": self._home, "DRIFT_TICK_SECONDS": 5}
        os.environ.update({name: str(value) for name, value in given.items()})
        os.environ.setdefault("DRIFT_DRILL", f"{SPEED}@{began.isoformat()}")
        self._say(f"a clock that runs {SPEED} times as fast; commands are as a person would type them")
        self._drift("adopt", MODEL, "--data", str(history))
        self._drift("key", str(self._home / _KEY), "--label", "ada")

    def _direct(self) -> None:
        self._began = time.monotonic()
        try:
            with closing(ControlStore(Settings().database_url, system_clock())) as store:
                self._told = max((record.seq for record in store.records()), default=0)
                self._second_act(store, *self._first_act(store))
            self.fault = ""
            self._tell("=> as it should be")
        except (DriftError, OSError, subprocess.SubprocessError) as error:
            if not self._ending.is_set():
                self.fault = str(error)
                self._tell(f"=> NOT as it should be: {self.fault}")
        finally:
            if not self._stay and not self._ending.is_set():
                os.kill(os.getpid(), signal.SIGINT)
        if self._stay and not self._ending.is_set():
            self._tell(f"look around: http://127.0.0.1:{self._ports[2]}/{MODEL}; Ctrl-C ends all")

    def _first_act(self, store: ControlStore) -> tuple[str, str]:
        """The version that was promoted, and its digest."""
        self._until_it_answers()
        self._say(f"\nAct 1. Traffic; after {CHANGE_S} s people click for other reasons, and sessions grow.")
        self._send("--drift", f"concept@{CHANGE_S}s:1.25", "--drift", f"covariate@{CHANGE_S}s:0.6")
        self._await(store, "incident.opened", 420)
        proven = self._await(store, "candidate.proven", 600)
        self._await(store, "rollout.awaiting_approval", 300)
        version = str(proven.details["version"])
        self._approve(version, "its card shows what it gained")
        self._await(store, "rollout.full", 300)
        self._await(store, "reference.frozen", 300)
        return version, proven.digests["bundle"]

    def _second_act(self, store: ControlStore, version: str, digest: str) -> None:
        self._say("\nAct 2. A rehearsal: back to v1, then out with the new version again, on a host that is slow.")
        self._drift("rollback", MODEL, "--reason", "a rehearsal", "--actor", "ada")
        self._await(store, "reference.restored", 300)
        for process in self._traffic:
            process.terminate()
        self._send("--drift", "concept@0s:1.25", "--drift", "canary_latency@0s:2", "--seed", "1")
        self._approve(version, "once more")
        self._submit(version, digest)
        self._await(store, "rollout.canary", 300)
        self._await(store, "rollout.rolled_back", 300)

    def _await(self, store: ControlStore, event: str, seconds: float) -> AuditRecord:
        """The next record of the event; what comes meanwhile is told. Raises UnavailableError where none comes."""
        end = time.monotonic() + seconds
        while not self._ending.wait(_LOOK_EVERY_S):
            for record in store.records(after=self._told):
                self._told = record.seq
                if (line := self._story.tell(record)) is not None:
                    self._tell(line.words)
                if record.event == event:
                    return record
            if time.monotonic() > end:
                raise UnavailableError(f"no {event} within {seconds:.0f} s; see {self._home / 'logs'}")
        raise UnavailableError("ended")

    def _until_it_answers(self) -> None:
        import httpx

        addresses = [
            f"http://127.0.0.1:{self._ports[0]}/v2/health/ready",
            f"http://127.0.0.1:{self._ports[1]}/server_info",
        ]
        with httpx.Client(timeout=5, trust_env=False) as client:
            while not all(answers(client, address) for address in addresses):
                if self._ending.wait(_LOOK_EVERY_S):
                    raise UnavailableError("ended")

    def _send(self, *drifts: str) -> None:
        url = f"http://127.0.0.1:{self._ports[0]}"
        arguments = ("simulate", MODEL, "--url", url, "--rate", str(RATE), "--for", "30m", *drifts)
        self._show(arguments)
        log = (self._home / "logs" / f"simulate-{len(self._traffic)}.log").open("wb")
        with log:
            self._traffic.append(subprocess.Popen([*DRIFT, *arguments], stdout=log, stderr=log))

    def _approve(self, version: str, reason: str) -> None:
        self._drift("approve", MODEL, version, "--key", str(self._home / _KEY), "--reason", reason)

    def _submit(self, version: str, digest: str) -> None:
        """As in Dagster's launchpad."""
        config = json.dumps({"ops": {"begin_rollout": {"config": {"model": MODEL, "digest": digest}}}})
        job = ("-w", str(WORKSPACE), "-j", "submit_rollout", "--config-json", config)
        self._tell(f"in Dagster's launchpad: submit_rollout, {version}")
        _ended_well("dagster job launch", [sys.executable, "-m", "dagster", "job", "launch", *job])

    def _drift(self, *arguments: str) -> None:
        self._show(arguments)
        _ended_well(f"drift {arguments[0]}", [*DRIFT, *arguments])

    def _show(self, arguments: Sequence[str]) -> None:
        shown = [os.path.relpath(part) if part.startswith(str(self._home)) else part for part in arguments]
        self._tell("$ drift " + " ".join(f'"{part}"' if " " in part else part for part in shown))

    def _tell(self, words: str) -> None:
        since = int(time.monotonic() - self._began) if self._began else 0
        self._say(f"  {since // 60}:{since % 60:02d}  {words}")


def _ended_well(name: str, command: Sequence[str]) -> None:
    environment = os.environ | dagster_environment(Settings())
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise UnavailableError(f"{name} ended with {ended.returncode}: {ended.stderr.strip()}")
