"""A live home's page says what its control store and its KPI history say, drawn by the code of a replay's report."""

import hashlib
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import AuditRecord, Entry, Put
from drift_pipeline.detection.judging.performance import PERFORMANCE, Performance
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.timeline import story
from drift_pipeline.loop.home import reading
from drift_pipeline.loop.monitoring.kpi_history import read_kpis
from drift_pipeline.pages.chain import Chain
from drift_pipeline.pages.live import Links, Reader
from drift_pipeline.replays.charts.timeline import Panel, Timeline, timeline
from drift_pipeline.replays.figures import Point, Scale
from drift_pipeline.replays.folder import IncidentSpan, reigns_of
from drift_pipeline.replays.found import incident_facts
from drift_pipeline.replays.page import look_up, told_length
from drift_pipeline.replays.report import report_page
from drift_pipeline.replays.rollouts import both_sides
from drift_pipeline.rollout.verdict import Observations, judge
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.faults.homes import NOW, lived, spec_of
from drift_pipeline_tests.pages.worlds import copied, page_of, settings_of, store_of, told_of, whole
from drift_pipeline_tests.replay.pages import read_page
from drift_pipeline_tests.replay.worlds import MODEL, drift, replayed

NASTY = "</script><script>alert(1)</script>"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def test_the_kpis_of_the_page_are_those_of_the_history(settings: Settings) -> None:
    page = page_of(settings)
    with closing(store_of(settings)) as store:
        ticks = read_kpis(store, Lake(settings.lake / MODEL, source="tests"), MODEL, whole())
    found = {one.path: one for one in page.shown}
    assert ticks.height > 100
    assert sorted(page.rows["data-kpi"]) == sorted(ticks.filter(pl.col("verdict") != "NOT_CONFIGURED")["name"].unique())
    for place, kpi in enumerate(page.facts["kpis"]):
        rows = ticks.filter(pl.col("name") == kpi["name"])
        last = rows.row(-1, named=True)
        assert found[f"kpis.{place}.ticks"].value == rows.height == len(kpi["points"])
        for name in ("verdict", "value", "bound", "threshold", "window", "n"):
            assert found[f"kpis.{place}.now.{name}"].value == last[name]
        assert (kpi["now"]["worst"], kpi["now"]["version"]) == (last["worst"], last["version"])
        known = [point[1] for point in kpi["points"] if point[1] is not None]
        assert known == pytest.approx(rows["value"].drop_nulls().to_list(), rel=1e-5)


def test_every_value_on_the_page_is_the_fact_it_names(settings: Settings) -> None:
    page = page_of(settings)
    assert len(page.shown) > 150
    for one in page.shown:
        assert one.value == look_up(page.facts, one.path), one


def test_incidents_rollouts_and_trainings_are_the_control_store_s(settings: Settings) -> None:
    page = page_of(settings)
    with reading(settings) as store:
        records = [record for record in store.records() if record.subject == MODEL]
        findings = {one.body["key"]: one.body for one in store.find("finding")}
        candidates = {one.body["version"]: one.body for one in store.find("candidate")}
        seen = (store.recall(MODEL) or pytest.fail("no tick")).body["seen"]
    opened = [record.details["key"] for record in records if record.event == "incident.opened"]
    assert page.rows["data-incident"] == opened
    assert [one["kpis"] for one in page.facts["incidents"]] == [list(findings[key]["kpis"].values()) for key in opened]
    assert [one["columns"] for one in page.facts["incidents"]] == [findings[key]["columns"] for key in opened]
    assert page.rows["data-retrain"] == sorted(candidates)
    for row in page.facts["retrains"]:
        candidate = candidates[row["version"]]
        assert (row["auroc_before"], row["auroc_after"]) == tuple(candidate["auroc"].values())[::-1]
        assert row["cost"] == candidate["cost"]
    steps = [record for record in records if record.event.startswith("rollout.")]
    assert sum(len(one["steps"]) for one in page.facts["rollouts"]) == len(steps) > 3
    assert [one["words"] for one in page.facts["story"]] == [one.words for one in story(records)]
    assert page.facts["now"]["verdict"] == seen["verdict"]
    assert page.facts["now"]["labels"] == seen["labels"]


def test_who_reigned_when_is_read_from_the_audit_as_the_summary_has_it(settings: Settings) -> None:
    with reading(settings) as store:
        found = reigns_of(record for record in store.records() if record.subject == MODEL)
    wanted = [(one["version"], datetime.fromisoformat(one["from"])) for one in replayed()[0].summary["reigns"]]
    assert [(reign.name, reign.start) for reign in found] == wanted


def record(event: str, day: int, *, digests: dict[str, str] | None = None, **details: object) -> AuditRecord:
    return AuditRecord(day, "", f"2026-03-{day:02d}T00:00:00Z", "loop", event, "m", digests or {}, None, details)


def test_a_champion_that_was_rolled_back_makes_room_for_the_one_before_it() -> None:
    """And a candidate that was, changes nothing."""
    chain = [
        record("model.adopted", 1, digests={"bundle": "a"}, version="v1"),
        record("candidate.proven", 2, digests={"bundle": "b"}, version="v2"),
        record("rollout.rolled_back", 3, digests={"champion": "a"}, candidate="b"),
        record("model.promoted", 4, digests={"bundle": "b"}, version="v2"),
        record("rollout.rolled_back", 5, digests={"champion": "a"}, candidate="b"),
    ]
    assert [(one.name, one.start.day, one.end and one.end.day) for one in reigns_of(chain)] == [
        ("v1", 1, 4),
        ("v2", 4, 5),
        ("v1", 5, None),
    ]


def test_a_span_shows_what_lasted_into_it_and_numbers_stay(settings: Settings) -> None:
    told, page = told_of(settings, timedelta(days=3)), page_of(settings, timedelta(days=3))
    assert (told.end - told.start) == timedelta(days=3)
    assert all(told.start <= datetime.fromisoformat(one["at"]) for one in page.facts["story"])
    assert max(kpi["ticks"] for kpi in page.facts["kpis"]) <= 3
    whole_numbers = {one["key"]: one["number"] for one in page_of(settings).facts["incidents"]}
    assert all(whole_numbers[one["key"]] == one["number"] for one in page.facts["incidents"])


def test_a_model_under_rollout_shows_who_gets_what(tmp_path: Path) -> None:
    """Of a home that was adopted and lived for a day: no tick yet, a candidate that waits for its evidence."""
    settings = lived(tmp_path)
    reader = Reader(settings, ManualClock(NOW + timedelta(hours=1)))
    page = read_page(report_page(reader.told(spec_of(settings), timedelta(days=30), Links(tmp_path))))
    assert page.facts["now"]["candidate"] == page.facts["rollouts"][0]["version"] == "v2"
    assert (page.facts["now"]["phase"], page.facts["rollouts"][0]["active"]) == ("shadow", True)
    assert page.facts["rollouts"][0]["champion"] == "v1"
    assert "home/evidence/recommendation_v3/v2/card.html" in page.addresses
    assert (page.facts["now"]["verdict"], page.facts["kpis"]) == ("no tick yet", [])


def test_nothing_in_the_home_is_changed_by_looking(tmp_path: Path) -> None:
    settings = copied(tmp_path)

    def state() -> dict[str, str]:
        files = [path for path in settings.home.rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = state()
    page_of(settings)
    assert state() == before


def test_names_of_others_are_text(tmp_path: Path) -> None:
    settings = copied(tmp_path)
    with closing(store_of(settings)) as store:
        (found,) = store.find("finding")
        levels = {"edges": [], "levels": [NASTY, '"><img src=x>'], "reference": [0.9, 0.1], "current": [0.2, 0.8]}
        column = {**found.body["columns"][0], "name": f"a{NASTY}", "drift": True, "reason": NASTY, "shape": levels}
        body = {**found.body, "columns": [column]}
        store.commit(Entry(NASTY, "tests.changed", MODEL), [Put("finding", found.key, body, found.generation)])
        (rollout,) = store.find("rollout")
        back = {**rollout.body, "phase": "rolled_back", "reason": f"after full: {NASTY}", "effects": ["SetWeight 0"]}
        store.commit(Entry(NASTY, "rollout.rolled_back", MODEL, {}, back))
    page = page_of(settings)
    assert page.tags["script"] == 2
    assert "img" not in page.tags
    assert page.rows["data-column"] == [f"a{NASTY}"]
    assert page.facts["rollouts"][0]["steps"][-1]["rests"] == [f"after full: {NASTY}"]


def test_a_span_without_a_tick_says_so(settings: Settings) -> None:
    """As does a heartbeat that stopped: what was said last is not how it is now."""
    far = ManualClock(told_of(settings).end + timedelta(days=40))
    page = read_page(report_page(Reader(settings, far).told(spec_of(settings), timedelta(days=7), Links(Path()))))
    assert page.facts["kpis"] == []
    assert any("No tick was evaluated in this span." in text for text in page.texts)
    assert page.facts["now"]["stale"] is True
    assert any("nothing was judged since" in text for text in page.texts)
    assert page_of(settings).facts["now"]["stale"] is False


def test_a_gap_between_ticks_is_no_verdict() -> None:
    """Neither the line nor the strip runs through hours in which nobody looked."""
    start = datetime.fromisoformat("2026-03-01T00:00:00+00:00")
    hours = [*range(5), *range(40, 45)]
    points = [Point(start + timedelta(hours=hour), 0.1, 0.1, "OK", "", 0.05) for hour in hours]
    drawn = timeline(Timeline(start, start + timedelta(hours=60)), [Panel("psi", "", 0.2, points)])
    assert drawn.count('class="strip ok"') == 2
    assert drawn.count('class="bound"') == 2
    assert drawn.split('class="series"')[0].rpartition("<path")[2].count("M") == 2


@pytest.mark.parametrize(
    ("values", "low"), [([0.0, 0.02], 0.0), ([0.0, 0.0], 0.0), ([-0.1, 0.02], -0.1096), ([0.6, 0.8], 0.584)]
)
def test_a_share_is_not_drawn_below_nothing(values: list[float], low: float) -> None:
    assert Scale.around(values, 0, 100).low == pytest.approx(low)


@pytest.mark.parametrize("task", sorted(PERFORMANCE))
def test_both_sides_of_a_rollout_are_read_from_the_sentence_that_its_judge_writes(task: str) -> None:
    measure: Performance = PERFORMANCE[task]  # type: ignore[index]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(float) if task == "binary_classification" else rng.normal(size=400)
    candidate, champion = labels + rng.normal(size=400), labels + 3 * rng.normal(size=400)
    seen = Observations(
        400, 0, 400, labels=labels, candidate_scores=candidate, champion_scores=champion, performance=measure
    )
    reason = "; ".join(judge(seen, 100).reasons)
    found, compared = both_sides(f"canary: {reason}", measure), measure.compare(labels, candidate, champion)
    assert found["candidate"] == pytest.approx(compared.candidate, abs=6e-4)
    assert found["champion"] == pytest.approx(compared.champion, abs=6e-4)
    assert found["on"] == measure.counted(labels)
    assert both_sides("submitted", measure) == {"candidate": None, "champion": None, "on": ""}


def test_the_chain_is_read_on_and_anew_where_the_store_is_another(tmp_path: Path) -> None:
    settings = copied(tmp_path)
    chain = Chain()
    with reading(settings) as store:
        first = chain.of(store, MODEL)
        assert chain.of(store, MODEL) == first == Chain().of(store, MODEL)
    with closing(store_of(settings)) as store:
        store.commit(Entry("loop", "training.refused", MODEL, {}, {"decision": "x", "because": "few"}))
    with reading(settings) as store:
        assert [one.event for one in chain.of(store, MODEL)[len(first) :]] == ["training.refused"]
    other = lived(tmp_path / "other")
    with reading(other) as store:
        assert chain.of(store, MODEL) == Chain().of(store, MODEL) != first


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"incident": "k1", "acknowledged_by": "pagerduty:Ada"}, "acknowledged by pagerduty:Ada"),
        ({"incident": "k1", "acknowledged_by": ""}, "not acknowledged"),
        ({"incident": "k2", "acknowledged_by": "ada"}, "not acknowledged"),
    ],
)
def test_an_open_incident_says_whether_somebody_acknowledged_it(
    settings: Settings, now: dict[str, str], told: str
) -> None:
    span = IncidentSpan("k1", NOW, None, "")
    assert incident_facts(span, replace(told_of(settings), end=NOW, now=now), [])["ending"] == told


def test_an_age_is_told_in_its_two_largest_units() -> None:
    ages = [timedelta(seconds=s) for s in (0.4, 19, 75.4, 3600, 7260, 90000)]
    assert [told_length(age) for age in ages] == ["0s", "19s", "1m15s", "1h", "2h1m", "1d1h"]


def test_drift_report_writes_the_page_and_prints_where(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_MODELS", str(settings.models))
    told_of(settings)  # takes the broken model away
    out = tmp_path / "page.html"
    ended = drift("report", MODEL, "--home", settings.home, "--since", "1000d", "--html", out)
    assert (ended.code, ended.out) == (0, f"{out}\n")
    page = read_page(out.read_text())
    assert page.facts["model"] == MODEL
    assert "connect-src" not in out.read_text()
    card = next(address for address in page.addresses if address.endswith("card.html"))
    assert (out.parent / card).is_file()
    nobody = drift("report", "nobody", "--home", settings.home)
    assert (nobody.code, "there is no model 'nobody'" in nobody.err) == (2, True)
    nowhere = drift("report", MODEL, "--home", tmp_path / "nowhere")
    assert (nowhere.code, "no model is adopted here" in nowhere.err) == (2, True)


def test_a_model_that_is_not_adopted_is_told(tmp_path: Path, settings: Settings) -> None:
    other = lived(tmp_path / "other")
    spec = spec_of(settings).model_copy(update={"name": "fraud"})
    with pytest.raises(InputError, match="fraud is not adopted here"):
        Reader(other, ManualClock(NOW)).told(spec, timedelta(days=1), Links(tmp_path))
