"""Producers and files that mean ill: what they send is counted or laid aside, and nobody else's rows suffer."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.world import Live

ODD: dict[str, dict[str, Any]] = {
    "the largest numbers": {"session_length_s": 1.7e308, "items_viewed": -1.7e308, "price_eur": 5e-324},
    "letters that turn the text around": {"device": "\u202emobile\u2066", "country": "\u200f\u200eDE"},
    "NUL and control characters": {"device": "a\0b", "country": "\x1b[2J\x07"},
    "markup and paths": {"device": "<script>alert(1)</script>", "country": "../../../etc/passwd"},
    "a quote that ends a condition": {"device": "' OR '1'='1", "country": "x'); DROP TABLE state;--"},
    "nothing at all": dict.fromkeys(("session_length_s", "items_viewed", "price_eur", "device", "country")),
    "long levels": {"device": "d" * 1000, "country": "\U0001f4a3" * 500},
}


@pytest.mark.parametrize("what", ODD)
def test_values_that_no_user_has_are_counted_and_harm_no_tick(live: Live, what: str) -> None:
    site = live.site
    live.minutes(2)
    row = {**site.some_row(), "_time": site.clock.now()}
    features = {**{name: row[name] for name in site.spec.watched}, **ODD[what]}
    names = [f"odd-{k}" for k in range(50)]
    site.sent.landing |= set(names)
    site.send([site.prediction(row, id=name, features=features) for name in names], source="partner")
    live.minutes(3)
    assert broken(site, [live.kept]) == []


def aside(live: Live, lines: list[bytes]) -> None:
    """All of them become dead letters, and nothing else changes."""
    site = live.site
    live.minutes(2)
    site.send(lines, source="stranger")
    live.minutes(2)
    assert site.lake_of_dead_letters() == len(lines)
    assert broken(site, [live.kept]) == []


Change = Callable[[dict[str, Any]], object]
FORGED: dict[str, Change] = {
    "of a model that is not here": lambda event: event.update(model="payroll"),
    "of the place where others are kept": lambda event: event.update(model="../_dead_letters"),
    "of no model": lambda event: event.pop("model"),
    "a number that is none": lambda event: event["features"].update(price_eur=float("nan")),
    "a number too large": lambda event: event["features"].update(price_eur=10**400),
    "a score that is none": lambda event: event.update(score=float("inf")),
    "half a character": lambda event: event["features"].update(device="\ud800"),
    "a column of its own": lambda event: event["features"].update(admin=1),
    "an id without end": lambda event: event.update(id="i" * 10_000),
    "a route of its own": lambda event: event.update(route="admin"),
    "a time before there were computers": lambda event: event.update(time="0001-01-01T00:00:00+00:00"),
    "a time of no calendar": lambda event: event.update(time="2026-02-30T00:00:00+00:00"),
}


def test_what_is_no_event_of_a_model_here_is_laid_aside(live: Live) -> None:
    lines = []
    for forge in FORGED.values():
        event = json.loads(live.site.prediction(live.site.some_row()))
        forge(event)
        lines.append(json.dumps(event).encode())
    aside(live, lines)


NO_SPOOL = {
    "NUL": b"\x00" * 5000,
    "no UTF-8": b"\xff\xfe\x00",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "a long number": b"9" * 100_000,
    "half a character": b"\xed\xa0\x80",
    "another format": b"PAR1",
}


def test_a_file_that_is_no_spool_is_laid_aside_line_by_line(live: Live) -> None:
    aside(live, [*NO_SPOOL.values()])


def test_an_id_that_comes_again_with_other_contents_keeps_the_first(live: Live) -> None:
    site = live.site
    live.minutes(2)
    row = {**site.some_row(), "_time": site.clock.now()}
    site.sent.landing.add("twice")
    first, second = site.prediction(row, id="twice"), site.prediction({**row, "price_eur": 999_999.0}, id="twice")
    site.send([first, second, second])
    site.send([second])
    live.minutes(2)
    assert broken(site, [live.kept]) == []
    landed = site.lake().read("predictions", site.landed())
    assert landed.filter(landed["_id"] == "twice")["price_eur"].to_list() == [row["price_eur"]]


def test_outcomes_that_contradict_each_other_are_one_label_of_one_row(live: Live) -> None:
    site = live.site
    live.minutes(2)
    row = {**site.some_row(), "_time": site.clock.now()}
    site.sent.landing.add("disputed")
    site.send([site.prediction(row, id="disputed")])
    live.minutes(1)
    for label in (0, 1, 0, 1):
        site.send([site.outcome("disputed", site.clock.now(), label)], source="partner")
        live.minutes(1)
    assert broken(site, [live.kept]) == []


def test_outcomes_of_rows_that_were_never_served_are_no_labels_of_any(live: Live) -> None:
    site = live.site
    live.minutes(2)
    site.send([site.outcome(f"ghost-{k}", site.clock.now(), k % 2) for k in range(200)], source="partner")
    live.minutes(3)
    assert broken(site, [live.kept]) == []
