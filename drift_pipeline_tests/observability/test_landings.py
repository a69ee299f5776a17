"""A request's trace goes with its events to the landing, which links to it; an incident links to the last landing."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import HOUR, ManualClock, SystemClock
from drift_pipeline.control.store import Put
from drift_pipeline.observability.facts import CAPTURE
from drift_pipeline.observability.landings import Landings
from drift_pipeline.observability.otel import Outlet, Span, Telling, begun
from drift_pipeline.serving.capturing import capturing
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.alerts.worlds import AT, World
from drift_pipeline_tests.observability.test_otel import Sink, sink
from drift_pipeline_tests.observability.traced import MODEL, attributes, deliver, incident, spans_of, world
from drift_pipeline_tests.serving.test_receiver import prediction
from drift_pipeline_tests.serving.worlds import SPECS, Home

__all__ = ["sink", "world"]


def test_a_request_keeps_its_ids_from_the_gateway_to_the_landing_that_links_to_it(sink: Sink) -> None:
    caller = f"00-{'a' * 32}-{'b' * 16}-01"
    own = begun(caller)
    assert (own[:36], own[36:52] == "b" * 16) == (caller[:36], False)
    with closing(Outlet("test")) as outlet:
        outlet.put(Telling([], Span("infer fraud", {"traceparent": caller}, 1, 2, {}, own)))
        landings = Landings(ManualClock(AT), outlet)
        landings.landed(MODEL, "gateway", 7, [own])
    served, landed = spans_of(sink)
    assert (f"00-{served.trace_id.hex()}-{served.span_id.hex()}-01", served.parent_span_id.hex()) == (own, "b" * 16)
    (link,) = landed.links
    assert (link.trace_id, link.span_id) == (served.trace_id, served.span_id)
    (last,) = landings.last[MODEL]
    assert last == f"{AT.isoformat()} 00-{landed.trace_id.hex()}-{landed.span_id.hex()}-01"
    told = {"drift.model": MODEL, "drift.source": "gateway", "drift.batch": 7, "drift.requests": 1}
    assert attributes(landed) == told


def test_a_landing_links_to_the_first_that_are_traceparents_and_to_8_at_most(sink: Sink) -> None:
    good = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 10)]
    bad = ["", "nonsense", "-", good[0][:-1], good[0].upper() + "0", f"ff{good[0][2:]}", f"00-{'0' * 32}-{'b' * 16}-01"]
    with closing(Outlet("test")) as outlet:
        Landings(ManualClock(AT), outlet).landed(MODEL, "gateway", 7, [*bad, *good])
    (landed,) = spans_of(sink)
    assert [int(link.trace_id.hex(), 16) for link in landed.links] == [*range(1, 9)]


def test_what_capture_lands_is_told_once_and_remembered(tmp_path: Path, sink: Sink) -> None:
    home = Home(tmp_path / "home")
    caller = f"00-{'a' * 32}-{'b' * 16}-01"
    told: list[dict[str, Any]] = [{"traceparent": caller}, {"traceparent": caller}, {}]
    lines = [prediction(id, route="stable", **one) for id, one in zip("abc", told, strict=True)]
    with closing(home.store), closing(SpoolWriter(home.settings.home / "spool" / "gateway")) as spool:
        with capturing(home.settings, SPECS, SystemClock()) as (capture, _):
            for _ in range(2):  # the second is a producer that sends again
                spool.write([json.dumps(line).encode() for line in lines])
                spool.rotate()
                capture.step()
        remembered = home.store.recall(CAPTURE)
    (landed,) = spans_of(sink)
    assert (landed.name, [link.trace_id.hex() for link in landed.links]) == (f"landed {MODEL}", ["a" * 32])
    assert remembered is not None
    (last,) = remembered.body["landed"][MODEL]
    assert last.endswith(f" 00-{landed.trace_id.hex()}-{landed.span_id.hex()}-01")


def test_an_incident_links_to_the_last_landing_before_it(world: World, sink: Sink) -> None:
    early, last, late = (f"00-{digit * 32}-{digit * 16}-01" for digit in "123")
    times = (AT, AT + HOUR, AT + 2 * HOUR)
    kept = [f"{at.isoformat()} {own}" for at, own in zip(times, (early, last, late), strict=True)]
    world.store.remember(Put("", CAPTURE, {"at": AT.isoformat(), "events": {}, "landed": {MODEL: kept}}))
    incident(world)
    deliver(world)
    (opened,) = spans_of(sink)
    assert [link.trace_id.hex() for link in opened.links] == ["2" * 32]


@pytest.mark.parametrize("landed", [None, {MODEL: ["nonsense"]}, {MODEL: 3}])
def test_what_capture_remembers_in_another_form_is_no_link(world: World, sink: Sink, landed: Any) -> None:
    world.store.remember(Put("", CAPTURE, {"at": AT.isoformat(), "events": {}, "landed": landed}))
    incident(world)
    assert deliver(world) == 1
    assert [list(span.links) for span in spans_of(sink)] == [[]]


@pytest.mark.parametrize(
    "caller", ["", "nonsense", f"00-{'0' * 32}-{'b' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01", f"00-{'A' * 32}"]
)
def test_a_caller_without_a_trace_begins_one(caller: str) -> None:
    assert begun(caller)[3:35] != "a" * 32
    assert begun(caller) != begun(caller)


def test_a_caller_that_is_not_sampled_is_linked_to_by_nobody() -> None:
    assert begun(f"00-{'a' * 32}-{'b' * 16}-00") == ""


def test_a_caller_of_a_later_version_of_the_standard_is_gone_on_with() -> None:
    assert begun(f"01-{'a' * 32}-{'b' * 16}-01-more")[:36] == f"00-{'a' * 32}-"
