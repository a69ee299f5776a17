"""The series of the loop: name, type, labels and meaning of each. Times are seconds since 1970."""

from typing import Literal, NamedTuple

_PARTS = "control_store, channels, specs, model, spool, home"


class Series(NamedTuple):
    """`labels` have few values each: what specs and the code name; never a text that people or producers wrote."""

    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    told: str


def _gauge(labels: str, told: str) -> Series:
    return Series("gauge", tuple(labels.split()), told)


def _counter(labels: str, told: str) -> Series:
    return Series("counter", tuple(labels.split()), told)


SERIES = {
    "drift_up": _gauge("", "1 where the home could be read for this scrape, else 0."),
    "drift_exporter_errors_total": _counter("part", f"Reads that failed since the start, by part: {_PARTS}."),
    "drift_exporter_read_seconds": _gauge("", "What the last read of the home took."),
    "drift_build_info": _gauge("version", "1, of the version that tells this."),
    # a model
    "drift_model_info": _gauge("model version task", "1, of the version that answers."),
    "drift_last_tick_timestamp_seconds": _gauge("model", "When the model's loop last ticked."),
    "drift_ticks_total": _counter("model", "Ticks of the model's loop since its adoption."),
    "drift_model_verdict": _gauge("model", "Verdict of the last tick: 0 OK, 1 WARN, 2 BREACH, -1 INCONCLUSIVE."),
    "drift_kpis_judged": _gauge("model", "KPIs that the verdict is of."),
    "drift_kpis_configured": _gauge("model", "KPIs that it should be of."),
    "drift_kpi_verdict": _gauge("model kpi window", "Verdict of a KPI: 0 OK, 1 WARN, 2 BREACH, -1 INCONCLUSIVE."),
    "drift_kpi_value": _gauge("model kpi window", "Value of a KPI, in its own unit."),
    "drift_kpi_threshold": _gauge("model kpi window", "Threshold of a KPI, in its own unit."),
    "drift_kpi_bound": _gauge("model kpi window", "The bound of the value that decided, in the KPI's own unit."),
    "drift_kpi_rows": _gauge("model kpi window", "Rows or labels that a KPI is of."),
    "drift_labels": _gauge("model state", "Labels since the champion is watched: landed, joined or judged."),
    "drift_drifting_columns": _gauge("model", "Columns that drift."),
    "drift_column_psi": _gauge("model column window", "PSI of the worst columns."),
    "drift_column_distance": _gauge("model column window", "KS D or total variation of the worst columns."),
    "drift_column_drift": _gauge("model column window", "1 where the column is said to drift, of the worst columns."),
    "drift_incident_open": _gauge("model", "1 while an incident is open."),
    "drift_incident_opened_timestamp_seconds": _gauge("model", "When the open incident was opened."),
    "drift_incident_acknowledged": _gauge("model", "1 where somebody acknowledged the open incident."),
    "drift_incident_info": _gauge("model incident", "1, of the open incident: environment/model/key."),
    "drift_incident_told": _gauge("model channel", "1 where the channel was told of the open incident."),
    "drift_decisions_total": _counter("model", "Decisions that the policy made."),
    "drift_last_decision_info": _gauge("model trigger action", "1, of the last decision."),
    "drift_retrains_total": _counter("model", "Trainings that began."),
    "drift_retrains_active": _gauge("model lane status", "Retrains that are wanted or running."),
    "drift_retrains_rejected_in_a_row": _gauge("model", "Candidates that the gates rejected, one after the other."),
    "drift_retrain_budget_used": _gauge("model", "Trainings of the last 30 days."),
    "drift_retrain_budget_limit": _gauge("model", "Trainings that 30 days may have."),
    "drift_gpu_budget_used_seconds": _gauge("model", "Time of GPUs in the trainings of the last 30 days."),
    "drift_gpu_budget_limit_seconds": _gauge("model", "Time of GPUs that 30 days may cost, where the spec says so."),
    "drift_rollout_info": _gauge("model phase candidate", "1, of the phase of the last rollout."),
    "drift_rollout_phase_timestamp_seconds": _gauge("model", "When the last rollout entered its phase."),
    "drift_rollout_weight_ratio": _gauge("model", "Share of the traffic that the candidate is sent."),
    "drift_rollout_waiting": _gauge(
        "model on", "1, of what holds a rollout: evidence, approvals, policy, pause, maintenance."
    ),
    "drift_paused": _gauge("model", "1 while retraining and promotion are paused."),
    "drift_maintenance": _gauge("model", "1 during a maintenance."),
    "drift_concern_active": _gauge("model concern", "1, of what went wrong beside the loop within two hours."),
    "drift_spool_oldest_event_timestamp_seconds": _gauge(
        "model", "When the oldest event was written that waits to land; of no model while it is in a segment."
    ),
    # the home
    "drift_audit_records_total": _counter("", "Records of the audit chain."),
    "drift_checkpoint_timestamp_seconds": _gauge("", "When the last checkpoint was signed."),
    "drift_checkpoint_records": _gauge("", "Records that the last checkpoint covers."),
    "drift_outbox_messages": _gauge("topic", "Messages that were not delivered yet."),
    "drift_outbox_failing_messages": _gauge("topic", "Of those, messages that were tried."),
    "drift_outbox_oldest_timestamp_seconds": _gauge("topic", "When the oldest message was put in that waits."),
    "drift_alerts_due_total": _counter("", "Alerts that were delivered, or should have been: a minute has passed."),
    "drift_alerts_late_total": _counter("", "Of those, alerts that were not delivered within a minute."),
    "drift_channel_sent_total": _counter("channel", "Alerts that a channel took."),
    "drift_channel_failures": _gauge("channel", "Attempts in a row that a channel did not take."),
    "drift_channel_parked_total": _counter("channel", "Alerts that a channel refuses, and that were parked."),
    "drift_capture_last_step_timestamp_seconds": _gauge("", "When capture last looked for events."),
    "drift_capture_events_total": _counter("kind", "What became of the events that capture took."),
    "drift_kafka_lag_messages": _gauge(
        "topic partition", "Messages that are not in the lake yet, of the 100 partitions with the most."
    ),
    "drift_kafka_oldest_message_timestamp_seconds": _gauge(
        "topic partition", "When the oldest of them was sent, where that is known."
    ),
    "drift_home_size_bytes": _gauge("", "Size of the home's files; looked up each five minutes."),
    "drift_home_disk_free_bytes": _gauge("", "Free space of the disk below the home."),
    "drift_control_store_size_bytes": _gauge("", "Size of the control store, where it is a file."),
}
BUCKETS = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)  # seconds
DELIVERY = "drift_alert_delivery_seconds"
DELIVERY_TOLD = "From the record that an alert tells of to its delivery."
