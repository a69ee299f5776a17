"""Much that is laid aside reaches people: one alert a model and hour, however often it is told."""

from pathlib import Path

from drift_pipeline.clock import HOUR, MINUTE, ManualClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store
from drift_pipeline.serving.refused import telling
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.refusals import Refused
from drift_pipeline_tests.serving.worlds import AT, SPECS

MUCH = Refused("fraud", 60, 1000)


def test_one_alert_a_model_and_hour_and_one_audit_record_with_it(tmp_path: Path) -> None:
    clock, settings = ManualClock(AT), Settings(home=tmp_path, database="")
    open_store(settings, clock).close()
    for minutes in (0, 2, 59, 60):  # each time as after a restart
        clock.advance_to(AT + minutes * MINUTE)
        with telling(settings, SPECS, clock) as tell:
            tell([MUCH, Refused("", 21, 401)])
            tell([MUCH])
    store = ControlStore(settings.database_url, clock)
    messages, records = store.pending(topic="alerts"), list(store.records())
    store.close()
    assert [message.id for message in messages] == [
        f"{name}:2026-03-01T{hour}:events.laid_aside" for hour in (12, 13) for name in ("fraud", "unknown")
    ]
    assert [(record.actor, record.subject) for record in records[1:]] == [
        ("capture", "fraud"),
        ("capture", "unknown"),
    ] * 2
    told, unknown = messages[0].body, messages[1].body
    assert (told["model"], told["owner"], told["at"]) == ("fraud", "ml@example.com", AT.isoformat())
    assert "60 of the last 1,000 events were laid aside" in told["why"]
    assert "21 of the last 401 events named no model that is known here" in unknown["why"]
    assert (clock.now() - AT, unknown["owner"]) == (HOUR, "")
