"""From what a control store holds to samples of `series`: pure, a model at a time."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from drift_pipeline.alerts.alert import name_of
from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.control.figures import Asked, Figures
from drift_pipeline.observability import lag
from drift_pipeline.rollout.plan import Phase, version_of
from drift_pipeline.spec import ModelSpec

CODES = {"OK": 0, "WARN": 1, "BREACH": 2, "INCONCLUSIVE": -1}  # what is NOT_CONFIGURED has no sample
ALERTS, CHECKPOINT, CAPTURE = "alerts", "_checkpoint", "_capture"
CHANNEL = "_alerts/"  # in memory: how far each channel of alerts was told, and what of each incident
_KINDS = ("model", "rollout", "held", "pause", "maintenance", "retrains", "decisions", "acknowledged", "concern")
_ACTIVE = ('"status":"wanted"', '"status":"running"')
TICK_FAILED = "tick.failed"  # an alert that is told each hour while it lasts
_MONTH, _LASTS = 30 * DAY, 2 * HOUR
_ORDER = tuple(Phase)


class Sample(NamedTuple):
    name: str
    value: float
    labels: tuple[str, ...] = ()


def asked(position: int) -> Asked:
    """What the samples are made of; alerts from that position of the outbox on."""
    return Asked(_KINDS, {"retrain": _ACTIVE}, "model", (CHECKPOINT, CAPTURE), CHANNEL, ALERTS, position)


def of_home(figures: Figures, now: datetime) -> Iterator[Sample]:
    """Of all models together."""
    yield Sample("drift_audit_records_total", figures.records)
    if (found := figures.memory.get(CHECKPOINT)) is not None:
        yield Sample("drift_checkpoint_timestamp_seconds", _seconds(found.body["at"]))
        yield Sample("drift_checkpoint_records", found.body["size"])
    for topic, pending in figures.pending.items():
        yield Sample("drift_outbox_messages", pending.messages, (topic,))
        yield Sample("drift_outbox_failing_messages", pending.tried, (topic,))
        yield Sample("drift_outbox_oldest_timestamp_seconds", pending.oldest_at.timestamp(), (topic,))
    if (found := figures.memory.get(CAPTURE)) is not None:
        yield Sample("drift_capture_last_step_timestamp_seconds", _seconds(found.body["at"]))
        for kind, count in found.body["events"].items():
            yield Sample("drift_capture_events_total", count, (kind,))
        for (topic, partition), (messages, oldest_at) in lag.known(found.body, now)[: lag.MOST]:
            yield Sample("drift_kafka_lag_messages", messages, (topic, partition))
            if oldest_at is not None:
                yield Sample("drift_kafka_oldest_message_timestamp_seconds", oldest_at.timestamp(), (topic, partition))
    for key, record in figures.state["concern"].items():
        if "over" not in record.body and now - datetime.fromisoformat(record.body["at"]) < _LASTS:
            yield Sample("drift_concern_active", 1, (key.partition("/")[0], record.body["event"]))


def channels(figures: Figures) -> dict[str, Mapping[str, Any]]:
    """What is remembered of each channel of alerts."""
    return {key.removeprefix(CHANNEL): record.body for key, record in figures.memory.items() if key.startswith(CHANNEL)}


def told_until(figures: Figures) -> int | None:
    """The record up to which all channels were told that fail now; None where none fails."""
    return min((body["seq"] for body in channels(figures).values() if body["failures"]), default=None)


def of_channels(figures: Figures) -> Iterator[Sample]:
    """Of the channels of alerts."""
    for channel, body in channels(figures).items():
        yield Sample("drift_channel_sent_total", body["sent"], (channel,))
        yield Sample("drift_channel_failures", body["failures"], (channel,))
        yield Sample("drift_channel_parked_total", body["lost"], (channel,))


def of_model(
    model: str, spec: ModelSpec | None, figures: Figures, now: datetime, environment: str, columns: int
) -> Iterator[Sample]:
    """Of an adopted model.

    Args:
        spec: None where it is declared elsewhere; then what it says has no samples.
        columns: so many of the worst ones.
    """
    version = figures.state["model"][model].body["version"]
    yield Sample("drift_model_info", 1, (model, version, str(spec.task) if spec else ""))
    yield from _ticked(model, figures, environment, columns)
    yield from _retrained(model, spec, figures, now)
    yield from _rolled_out(model, spec, figures, now)


def _ticked(model: str, figures: Figures, environment: str, columns: int) -> Iterator[Sample]:
    memory = figures.memory.get(model)
    if memory is None:
        return
    yield Sample("drift_last_tick_timestamp_seconds", _seconds(memory.body["at"]), (model,))
    yield Sample("drift_ticks_total", memory.generation, (model,))
    for channel, body in channels(figures).items():
        if (told := body["told"].get(name_of(environment, model, TICK_FAILED))) is not None:
            since = _seconds(told[1]) > _seconds(memory.body["at"])
            yield Sample("drift_tick_failed_told", since, (model, channel))
    seen: Mapping[str, Any] = memory.body["seen"]
    if seen:
        yield from _seen(model, seen, columns)
    if memory.body["decided"]:
        trigger, _, action = memory.body["decided"]
        yield Sample("drift_last_decision_info", 1, (model, trigger, action))
    incident = memory.body["incident"]
    yield Sample("drift_incident_open", bool(incident["open"]), (model,))
    if incident["open"]:
        known, name = f"{model}/{incident['key']}", name_of(environment, model, incident["key"])
        yield Sample("drift_incident_info", 1, (model, name))
        yield Sample("drift_incident_opened_timestamp_seconds", _seconds(incident["opened_at"]), (model,))
        yield Sample("drift_incident_acknowledged", known in figures.state["acknowledged"], (model,))
        for channel, body in channels(figures).items():
            yield Sample("drift_incident_told", name in body["told"], (model, channel))


def _seen(model: str, seen: Mapping[str, Any], columns: int) -> Iterator[Sample]:
    if (code := CODES.get(seen["verdict"])) is not None:
        yield Sample("drift_model_verdict", code, (model,))
    for name in ("judged", "configured"):
        yield Sample(f"drift_kpis_{name}", seen[name], (model,))
    for name, kpi in seen["kpis"].items():
        if (code := CODES.get(kpi["verdict"])) is not None:
            labels = (model, name, kpi.get("window") or "")
            yield Sample("drift_kpi_verdict", code, labels)
            yield Sample("drift_kpi_rows", kpi["n"], labels)
            for key in ("value", "threshold", "bound"):
                if kpi[key] is not None:
                    yield Sample(f"drift_kpi_{key}", kpi[key], labels)
    for state, count in seen["labels"].items():
        yield Sample("drift_labels", count, (model, state))
    yield Sample("drift_drifting_columns", seen["drifting_columns"], (model,))
    for column in seen.get("worst", ())[:columns]:
        labels = (model, column["name"], column["window"])
        yield Sample("drift_column_psi", column["psi"], labels)
        yield Sample("drift_column_distance", column["distance"], labels)
        yield Sample("drift_column_drift", bool(column["drift"]), labels)


def _retrained(model: str, spec: ModelSpec | None, figures: Figures, now: datetime) -> Iterator[Sample]:
    decisions, done = figures.state["decisions"].get(model), figures.state["retrains"].get(model)
    yield Sample("drift_decisions_total", decisions.body["count"] if decisions else 0, (model,))
    if done is not None:
        since, gpus = now - _MONTH, done.body.get("gpu_hours", ())
        used = sum(datetime.fromisoformat(at) > since for at in done.body["at"])
        hours = sum(hours for at, hours in gpus if datetime.fromisoformat(at) > since)
        yield Sample("drift_retrains_total", len(done.body["at"]), (model,))
        yield Sample("drift_retrains_rejected_in_a_row", done.body["rejected_in_a_row"], (model,))
        yield Sample("drift_retrain_budget_used", used, (model,))
        yield Sample("drift_gpu_budget_used_seconds", hours * 3600, (model,))
    if spec is not None:
        yield Sample("drift_retrain_budget_limit", spec.retrain.max_per_month, (model,))
        if spec.retrain.max_gpu_hours is not None:
            yield Sample("drift_gpu_budget_limit_seconds", spec.retrain.max_gpu_hours * 3600, (model,))
    active: dict[tuple[str, ...], int] = {}
    for key, record in figures.state["retrain"].items():
        if key.startswith(f"{model}/"):
            labels = (model, record.body["lane"], record.body["status"])
            active[labels] = active.get(labels, 0) + 1
    for of, count in active.items():
        yield Sample("drift_retrains_active", count, of)


def _rolled_out(model: str, spec: ModelSpec | None, figures: Figures, now: datetime) -> Iterator[Sample]:
    def body(kind: str) -> Mapping[str, Any]:
        record = figures.state[kind].get(model)
        return record.body if record else {}

    paused, span = bool(body("pause").get("on")), body("maintenance")
    maintained = bool(span) and datetime.fromisoformat(span["from"]) <= now < datetime.fromisoformat(span["to"])
    yield Sample("drift_paused", paused, (model,))
    yield Sample("drift_maintenance", maintained, (model,))
    rollout = body("rollout")
    phase = Phase(rollout["phase"]) if rollout else None
    if spec is not None:
        weight = spec.rollout.canary_weight / 100 if phase is Phase.CANARY else 0
        yield Sample("drift_rollout_weight_ratio", weight, (model,))
    if phase is None:
        return
    yield Sample("drift_rollout_info", 1, (model, phase, version_of(model, rollout["rollout_id"])))
    yield Sample("drift_rollout_phase_timestamp_seconds", _seconds(rollout["since"]), (model,))
    if phase in (Phase.FULL, Phase.ROLLED_BACK):
        return
    held, following = body("held"), _ORDER[_ORDER.index(phase) + 1]
    by_policy = held.get("rollout") == rollout["rollout_id"] and held["step"] == following
    people = "approvals" if phase is Phase.AWAITING_APPROVAL else "evidence"
    on = "pause" if paused else "maintenance" if maintained else "policy" if by_policy else people
    yield Sample("drift_rollout_waiting", 1, (model, on))


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
