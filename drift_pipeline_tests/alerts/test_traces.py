"""A page names the trace of what it is about, whichever channel tells it."""

from drift_pipeline.alerts.alert import Teller
from drift_pipeline.alerts.channels.events import envelope
from drift_pipeline.alerts.channels.pagerduty import event
from drift_pipeline.alerts.delivery import alerts_after
from drift_pipeline.control.traces import trace_id
from drift_pipeline_tests.alerts.test_channels import alert
from drift_pipeline_tests.alerts.worlds import KEY, World
from drift_pipeline_tests.observability.traced import DECISION, MODEL, retrained, world

__all__ = ["world"]


def test_the_trace_of_an_alert_is_in_what_each_channel_tells() -> None:
    traced = alert(trace_id="ab" * 16)
    assert envelope(traced)["traceparent"] == f"00-{'ab' * 16}-{'ab' * 8}-01"
    assert envelope(traced)["data"]["trace_id"] == "ab" * 16
    assert event(traced)["payload"]["custom_details"]["trace"] == "ab" * 16
    assert f"trace:    {'ab' * 16}\n" in traced.text()
    assert ("traceparent" in envelope(alert()), "trace:" in alert().text()) == (False, False)


def test_a_page_and_what_follows_it_name_the_trace(world: World) -> None:
    world.opened(MODEL, KEY)
    retrained(world)
    failed = {"decision": DECISION, "because": "it stopped"}
    world.commit("training.failed", MODEL, failed, messages=[world.alert(MODEL, DECISION, "training.failed")])
    world.commit("tick.failed", MODEL, {}, messages=[world.alert(MODEL, "tick.failed", "tick.failed")])
    world.followed("acknowledged", MODEL)
    teller = Teller(world.store, "production", "")
    alerts = [one for _, one in alerts_after(world.store, teller, (0, 0)) if one is not None]
    trace = trace_id("production", MODEL, KEY)
    assert [(one.what, one.trace_id) for one in alerts] == [
        ("incident.opened", trace),
        ("training.failed", trace),
        ("tick.failed", ""),
        ("incident.acknowledged", trace),
    ]
    assert ("trace", trace) in alerts[0].facts()
