"""Replay: land a history as time passes, serve it with whichever model is champion, and let the loop run.

Nothing looks ahead: rows land when the virtual clock passes them, labels after the spec's delay.
"""

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.alerts.channels.log import LogChannel
from drift_pipeline.clock import DAY, ManualClock, Window, format_duration
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import AuditRecord, ControlStore
from drift_pipeline.detection.counting.windows import floor
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.evidence.verification import keep_policy, verify_home, write_checkpoint
from drift_pipeline.loop import RECORDED, Backends, Loop, Training, Trust, Version
from drift_pipeline.policy.decide import Action, Trigger
from drift_pipeline.policy.engines import read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.replay.summary import Facts, Retrain
from drift_pipeline.rollout.approval import REPLAY, REPLAY_ONLY, sign_approval, write_approval
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.rollout.route import split
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import History
from drift_pipeline.telemetry.lake import Lake

Triggers = Literal["drift", "schedule", "both"]
FLUSH_ROWS = 4000
TICKS = "kpis.parquet"


@dataclass(frozen=True)
class Options:
    """How to replay: the training span at the start, the time between ticks, and which triggers may retrain.

    `policy` is a folder of Rego rules; None = the packaged ones.
    """

    reference: timedelta = 90 * DAY
    step: timedelta = DAY
    triggers: Triggers = "both"
    seed: int = 0
    policy: Path | None = None

    def to_json(self) -> dict[str, Any]:
        spans = {"reference": format_duration(self.reference), "step": format_duration(self.step)}
        return {**spans, "triggers": self.triggers, "seed": self.seed}


@dataclass
class _Ran:
    """What the replay has seen so far, from which its summary is made."""

    evaluations: int = 0
    conclusive: int = 0
    decisions: dict[str, int] = field(default_factory=dict)
    retrains: list[Retrain] = field(default_factory=list)
    promotions: int = 0
    rollbacks: int = 0
    incidents: set[str] = field(default_factory=set)
    served: list[tuple[str, datetime]] = field(default_factory=list)
    ticks: list[dict[str, Any]] = field(default_factory=list)
    alerts: int = 0
    partial: bool = False


class Replay:
    """One replay below `settings.home`, which must exist and be empty. Use as a context manager."""

    def __init__(
        self,
        history: History,
        spec: ModelSpec,
        settings: Settings,
        options: Options,
        progress: Callable[[int, int, str], None] = lambda *_: None,
        tell: Callable[[AuditRecord], None] | None = None,
    ) -> None:
        """
        Args:
            progress: is called with (ticks done, ticks in all, what is being done).
            tell: is called with each audit record, soon after it was written.

        Raises:
            InputError: the history ends before the reference span does, or a step is not above 0.
        """
        self._spec, self._settings, self._options = spec, settings, options
        self._recorded = spec.prediction.column is not None
        self._frame = history.frame.rename({"_score": "_recorded"}, strict=False)
        self._notes = history.notes
        self._span = _reference_span(self._frame, spec, options)
        self._ticks = _ticks(self._span.end, self._frame["_time"][-1], options.step)
        self._clock = ManualClock(self._span.end)
        self._progress_to, self._words = progress, ""
        self._tell_record, self._told = tell, 0
        self._on_interrupt: Any = None
        self._ran = _Ran()
        self._started = time.monotonic()
        self._first: Version | None = None
        self._served = np.full(self._frame.height, np.nan)
        self._outcomes = _outcomes(self._frame, spec)
        self._landed = self._labelled = self._batch = 0
        for folder in (settings.keys, settings.gitops):
            folder.mkdir(parents=True, exist_ok=True)
        self._trainer = Signer.generate(REPLAY_ONLY)
        self._approvers = [Signer.generate(REPLAY_ONLY) for _ in range(spec.rollout.approvals)]
        for signer in (self._trainer, *self._approvers):
            signer.public.save(settings.keys / f"{REPLAY_ONLY}-{signer.key_id[-12:]}.pub.json")
        keep_policy(settings, read_bundle(options.policy) if options.policy else read_bundle())
        self._lake = Lake(settings.lake / spec.name, source="replay", flush_rows=FLUSH_ROWS)
        self._store = ControlStore(settings.database_url, self._clock)
        self._registry = LocalRegistry(settings.registry)
        self._engine = EmbeddedEngine(options.policy)  # last: nobody would end it where something after it fails
        at = Backends(
            self._lake,
            self._store,
            self._registry,
            self._engine,
            LogChannel(settings.alerts),
        )
        keys = {signer.key_id: signer.public for signer in self._approvers}
        trust = Trust(settings.gitops, REPLAY, keys, self._trainer.key_id)
        self._loop = Loop(spec, at, trust, self._clock, step=options.step, seed=options.seed, progress=self._tell)

    def __enter__(self) -> "Replay":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
        self._store.close()
        if self._on_interrupt is not None:
            signal.signal(signal.SIGINT, self._on_interrupt)

    def _hear_no_more_interrupts(self) -> None:
        """A second interrupt would end what writes the summary of as much as was played."""
        self._ran.partial = True
        while self._on_interrupt is None and threading.current_thread() is threading.main_thread():
            with suppress(KeyboardInterrupt):
                self._on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> Facts:
        """The whole history, or as much of it as came before an interrupt; then the facts of the summary.

        Raises:
            InputError: the reference span cannot make a first model.
        """
        try:
            try:
                self._play()
            except KeyboardInterrupt:
                self._hear_no_more_interrupts()
        except KeyboardInterrupt:  # the same Ctrl-C once more: in a call of Polars it is raised by it and by Python
            self._hear_no_more_interrupts()
        self._lake.close()
        return self._facts()

    def _play(self) -> None:
        self._land(self._span.end)
        self._loop.adopt(self._span, self._recorded)
        self._first = self._loop.champion
        if self._first is not None:
            self._ran.served.append((self._first.name, self._span.end))
            self._document(self._first.digest)
        for number, now in enumerate(self._ticks, start=1):
            self._tick(now)
            self._progress_to(number, len(self._ticks), self._words)
            self._words = ""

    def _tell(self, words: str) -> None:
        self._words = words
        self._progress_to(self._ran.evaluations, len(self._ticks), words)

    def _tick(self, now: datetime) -> None:
        before = self._clock.now()
        self._land(now)
        self._clock.advance_to(now)
        report = self._loop.observe()
        self._ran.evaluations += 1
        self._ran.conclusive += report.verdict not in (Verdict.INCONCLUSIVE, Verdict.NOT_CONFIGURED)
        self._ran.ticks += [{"at": now, **kpi.to_json()} for kpi in report.kpis.values()]
        if self._loop.incident.open:
            self._ran.incidents.add(self._loop.incident.key)
        if self._options.triggers != "schedule":
            self._act(Trigger.DRIFT, report)
        if self._options.triggers != "drift" and self._spec.zone.last_due(self._spec.retrain.cron, now) > before:
            self._act(Trigger.SCHEDULE, report)
        self._roll(self._loop.advance())
        self._ran.alerts += self._loop.deliver()
        self._tell_records()

    def _tell_records(self) -> None:
        if self._tell_record is None:
            return
        for record in self._store.records(after=self._told):
            self._tell_record(record)
            self._told = record.seq

    def _act(self, trigger: Trigger, report: Report) -> None:
        decided = self._loop.decide(trigger, report)
        if decided is None:
            return
        decision_id, decision = decided
        self._ran.decisions[str(decision.action)] = self._ran.decisions.get(str(decision.action), 0) + 1
        if decision.action not in (Action.RETRAIN, Action.HOTFIX_RETRAIN):
            return
        training = self._loop.retrain(decision_id, report)
        if training is None:
            return
        cause = "hotfix" if decision.action is Action.HOTFIX_RETRAIN else str(trigger)
        record = self._store.get("candidate", f"{self._spec.name}/{training.digest}")
        cost = record.body["cost"] if record else {}
        self._document(training.digest)
        self._ran.retrains.append(_retrain(self._clock.now(), cause, decision_id, training, cost))
        if training.accepted:
            self._loop.release(training.digest)

    def _document(self, digest: str) -> None:
        """The version's card as things stand: when it was proven or refused, and again when it became champion."""
        if digest != RECORDED:
            now = self._clock.now()
            write_documents(self._settings, self._store, self._registry, self._spec, digest, now, REPLAY)

    def _roll(self, status: Status | None) -> None:
        if status is None:
            return
        if status.phase is Phase.FULL and self._loop.champion is not None:
            self._ran.promotions += 1
            self._ran.served.append((self._loop.champion.name, self._clock.now()))
            self._document(status.candidate)
        self._ran.rollbacks += status.phase is Phase.ROLLED_BACK
        if status.phase is Phase.AWAITING_APPROVAL:
            for signer in self._approvers:
                self._approve(signer, status)

    def _approve(self, signer: Signer, status: Status) -> None:
        """What a person does in production, here by a key that says of itself that it is the replay's own."""
        now = self._clock.now()
        envelope = sign_approval(
            signer,
            model=self._spec.name,
            digest=status.candidate,
            environment=REPLAY,
            trainer=self._trainer.key_id,
            reason="approved by the replay itself: every candidate that passed its gates and its shadow",
            at=now,
            expires=now + 3 * self._spec.rollout.deadline + self._options.step,
        )
        write_approval(self._settings.gitops, envelope)

    def _land(self, until: datetime) -> None:
        """Serve and land the rows before `until`, and the outcomes that are known before it."""
        end = int(self._frame["_time"].search_sorted(until, side="left"))
        rows, start = self._frame[self._landed : end], self._landed
        if rows.height:
            served, mirrored = self._serve(rows)
            self._served[start:end] = served["_score"].fill_null(np.nan).to_numpy()
            self._lake.append("predictions", served, self._batch)
            if mirrored is not None:
                self._lake.append("shadow", mirrored, self._batch)
        self._landed = end
        known = int(self._outcomes["_observed_at"].search_sorted(until, side="left"))
        outcomes, self._labelled = self._outcomes[self._labelled : known], known
        if outcomes.height:
            self._lake.append("outcomes", outcomes, self._batch)
        self._batch += 1

    def _serve(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """What was answered, and what the other model would have said where a rollout mirrors traffic."""
        rows = rows.drop("_label")
        champion, candidate, rollout = self._loop.champion, self._loop.candidate, self._loop.rollout
        if champion is None:
            score = rows["_recorded"] if self._recorded else pl.Series([None] * rows.height, dtype=pl.Float64)
            return _answered(rows, score, RECORDED, "history"), None
        stable = champion.scores(rows, self._spec)
        if candidate is None or rollout is None:
            return _answered(rows, stable, champion.name, "stable"), None
        canary = candidate.scores(rows, self._spec)
        chosen = np.zeros(rows.height, np.bool_)
        if rollout.phase is Phase.CANARY:
            keys = rows["_entity"].fill_null(rows["_id"]) if "_entity" in rows.columns else rows["_id"]
            chosen = split(keys, rollout.rollout_id, self._spec.rollout.canary_weight)
        answer = pl.lit(pl.Series(chosen))
        names = pl.lit(candidate.name), pl.lit(champion.name)
        served = rows.with_columns(
            pl.when(answer).then(canary).otherwise(stable).alias("_score"),
            pl.when(answer).then(names[0]).otherwise(names[1]).alias("_version"),
            pl.when(answer).then(pl.lit("canary")).otherwise(pl.lit("stable")).alias("_route"),
        )
        mirrored = rows.select(
            "_id",
            "_time",
            pl.when(answer).then(stable).otherwise(canary).alias("_score"),
            pl.when(answer).then(names[1]).otherwise(names[0]).alias("_version"),
        )
        return served, mirrored

    def _facts(self) -> Facts:
        ran, evaluated = self._ran, slice(self._first_row(), self._landed)
        rows = self._frame[evaluated]
        frozen: npt.NDArray[np.float64] = np.full(rows.height, np.nan)
        if self._first is not None and rows.height:
            frozen = self._first.scores(rows, self._spec).fill_null(np.nan).to_numpy()
        if ran.evaluations:
            write_checkpoint(self._settings, self._store, self._trainer, self._spec.name, self._clock)
        _ticks_frame(ran.ticks).write_parquet(self._settings.home / TICKS)
        head = self._store.head()
        verified = verify_home(self._settings, self._clock)
        return Facts(
            spec=self._spec,
            span=Window(self._frame["_time"][0], self._clock.now()),
            rows=self._frame.height,
            history=_digest(self._frame),
            options={**self._options.to_json(), "policy": self._engine.digest},
            served=tuple(ran.served),
            notes=self._notes,
            evaluations=ran.evaluations,
            conclusive=ran.conclusive,
            times=rows["_time"],
            labels=rows["_label"],
            frozen=frozen,
            loop=self._served[evaluated],
            incidents=len(ran.incidents),
            decisions=dict(sorted(ran.decisions.items())),
            retrains=tuple(ran.retrains),
            promotions=ran.promotions,
            rollbacks=ran.rollbacks,
            alerts=ran.alerts,
            audit_head=head.hash if head else None,
            verification=verified,
            wall_seconds=time.monotonic() - self._started,
            partial=ran.partial,
        )

    def _first_row(self) -> int:
        return int(self._frame["_time"].search_sorted(self._span.end, side="left"))


def _answered(rows: pl.DataFrame, score: pl.Series, version: str, route: str) -> pl.DataFrame:
    return rows.with_columns(score.alias("_score"), _version=pl.lit(version), _route=pl.lit(route))


def _retrain(at: datetime, cause: str, decision_id: str, training: Training, cost: Mapping[str, float]) -> Retrain:
    said = (training.version, training.accepted, training.before, training.after)
    return Retrain(at, cause, decision_id, *said, dict(cost))


def _ticks_frame(ticks: list[dict[str, Any]]) -> pl.DataFrame:
    """One row a tick and KPI: `at`, and what `KpiResult.to_json` says."""
    numbers = dict.fromkeys(("value", "threshold", "bound"), pl.Float64)
    texts = dict.fromkeys(("name", "verdict", "window", "reason"), pl.String)
    return pl.DataFrame(ticks, schema={"at": pl.Datetime("us", "UTC"), **texts, **numbers, "n": pl.Int64})


def _digest(frame: pl.DataFrame) -> str:
    """Names a history by its rows' ids, times and labels: two replays of one history can be compared."""
    sha = hashlib.sha256()
    for column in (frame["_time"].to_physical(), frame["_label"].fill_null(-1)):
        sha.update(column.to_numpy().tobytes())
    sha.update("\0".join(frame["_id"]).encode())
    return f"sha256:{sha.hexdigest()}"


def _reference_span(frame: pl.DataFrame, spec: ModelSpec, options: Options) -> Window:
    if options.step <= timedelta() or options.reference <= timedelta():
        raise InputError("--step and --reference are longer than nothing: such as 1d and 90d")
    start = floor(frame["_time"][0], min(options.step, DAY))
    span = Window(start, start + options.reference)
    if frame["_time"][-1] < span.end:
        raise InputError(
            f"{spec.name}: the history ends at {frame['_time'][-1]:%Y-%m-%d %H:%M}, before the reference span does "
            f"({span.end:%Y-%m-%d %H:%M}): give a shorter --reference or a longer history"
        )
    _require_labels(frame, spec, span)
    return span


def _require_labels(frame: pl.DataFrame, spec: ModelSpec, span: Window) -> None:
    """Enough labels are known by the end of the reference span, else how long it has to be."""
    known, least = _outcomes(frame, spec)["_observed_at"], spec.retrain.min_rows
    enough = known.sort()
    inside = int((enough <= span.end).sum())
    if inside >= least:
        return
    lack = f"{spec.name}: {inside:,} labels are known by {span.end:%Y-%m-%d}, where retrain.min_rows is {least:,}"
    if len(enough) < least:
        raise InputError(f"{lack}, and the whole history has {len(enough):,}: set a smaller retrain.min_rows")
    days = (enough[least - 1] - span.start) // DAY + 1
    raise InputError(f"{lack}: give --reference {days}d, in which as many are, or set a smaller retrain.min_rows")


def _ticks(start: datetime, last: datetime, step: timedelta) -> list[datetime]:
    return [start + step * number for number in range(1, (last - start) // step + 2)]


def _outcomes(frame: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    known = frame.filter(pl.col("_label").is_not_null())
    return known.select("_id", (pl.col("_time") + spec.outcome.delay).alias("_observed_at"), "_label")


def between(history: History, start: datetime | None, end: datetime | None) -> History:
    """The history's rows in [start, end). Raises InputError when none is left."""
    frame = history.frame
    if start is not None:
        frame = frame.filter(pl.col("_time") >= start)
    if end is not None:
        frame = frame.filter(pl.col("_time") < end)
    if frame.is_empty():
        raise InputError(f"no row is left between --from {start} and --to {end}")
    return History(frame, history.notes)
