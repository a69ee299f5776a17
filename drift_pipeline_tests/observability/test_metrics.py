"""The loop's metrics: what the control store holds is what is told, and what cannot be read is told as well."""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drift_pipeline.alerts.delivery import Progress
from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.cli import drift
from drift_pipeline.clock import HOUR, MINUTE, ManualClock
from drift_pipeline.control.figures import Delivery
from drift_pipeline.control.store import ControlStore, Entry, Message, Put
from drift_pipeline.control.trust import open_store, read_store
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.observability.metrics import Deliveries, LoopMetrics, size_of
from drift_pipeline.observability.series import DELIVERY, SERIES
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.up import DRIFT
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.sources.spool import SpoolWriter

SPEC = ModelSpec.model_validate(
    {
        **{"name": "fraud", "owner": "ann@example.com", "task": "binary_classification"},
        **{"columns": {"timestamp": "at"}, "features": {"amount": "numeric"}, "outcome": {"column": "label"}},
    }
)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
Told = dict[tuple[str, ...], float]


def seen(**more: Any) -> dict[str, Any]:
    """What a tick remembers of a model that drifts in one column."""
    kpi = {"verdict": "BREACH", "value": 0.5, "threshold": 0.2, "bound": 0.4, "window": "30d", "n": 9000, "reason": ""}
    quiet = {"verdict": "INCONCLUSIVE", "value": None, "threshold": -0.05, "bound": None, "window": None, "n": 0}
    column = {"psi": 0.5, "distance": 0.3, "drift": True, "window": "30d"}
    return {
        "verdict": "BREACH",
        "judged": 1,
        "configured": 2,
        "labels": {"landed": 10, "joined": 9, "judged": 0},
        "kpis": {"psi": kpi, "auroc": quiet, "range_z": {**quiet, "verdict": "NOT_CONFIGURED"}},
        "drifting_columns": 1,
        "worst": [{**column, "name": f"c{number}", "psi": 0.5 - number / 100} for number in range(20)],
        **more,
    }


class World:
    """A home whose model `fraud` stands as its tests say."""

    def __init__(self, folder: Path) -> None:
        self.settings, self.clock = Settings(home=folder, database=""), ManualClock(AT)
        self.store = open_store(self.settings, self.clock)
        self.metrics = LoopMetrics(self.settings, {"fraud": SPEC}, self.clock, self.opened)
        self.put("model", "fraud", {"version": "v1"})

    @contextmanager
    def opened(self) -> Iterator[ControlStore]:
        yield self.store

    def put(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        found = self.store.get(kind, key)
        self.store.commit(Entry("test", "put", key), [Put(kind, key, body, found.generation if found else 0)])

    def ticked(self, **incident: Any) -> None:
        open_one = {"open": False, "key": "", "opened_at": None, **incident}
        decided = ["drift", "k1", "retrain"]
        found = self.store.recall("fraud")
        body = {"at": AT.isoformat(), "seen": seen(), "decided": decided, "incident": open_one}
        self.store.remember(Put("", "fraud", body, found.generation if found else 0))

    def told(self) -> Mapping[str, Told]:
        return read(self.text())

    def text(self) -> str:
        registry = CollectorRegistry()
        registry.register(self.metrics)
        return generate_latest(registry).decode()


def read(text: str) -> Mapping[str, Told]:
    """By series' name, the samples by the values of their labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = SERIES[sample.name].labels if sample.name in SERIES else sample.labels
            found.setdefault(sample.name, {})[tuple(sample.labels[label] for label in labels)] = sample.value
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.store.close()


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


def test_a_store_that_does_not_answer_is_told_and_counted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    @contextmanager
    def down() -> Iterator[ControlStore]:
        raise UnavailableError("the control store did not answer")
        yield

    metrics = LoopMetrics(world.settings, {}, world.clock, down)
    for times in (1, 2):
        told = read(metrics.text(0).decode())
        assert told["drift_up"] == {(): 0}
        assert told["drift_exporter_errors_total"][("control_store",)] == times
    assert "drift_last_tick_timestamp_seconds" not in told
    assert len(caplog.records) == 1


def test_one_model_whose_memory_is_damaged_hides_no_other(world: World) -> None:
    world.ticked()
    world.put("model", "churn", {"version": "v9"})
    world.store.remember(Put("", "churn", {"at": "yesterday", "seen": 3}))
    told = world.told()
    assert told["drift_up"] == {(): 1}
    assert told["drift_exporter_errors_total"][("model",)] == 1
    assert ("fraud",) in told["drift_model_verdict"]


def test_rows_that_are_no_json_are_counted_and_left_out(world: World) -> None:
    import sqlalchemy as sa

    world.ticked()
    world.put("model", "churn", {"version": "v9"})
    with world.store._transaction(write=True) as connection:
        connection.execute(sa.text("UPDATE state SET body = '{\"version\": ' WHERE key = 'churn'"))
    told = world.told()
    assert told["drift_up"] == {(): 1}
    assert told["drift_exporter_errors_total"][("control_store",)] == 1
    assert list(told["drift_model_verdict"]) == [("fraud",)]


def test_threads_that_ask_at_once_are_answered_of_one_read(world: World) -> None:
    world.ticked()
    reads, asked, gate = [0], [0], threading.Event()

    @contextmanager
    def slow() -> Iterator[ControlStore]:
        reads[0] += 1
        gate.wait(20)
        yield world.store

    def monotonic() -> float:
        asked[0] += 1
        return time.monotonic()

    metrics = LoopMetrics(world.settings, {}, world.clock, slow, monotonic)
    threads = [threading.Thread(target=lambda: list(metrics.collect())) for _ in range(5)]
    for thread in threads:
        thread.start()
    while asked[0] < len(threads):
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join()
    assert reads[0] == 1


def test_every_series_is_told_with_its_type_and_in_the_words_of_prometheus(world: World) -> None:
    text = world.text()
    for name, series in SERIES.items():
        assert f"# TYPE {name} {series.kind}" in text
        assert f"# HELP {name} " in text
        assert (series.kind == "counter") == name.endswith("_total")
        assert re.fullmatch(r"drift(_[a-z]+)+", name)
        assert not re.search(r"_(ms|minutes|hours|days|percent|kb|mb)(_|$)", name)


def test_what_is_only_looked_at_is_not_changed(world: World) -> None:
    world.ticked()
    world.store.close()
    before = {path: path.read_bytes() for path in world.settings.home.rglob("*") if path.is_file()}

    @contextmanager
    def reading() -> Iterator[Any]:
        store = read_store(world.settings)
        yield store
        store.close()

    told = read(LoopMetrics(world.settings, {}, world.clock, reading).text(0).decode())
    assert told["drift_up"] == {(): 1}
    assert {path: path.read_bytes() for path in world.settings.home.rglob("*") if path.is_file()} == before


def test_size_is_of_files_and_not_of_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"12345")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "nowhere")
    assert size_of(tmp_path) == 5 + len(str(tmp_path / "nowhere"))


def test_the_exporter_is_a_process_that_outlives_its_home_and_ends_when_it_is_told_to(world: World) -> None:
    world.ticked()
    command = [*DRIFT, "exporter", "--port", "0", "--home", str(world.settings.home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split()[-1]
            assert read(httpx.get(address).text)["drift_model_verdict"] == {("fraud",): 2}
            world.store.close()
            world.settings.home.rename(world.settings.home.with_name("gone"))
            told = read(httpx.get(address).text)
            assert told["drift_up"] == {(): 0}
            assert told["drift_exporter_errors_total"][("control_store",)] == 1
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_what_is_no_home_and_a_port_that_is_taken_are_told(tmp_path: Path, world: World) -> None:
    asked = [["--home", str(tmp_path / "none")], ["--home", str(world.settings.home), "--port"]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked[1].append(str(taken.getsockname()[1]))
        for options, told in zip(asked, ("no model is adopted here", "give another --port"), strict=True):
            with pytest.raises(InputError, match=told):
                drift.main(["exporter", *options], standalone_mode=False)
