"""The loop's metrics: what the control store holds is what is told."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest

from drift_pipeline.alerts.delivery import Progress
from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.control.figures import Delivery
from drift_pipeline.control.store import Entry, Message, Put
from drift_pipeline.loop.fleet import FAILED
from drift_pipeline.observability.metrics import Deliveries, LoopMetrics
from drift_pipeline.observability.series import DELIVERY
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.observability.worlds import AT, SPEC, World, read


def test_a_tick_is_told_by_kpi_window_and_worst_column(world: World) -> None:
    world.ticked()
    world.ticked(open=True, key="k1", opened_at=AT.isoformat())
    told = world.told()
    assert told["drift_up"] == {(): 1}
    assert told["drift_model_info"] == {("fraud", "v1", "binary_classification"): 1}
    assert told["drift_last_tick_timestamp_seconds"] == {("fraud",): AT.timestamp()}
    assert told["drift_ticks_total"] == {("fraud",): 2}
    assert told["drift_kpi_verdict"] == {("fraud", "psi", "30d"): 2, ("fraud", "auroc", ""): -1}
    assert told["drift_kpi_value"] == {("fraud", "psi", "30d"): 0.5}
    assert told["drift_kpi_threshold"] == {("fraud", "psi", "30d"): 0.2, ("fraud", "auroc", ""): -0.05}
    assert told["drift_model_verdict"] == {("fraud",): 2}
    assert told["drift_labels"] == {("fraud", "landed"): 10, ("fraud", "joined"): 9, ("fraud", "judged"): 0}
    assert list(told["drift_column_psi"]) == [("fraud", f"c{number}", "30d") for number in range(5)]
    assert told["drift_incident_info"] == {("fraud", "production/fraud/k1"): 1}
    assert told["drift_incident_opened_timestamp_seconds"] == {("fraud",): AT.timestamp()}
    assert told["drift_incident_acknowledged"] == {("fraud",): 0}
    assert told["drift_last_decision_info"] == {("fraud", "drift", "retrain"): 1}
    world.put("acknowledged", "fraud/k1", {"actor": "ann@example.com"})
    assert world.told()["drift_incident_acknowledged"] == {("fraud",): 1}
    assert "ann@example.com" not in world.text()


def test_who_was_told_that_a_tick_fails_is_told_until_it_ticks_again(world: World) -> None:
    world.ticked()
    assert "drift_tick_failed_told" not in world.told()
    name = f"production/fraud/{FAILED}"
    for channel, minutes in (("pager", 1), ("bus", -1)):
        at = (AT + minutes * MINUTE).isoformat()
        body = {"told": {name: ["trigger", at]}, "sent": 1, "failures": 0, "lost": 0, "seq": 9}
        world.store.remember(Put("", f"_alerts/{channel}", body))
    assert world.told()["drift_tick_failed_told"] == {("fraud", "pager"): 1, ("fraud", "bus"): 0}


def test_columns_are_as_few_as_the_setting_says(world: World) -> None:
    world.ticked()
    settings = Settings(home=world.settings.home, database="", metrics_columns=2)
    metrics = LoopMetrics(settings, {}, world.clock, world.opened)
    assert len(read(metrics.text(0).decode())["drift_column_psi"]) == 2


def test_budgets_decisions_and_retrains_are_counted(world: World) -> None:
    month_ago, lately = (AT - timedelta(days=31)).isoformat(), (AT - HOUR).isoformat()
    done = {"at": [month_ago, lately], "gpu_hours": [[month_ago, 9.0], [lately, 0.5]], "rejected_in_a_row": 1}
    world.put("retrains", "fraud", done)
    world.put("decisions", "fraud", {"count": 3})
    for number, status in enumerate(("wanted", "running", "running", "proven")):
        world.put("retrain", f"fraud/{number}", {"lane": "normal", "status": status})
    told = world.told()
    assert told["drift_decisions_total"] == {("fraud",): 3}
    assert told["drift_retrains_total"] == {("fraud",): 2}
    assert told["drift_retrain_budget_used"] == {("fraud",): 1}
    assert told["drift_retrain_budget_limit"] == {("fraud",): SPEC.retrain.max_per_month}
    assert told["drift_gpu_budget_used_seconds"] == {("fraud",): 1800}
    assert told["drift_retrains_active"] == {("fraud", "normal", "wanted"): 1, ("fraud", "normal", "running"): 2}


@pytest.mark.parametrize(
    ("phase", "beside", "on"),
    [
        (Phase.SHADOW, {}, "evidence"),
        (Phase.AWAITING_APPROVAL, {}, "approvals"),
        (Phase.CANARY, {"held": {"rollout": "fraud-v2", "step": "full"}}, "policy"),
        (Phase.CANARY, {"held": {"rollout": "fraud-v2", "step": "canary"}}, "evidence"),
        (Phase.CANARY, {"pause": {"on": True, "actor": "ann"}}, "pause"),
        (Phase.SHADOW, {"maintenance": {"from": AT.isoformat(), "to": (AT + HOUR).isoformat()}}, "maintenance"),
    ],
)
def test_a_rollout_tells_what_holds_it(world: World, phase: Phase, beside: dict[str, Any], on: str) -> None:
    world.put("rollout", "fraud", {"rollout_id": "fraud-v2", "phase": str(phase), "since": AT.isoformat()})
    for kind, body in beside.items():
        world.put(kind, "fraud", body)
    told = world.told()
    assert told["drift_rollout_info"] == {("fraud", str(phase), "v2"): 1}
    assert told["drift_rollout_waiting"] == {("fraud", on): 1}
    weight = SPEC.rollout.canary_weight / 100 if phase is Phase.CANARY else 0
    assert told["drift_rollout_weight_ratio"] == {("fraud",): weight}


def test_a_rollout_that_is_over_waits_for_nothing(world: World) -> None:
    world.put("rollout", "fraud", {"rollout_id": "fraud-v2.2", "phase": "rolled_back", "since": AT.isoformat()})
    told = world.told()
    assert told["drift_rollout_info"] == {("fraud", "rolled_back", "v2"): 1}
    assert "drift_rollout_waiting" not in told


def test_concerns_are_told_for_as_long_as_they_last(world: World) -> None:
    world.put("concern", "fraud/events.late", {"at": AT.isoformat(), "event": "events.late", "why": "2 of 3"})
    assert world.told()["drift_concern_active"] == {("fraud", "events.late"): 1}
    world.clock.advance_to(AT + 2 * HOUR)
    assert "drift_concern_active" not in world.told()


def test_the_outbox_tells_what_waits_since_when_and_what_was_late(world: World) -> None:
    for number in (1, 2):
        alert = Message(f"fraud:{number}", ALERTS, {"model": "fraud", "owner": "ann@example.com"})
        world.store.commit(Entry("loop", "incident.opened", "fraud"), messages=[alert])
        world.clock.advance_to(world.clock.now() + 3 * MINUTE)
    world.store.failed("fraud:1", "the channel is down")
    told = world.told()
    assert told["drift_outbox_messages"][(ALERTS,)] == 2
    assert told["drift_outbox_failing_messages"][(ALERTS,)] == 1
    assert told["drift_outbox_oldest_timestamp_seconds"][(ALERTS,)] == AT.timestamp()
    assert (told["drift_alerts_due_total"], told["drift_alerts_late_total"]) == ({(): 2}, {(): 2})
    assert told[f"{DELIVERY}_count"] == {(): 0}
    world.store.delivered("fraud:1", "fraud:2")
    told = world.told()
    assert (ALERTS,) not in told["drift_outbox_messages"]
    assert (told["drift_alerts_due_total"], told["drift_alerts_late_total"]) == ({(): 2}, {(): 2})
    assert told[f"{DELIVERY}_count"] == {(): 2}
    assert told[f"{DELIVERY}_sum"] == {(): 9 * 60}
    assert told[f"{DELIVERY}_bucket"][("300.0",)] == 1
    assert "ann@example.com" not in world.text()


def test_a_delivery_counts_once_however_often_it_is_looked_at() -> None:
    found, at = Deliveries(), [AT + number * MINUTE for number in range(4)]
    waiting = Delivery(5, 3, at[0], None)
    found.add([waiting, Delivery(7, 4, at[0], at[0] + timedelta(seconds=5))], at[0] + timedelta(seconds=30))
    assert (found.position, found.due, found.late) == (5, 1, 0)
    for _ in range(2):
        found.add([waiting, Delivery(7, 4, at[0], at[0] + timedelta(seconds=5))], at[3])
        assert (found.position, found.due, found.late) == (5, 2, 1)
    found.add([Delivery(5, 3, at[0], at[3]), Delivery(7, 4, at[0], at[0] + timedelta(seconds=5))], at[3])
    assert (found.position, found.due, found.late, sum(found.buckets)) == (8, 2, 1, 2)


def test_an_alert_that_a_channel_does_not_take_is_late_until_it_does() -> None:
    found, at = Deliveries(), AT + timedelta(seconds=5)
    filed = [Delivery(1, 8, AT, at), Delivery(2, 9, AT, at)]
    found.add(filed, at, told_until=8)
    assert (found.position, found.due, found.late) == (2, 1, 0)
    found.add(filed[1:], AT + 2 * MINUTE, told_until=8)
    assert (found.position, found.due, found.late) == (2, 2, 1)
    found.add(filed[1:], AT + 3 * MINUTE)
    assert (found.position, found.due, found.late, found.seconds) == (3, 2, 1, 185)


def test_channels_tell_which_open_incidents_they_were_told_of(world: World) -> None:
    world.ticked(open=True, key="k1", opened_at=AT.isoformat())
    body = asdict(Progress(seq=1, sent=4, lost=1, told={"production/fraud/k1": ["trigger", AT.isoformat()]}))
    world.store.remember(Put("", "_alerts/pagerduty", body))
    world.store.remember(Put("", "_alerts/slack", {**body, "told": {"production/fraud/k0": ["resolve", ""]}}))
    told = world.told()
    assert told["drift_incident_told"] == {("fraud", "pagerduty"): 1, ("fraud", "slack"): 0}
    assert told["drift_channel_sent_total"] == {("pagerduty",): 4, ("slack",): 4}
    assert told["drift_channel_parked_total"][("slack",)] == 1


def test_checkpoint_capture_and_sizes_are_told(world: World) -> None:
    world.store.checkpoint()
    events = {"predictions": 7, "late": 2}
    world.store.remember(Put("", "_capture", {"at": AT.isoformat(), "events": events}))
    told = world.told()
    assert told["drift_checkpoint_timestamp_seconds"] == {(): AT.timestamp()}
    assert told["drift_checkpoint_records"] == told["drift_audit_records_total"]
    assert told["drift_capture_events_total"] == {("predictions",): 7, ("late",): 2}
    assert told["drift_home_size_bytes"][()] > told["drift_control_store_size_bytes"][()] > 0


def test_the_oldest_event_that_waits_is_told_by_model(world: World) -> None:
    writer = SpoolWriter(world.settings.home / "spool" / "gateway")
    writer.write([b"{}"])
    writer.rotate()
    writer.close()
    assert list(world.told()["drift_spool_oldest_event_timestamp_seconds"]) == [("",)]
