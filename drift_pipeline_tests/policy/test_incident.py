"""Incidents: tables of ticks against what each did."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drift_pipeline.clock import DAY, HOUR, MINUTE, WEEK
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Report, Verdict
from drift_pipeline.policy.incident import Change, Incident, step

START = datetime(2026, 1, 5, tzinfo=UTC)
VERDICTS = {"B": Verdict.BREACH, "W": Verdict.WARN, "o": Verdict.OK, "?": Verdict.INCONCLUSIVE}


def kpi(
    verdict: Verdict, name: str = "psi", value: float | None = None, threshold: float = 0.2, window: timedelta = HOUR
) -> KpiResult:
    if value is None and verdict is not Verdict.INCONCLUSIVE:
        value = 0.0 if verdict is Verdict.OK else 2 * threshold
    return KpiResult(name, verdict, value, threshold, None, window, 500, "said so")


def report(at: datetime, *kpis: KpiResult, drifting: Sequence[str] = ()) -> Report:
    features = tuple(
        FeatureFinding(name, HOUR, 500, 500, 0, 0, 0, 0, 0, 0, 0.1, 0.1, 0, True, "up", "") for name in drifting
    )
    return Report(at, {k.name: k for k in kpis}, features, False)


def play(letters: str, every: timedelta = HOUR, window: timedelta = HOUR) -> tuple[list[Change | None], Incident]:
    """A tick a letter: B breach, W warn, o ok, ? inconclusive."""
    incident, changes = Incident("sha256:0123456789abcdef"), []
    for number, letter in enumerate(letters):
        told = report(START + number * every, kpi(VERDICTS[letter], window=window))
        incident, change = step(incident, told)
        changes.append(change)
    return changes, incident


def told(changes: Sequence[Change | None]) -> list[tuple[int, str]]:
    return [(number, change.name) for number, change in enumerate(changes) if change]


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ("B", []),
        ("Boo", []),
        ("BooBooB", []),
        ("BB", [(1, "OPENED")]),
        ("BoB", [(2, "OPENED")]),
        ("B?B", [(2, "OPENED")]),
        ("B??B", []),
        ("oB??????", []),
        ("WWWWWWWW", []),
        ("BWWB", []),
        ("BBBBBB", [(1, "OPENED")]),
    ],
)
def test_two_breaches_in_three_ticks_open_and_less_does_not(ticks: str, expected: list[tuple[int, str]]) -> None:
    assert told(play(ticks)[0]) == expected


@pytest.mark.parametrize(("window", "opens"), [(15 * MINUTE, True), (HOUR, True), (DAY, False), (WEEK, False)])
def test_drift_in_a_window_under_a_day_opens_in_two_of_three_ticks(window: timedelta, opens: bool) -> None:
    incident, changes = Incident("sha256:0123456789abcdef"), []
    for number, drifts in enumerate((True, False, True)):
        at = START + number * MINUTE
        found = replace(report(at, kpi(Verdict.WARN), drifting=["x"]).features[0], drift=drifts, window=window)
        incident, change = step(incident, Report(at, {"psi": kpi(VERDICTS["W" if drifts else "o"])}, (found,), False))
        changes.append(change)
    assert told(changes) == ([(2, "OPENED")] if opens else [])


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        (24 * "W", []),
        (25 * "W", [(24, "OPENED")]),
        (12 * "W" + "o" + 24 * "W", []),
        (12 * "W" + "?" + 12 * "W", [(24, "OPENED")]),
        ("W" + 23 * "?", []),
        ("W" + 29 * "?", [(25, "UNDECIDED")]),
        ("W" + 29 * "?" + "W", [(25, "UNDECIDED"), (30, "OPENED")]),
    ],
)
def test_a_warning_opens_when_it_has_lasted_24_h_and_never_on_an_inconclusive_tick(
    ticks: str, expected: list[tuple[int, str]]
) -> None:
    assert told(play(ticks)[0]) == expected


@pytest.mark.parametrize(
    ("ticks", "window", "expected"),
    [
        ("BBooo", HOUR, [(1, "OPENED"), (4, "CLOSED")]),
        ("BBoo", HOUR, [(1, "OPENED")]),
        ("BBoWooo", HOUR, [(1, "OPENED"), (6, "CLOSED")]),
        ("BB" + 24 * "o", DAY, [(1, "OPENED")]),
        ("BB" + 25 * "o", DAY, [(1, "OPENED"), (26, "CLOSED")]),
        ("BB" + 20 * "?", HOUR, [(1, "OPENED")]),
        ("BBoo?????", HOUR, [(1, "OPENED")]),
        ("BBoo?????o", HOUR, [(1, "OPENED"), (9, "CLOSED")]),
    ],
)
def test_closes_after_a_whole_window_of_calm_and_three_conclusive_ticks(
    ticks: str, window: timedelta, expected: list[tuple[int, str]]
) -> None:
    assert told(play(ticks, window=window)[0]) == expected


@pytest.mark.parametrize(
    ("name", "value", "threshold", "closes"),
    [
        ("psi", 0.09, 0.2, True),
        ("psi", 0.11, 0.2, False),
        ("auroc", -0.02, -0.05, True),
        ("auroc", -0.03, -0.05, False),
        ("auroc", 0.03, -0.05, True),
        ("latency_p95_ms", 0.02, 0.05, True),
        ("latency_p95_ms", 0.03, 0.05, False),
        ("range_z", 0.0, 4.0, True),
    ],
)
def test_calm_is_below_half_the_threshold(name: str, value: float, threshold: float, closes: bool) -> None:
    incident, change = Incident("sha256:0"), None
    for number in range(6):
        verdict, now = (Verdict.BREACH, 2 * threshold) if number < 2 else (Verdict.OK, value)
        incident, change = step(incident, report(START + number * HOUR, kpi(verdict, name, now, threshold)))
        if change is Change.CLOSED:
            break
    assert (change is Change.CLOSED) == closes == (not incident.open)


def test_a_drifting_feature_keeps_it_open_though_its_kpi_is_ok() -> None:
    _, incident = play("BB")
    for number in range(2, 8):
        incident, change = step(incident, report(START + number * HOUR, kpi(Verdict.OK), drifting=["f0"]))
        assert change is None
    assert incident.open


def test_calm_starts_anew_when_one_kpi_stirs_while_another_is_inconclusive() -> None:
    _, incident = play("BBoo")
    unclear = report(
        START + 4 * HOUR, kpi(Verdict.INCONCLUSIVE), kpi(Verdict.BREACH, "auroc", -0.1, -0.05), drifting=["f0"]
    )
    incident, change = step(incident, unclear)
    assert change is Change.JOINED
    assert incident.calm_ticks == 0
    calm = report(START + 5 * HOUR, kpi(Verdict.OK), kpi(Verdict.OK, "auroc", 0.0, -0.05))
    assert step(incident, calm)[1] is None


def test_what_comes_later_joins_under_the_same_key_and_lengthens_the_window_of_calm() -> None:
    _, opened = play("BB")
    second = report(
        START + 2 * HOUR, kpi(Verdict.BREACH), kpi(Verdict.WARN, "auroc", -0.1, -0.05, WEEK), drifting=["f7", "f1"]
    )
    joined, change = step(opened, second)
    assert change is Change.JOINED
    assert (joined.key, joined.opened_at, joined.onset) == (opened.key, opened.opened_at, opened.onset)
    assert joined.kpis == ("psi", "auroc")
    assert set(joined.features) == {"f1", "f7"}
    assert joined.windows_seconds == WEEK.total_seconds()
    assert step(joined, second)[1] is None


@pytest.mark.parametrize(("pause_hours", "change"), [(20, Change.REOPENED), (40, Change.OPENED)])
def test_reopening_within_24_h_continues_the_key_and_later_begins_another(pause_hours: int, change: Change) -> None:
    _, first = play("BBooo")
    changes, incident = play("BBooo" + pause_hours * "o" + "BB")
    assert not first.open
    assert [c for c in changes if c] == [Change.OPENED, Change.CLOSED, change]
    assert (incident.key == first.key) == (change is Change.REOPENED)
    assert incident.open
    assert incident.kpis == ("psi",)


def test_the_key_is_the_reference_and_the_onset_which_is_the_first_of_the_breaches_that_opened_it() -> None:
    _, incident = play("BooBooBB")
    assert incident.onset == START + 6 * HOUR
    assert incident.opened_at == START + 7 * HOUR
    assert incident.key == "0123456789ab-20260105T0600"


@pytest.mark.parametrize(
    ("ticks", "every", "expected"),
    [
        ("o" + 24 * "?", HOUR, []),
        ("o" + 60 * "?", HOUR, [(25, "UNDECIDED")]),
        ("o" + 30 * "?" + "o" + 30 * "?", HOUR, [(25, "UNDECIDED"), (56, "UNDECIDED")]),
        (28 * "?", DAY, []),
        (60 * "?", DAY, [(28, "UNDECIDED")]),
        ("BB" + 60 * "?", HOUR, [(1, "OPENED"), (26, "UNDECIDED")]),
    ],
)
def test_undecided_is_told_once_after_24_h_or_28_d_of_a_monitor_that_never_decided(
    ticks: str, every: timedelta, expected: list[tuple[int, str]]
) -> None:
    assert told(play(ticks, every)[0]) == expected


@pytest.mark.parametrize(("shortest", "paged_on"), [(DAY, 28), (14 * DAY, 28), (224 * DAY, 448)])
def test_a_monitor_whose_windows_fill_for_months_is_given_twice_their_time(shortest: timedelta, paged_on: int) -> None:
    incident, found = Incident("sha256:0123456789abcdef"), []
    for day in range(500):
        silent = replace(report(START + day * DAY, kpi(Verdict.INCONCLUSIVE)), shortest=shortest)
        incident, change = step(incident, silent)
        found += [day] if change else []
    assert found == [paged_on]


@pytest.mark.parametrize("storm", ["Bo", "BW", "B?", "Boo?WBB"])
def test_a_storm_of_changing_verdicts_is_one_incident(storm: str) -> None:
    changes, incident = play(100 * storm, every=timedelta(minutes=1))
    assert [change for change in changes if change] == [Change.OPENED]
    assert incident.open


def test_what_is_remembered_is_json() -> None:
    body = json.loads(json.dumps(play("oBoB")[1].to_json()))
    assert body["breaches"] == ["2026-01-05T01:00:00+00:00", None, "2026-01-05T03:00:00+00:00"]
    assert body["kpis"] == ["psi"]
    assert body["closed_at"] is None


def test_a_hint_keeps_an_incident_open_while_it_warns_and_never_closes_it_alone() -> None:
    def at(minute: int, hint: Verdict, rest: Verdict) -> Report:
        told = kpi(hint, "estimated_auroc", value=-0.06, threshold=-0.05, window=MINUTE)
        return report(START + minute * MINUTE, told, kpi(rest))

    incident = Incident("sha256:ab", key="ab", open=True, kpis=("estimated_auroc",), windows_seconds=60)
    ticks = [(Verdict.WARN, Verdict.OK)] * 5 + [(Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE)] * 5
    for minute, (hint, rest) in enumerate(ticks):
        incident, change = step(incident, at(minute, hint, rest))
        assert change is None
    for minute in range(10, 71):
        assert change is None
        incident, change = step(incident, at(minute, Verdict.INCONCLUSIVE, Verdict.OK))
    assert change is Change.CLOSED


def test_a_warning_ends_where_something_was_judged_and_nothing_found_though_labels_are_overdue() -> None:
    """INCONCLUSIVE for what is overdue, not for what was judged: two single warnings days apart are no lasting one."""
    overdue = replace(kpi(Verdict.INCONCLUSIVE, "auroc"), overdue=True)
    incident, changes = Incident("sha256:0123456789abcdef"), []
    for number, letter in enumerate("W" + "o" * 30 + "W"):
        told = report(START + number * HOUR, kpi(VERDICTS[letter]), overdue)
        incident, change = step(incident, told)
        changes.append(change)
    assert Change.OPENED not in changes


def test_labels_that_stop_coming_are_paged_once_after_a_day_while_the_rest_is_fine() -> None:
    overdue = replace(kpi(Verdict.INCONCLUSIVE, "auroc"), overdue=True)
    incident, changes = Incident("sha256:0123456789abcdef"), []
    for number in range(80):
        waits = kpi(Verdict.OK, "auroc") if number < 5 else overdue
        incident, change = step(incident, report(START + number * HOUR, kpi(Verdict.OK), waits))
        changes.append(change)
    assert [(number, change) for number, change in enumerate(changes) if change] == [(29, Change.UNDECIDED)]
