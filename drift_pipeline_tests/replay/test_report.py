"""The page of a replay shows what its summary, its KPIs and its control store say, whatever they say."""

import hashlib
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import AuditRecord, ControlStore, Entry, Put
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.timeline import story
from drift_pipeline.replays.figures import TimeScale
from drift_pipeline.replays.found import why
from drift_pipeline.replays.page import look_up
from drift_pipeline.replays.panels import points
from drift_pipeline.replays.report import PAGE, write_report
from drift_pipeline_tests.replay.pages import ReadPage, Shown, read_page
from drift_pipeline_tests.replay.worlds import MODEL, replayed

AT = datetime(2026, 2, 2, tzinfo=UTC)
NASTY = "</script><script>alert(1)</script>"


def copied(tmp_path: Path) -> Path:
    """The shared replay, without its lake and registry, which the page does not read."""
    folder = tmp_path / "replay"
    folder.mkdir()
    for name in ("summary.json", "control.db", "kpis.parquet"):
        shutil.copy(replayed()[1] / name, folder / name)
    return folder


def changed(folder: Path, **values: Any) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text()) | values
    (folder / "summary.json").write_text(json.dumps(summary))
    return summary


def store_of(folder: Path) -> ControlStore:
    return ControlStore(f"sqlite:///{folder / 'control.db'}", ManualClock(AT))


def records_of(folder: Path) -> list[AuditRecord]:
    store = store_of(folder)
    try:
        return list(store.records())
    finally:
        store.close()


def state_of(folder: Path, kind: str) -> dict[str, Any]:
    store = store_of(folder)
    try:
        return {record.key: record.body for record in store.find(kind)}
    finally:
        store.close()


def the_page() -> ReadPage:
    return read_page((replayed()[1] / PAGE).read_text(encoding="utf-8"))


def by_path(page: ReadPage) -> dict[str, Shown]:
    return {shown.path: shown for shown in page.shown}


def written(folder: Path) -> ReadPage:
    return read_page(write_report(folder).read_text(encoding="utf-8"))


def test_a_replay_leaves_its_page() -> None:
    """`drift replay` writes it before it publishes the folder."""
    assert (replayed()[1] / PAGE).is_file()


def test_every_value_on_the_page_is_the_fact_it_names() -> None:
    page = the_page()
    assert len(page.shown) > 150
    for shown in page.shown:
        assert shown.value == look_up(page.facts, shown.path), shown


def test_numbers_are_rounded_and_never_changed() -> None:
    """A number that is read is within the last digit shown of the number that is meant."""
    for shown in the_page().shown:
        if isinstance(shown.value, int | float) and not isinstance(shown.value, bool):
            digits = shown.text.replace(",", "").lstrip("+")
            decimals = len(digits.partition("e")[0].partition(".")[2])
            read = float(digits)
            tolerance = max(0.5 * 10.0**-decimals, abs(shown.value) * 0.005) + 1e-12
            assert abs(read - shown.value) <= tolerance, shown


def test_the_facts_are_the_summary() -> None:
    assert the_page().facts["summary"] == json.loads((replayed()[1] / "summary.json").read_text())


def test_the_header_shows_the_summary_s_numbers() -> None:
    found, summary = by_path(the_page()), replayed()[0].summary
    for path, text in {
        "summary.auroc.loop": f"{summary['auroc']['loop']:.3f}",
        "summary.auroc.frozen": f"{summary['auroc']['frozen']:.3f}",
        "gain": f"{summary['auroc']['loop'] - summary['auroc']['frozen']:+.3f}",
        "summary.incidents": str(summary["incidents"]),
        "summary.promotions": str(summary["promotions"]),
        "summary.rows": f"{summary['rows']:,}",
        "summary.training_cpu_seconds": f"{summary['training_cpu_seconds']:.1f}",
        "summary.audit.records": str(summary["audit"]["records"]),
    }.items():
        assert found[path].text == text


def test_a_row_a_retrain_with_its_decision_its_cost_and_its_gates() -> None:
    """Against the control store: the candidate's record, and the decision that the audit has under its id."""
    page, out = the_page(), replayed()[1]
    found, records = by_path(page), records_of(out)
    candidates = {body["version"]: body for body in state_of(out, "candidate").values()}
    summary = replayed()[0].summary
    assert page.rows["data-retrain"] == [retrain["version"] for retrain in summary["retrains"]]
    assert len(summary["retrains"]) == len(candidates) >= 2
    for place, retrain in enumerate(summary["retrains"]):
        candidate, here = candidates[retrain["version"]], f"retrains.{place}"
        for name, value in candidate["cost"].items():
            assert found[f"{here}.cost.{name}"].value == value
        assert found[f"{here}.auroc_before"].text == f"{candidate['auroc']['before']:.3f}"
        assert found[f"{here}.auroc_after"].text == f"{candidate['auroc']['after']:.3f}"
        assert found[f"{here}.proven_on"].value == candidate["proven_on"]["rows"]
        decision = next(r for r in records if r.details.get("decision") == retrain["decision_id"])
        assert page.facts["retrains"][place]["reasons"] == decision.details["reasons"]
        assert page.facts["retrains"][place]["action"] == decision.details["action"]


def test_what_a_retrain_realised_is_its_reign() -> None:
    page, summary = the_page(), replayed()[0].summary
    reigns = {reign["version"]: reign for reign in summary["reigns"]}
    for row in page.facts["retrains"]:
        assert row["reign"] == reigns.get(row["version"])


def test_a_section_an_incident_with_what_was_found() -> None:
    page, out = the_page(), replayed()[1]
    findings = {body["key"]: body for body in state_of(out, "finding").values()}
    opened = [record for record in records_of(out) if record.event == "incident.opened"]
    assert page.rows["data-incident"] == [record.details["key"] for record in opened]
    assert len(opened) == replayed()[0].summary["incidents"] == 1
    one, finding, found = page.facts["incidents"][0], findings[opened[0].details["key"]], by_path(page)
    assert one["kpis"] == list(finding["kpis"].values())
    assert page.rows["data-column"] == [column["name"] for column in finding["columns"]]
    for place, column in enumerate(finding["columns"]):
        for name in ("direction", "psi", "distance", "p_value", "n"):
            assert found[f"incidents.0.columns.{place}.{name}"].value == column[name]


def test_an_incident_that_a_promotion_ends_says_so() -> None:
    one = the_page().facts["incidents"][0]
    closing = next(r for r in records_of(replayed()[1]) if r.details.get("closes") == one["key"])
    assert datetime.fromisoformat(one["ended"]) == datetime.fromisoformat(closing.at)
    assert one["ending"] == f"{closing.details['version']} took over and is watched anew"
    lasted = datetime.fromisoformat(one["ended"]) - datetime.fromisoformat(one["opened"])
    assert one["days"] == lasted / timedelta(days=1)


def test_the_kpis_on_the_page_are_those_of_the_parquet() -> None:
    page, ticks = the_page(), pl.read_parquet(replayed()[1] / "kpis.parquet")
    found, configured = by_path(page), ticks.filter(pl.col("verdict") != "NOT_CONFIGURED")["name"].unique()
    assert sorted(page.rows["data-kpi"]) == sorted(configured)
    for place, kpi in enumerate(page.facts["kpis"]):
        rows = ticks.filter(pl.col("name") == kpi["name"])
        assert found[f"kpis.{place}.ticks"].value == rows.height == kpi["drawn"]
        for verdict in ("OK", "WARN", "BREACH", "INCONCLUSIVE"):
            assert found[f"kpis.{place}.verdicts.{verdict}"].value == (rows["verdict"] == verdict).sum()
        assert found[f"kpis.{place}.highest"].value == rows["value"].max()
        drawn = [point[1] for point in kpi["points"]]
        assert [value is None for value in drawn] == rows["value"].is_null().to_list()
        known = [value for value in drawn if value is not None]
        assert known == pytest.approx(rows["value"].drop_nulls().to_list(), rel=1e-5)


def test_the_story_is_the_audit_chain_in_words() -> None:
    page = the_page()
    said = story(records_of(replayed()[1]))
    assert [(one["words"], one["kind"]) for one in page.facts["story"]] == [(one.words, one.kind) for one in said]
    found = by_path(page)
    assert [found[f"story.{place}.words"].text for place in range(len(said))] == [one.words for one in said]


def test_the_page_needs_nothing_but_itself() -> None:
    html = (replayed()[1] / PAGE).read_text(encoding="utf-8")
    page = read_page(html)
    assert all(address.startswith(("#incident-", "evidence/")) for address in page.addresses)
    assert "link" not in page.tags
    assert "img" not in page.tags
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\(", html)


def test_a_page_is_small(tmp_path: Path) -> None:
    page = write_report(copied(tmp_path))
    assert page.stat().st_size < 400_000


def test_the_same_folder_gives_the_same_page_and_is_not_changed(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert after == {**before, PAGE: hashlib.sha256(first).hexdigest()}


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """Levels, features, notes and reasons come from other people's data."""
    folder = copied(tmp_path)
    store = store_of(folder)
    (found,) = store.find("finding")
    levels = {"edges": [], "levels": [NASTY, '"><img src=x>'], "reference": [0.9, 0.1], "current": [0.2, 0.8]}
    column = {**found.body["columns"][0], "name": f"a{NASTY}", "drift": True, "reason": NASTY, "shape": levels}
    body = {**found.body, "columns": [column]}
    store.commit(Entry("loop", "tests.changed", MODEL), [Put("finding", found.key, body, found.generation)])
    store.close()
    changed(folder, notes=[NASTY])
    clean, page = the_page(), written(folder)
    assert page.tags["script"] == clean.tags["script"] == 2
    assert "img" not in page.tags
    assert page.rows["data-column"] == [f"a{NASTY}"]
    assert page.facts["incidents"][0]["columns"][0]["reason"] == NASTY
    assert any("alert(1)" in text for text in page.texts)


def test_a_replay_in_which_nothing_happened_has_a_page(tmp_path: Path) -> None:
    """Zero incidents, trainings and ticks, an empty control store, no month with labels: interrupted at once."""
    folder = copied(tmp_path)
    (folder / "control.db").unlink()
    store_of(folder).close()
    pl.read_parquet(folder / "kpis.parquet").clear().write_parquet(folder / "kpis.parquet")
    nothing = {"incidents": 0, "decisions": {}, "reigns": [], "retrains": [], "promotions": 0, "evaluations": 0}
    auroc: dict[str, Any] = {"frozen": None, "loop": None, "worst_month": None, "period": "month", "by_month": []}
    changed(folder, **nothing, auroc=auroc, partial=True, audit={"records": 0, "head": None, "verified": True})
    page = written(folder)
    assert "Nothing was trained." in page.texts
    assert "There was none." in page.texts
    assert any(text.startswith("interrupted") for text in page.texts)
    assert by_path(page)["summary.auroc.loop"].text == "unknown"


def test_a_retrain_that_lost_is_red_and_says_why_it_was_shipped(tmp_path: Path) -> None:
    """Against the first model on the rows it answered; and which incident opened meanwhile."""
    folder = copied(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    version = next(row["version"] for row in the_page().facts["retrains"] if row["reign"])
    reigns = [
        {**reign, "frozen": 0.8, "loop": 0.7} if reign["version"] == version else reign for reign in summary["reigns"]
    ]
    changed(folder, reigns=reigns)
    html = write_report(folder).read_text(encoding="utf-8")
    row = next(row for row in read_page(html).facts["retrains"] if row["version"] == version)
    assert row["realised"] == pytest.approx(-0.1)
    assert f"on {row['proven_on']:,} rows that neither had seen it was {row['gain']:+.3f} AUROC" in row["lost"]
    assert f'<p data-lost="{version}"><b class="bad">{version} lost</b>' in html
    assert re.search(r'<small class="bad">lost <data data-fact="retrains\.\d\.realised"', html)
    assert "data-lost" not in (replayed()[1] / PAGE).read_text(encoding="utf-8")


def test_a_replay_in_which_nothing_was_promoted_does_not_boast(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    auroc = json.loads((folder / "summary.json").read_text())["auroc"]
    changed(folder, promotions=0, auroc={**auroc, "loop": auroc["frozen"]})
    html = write_report(folder).read_text(encoding="utf-8")
    verdict = html.partition('<p class="verdict">')[2].partition("</p>")[0]
    assert "Nothing was promoted" in verdict
    assert "good" not in verdict
    assert 'data-fact="gain"' not in verdict


def test_a_fall_that_an_earlier_incident_left_is_told_where_no_kpi_shows_it(tmp_path: Path) -> None:
    """A decision that names an incident which is over compares with what was held out before it."""
    folder = copied(tmp_path)
    row = next(row for row in the_page().facts["retrains"] if row["incident"])
    store = ControlStore(f"sqlite:///{folder / 'control.db'}", ManualClock(AT + timedelta(days=200)))
    decision = next(r for r in store.records() if r.details.get("decision") == row["decision"])
    late = {**decision.details, "decision": f"{MODEL}-99"}
    store.commit(Entry("policy", "decision.made", MODEL, {}, late))
    proof = next(r for r in store.records() if r.event == "candidate.proven")
    again = {**proof.details, "decision": f"{MODEL}-99", "version": "v99"}
    store.commit(Entry("loop", "candidate.proven", MODEL, dict(proof.digests), again))
    store.close()
    found = {one["version"]: one["not_made_good"] for one in written(folder).facts["retrains"]}
    assert "counted from before incident 1, which v2 ended without making it good" in found["v99"]
    assert found["v2"] == ""


def test_a_rollback_and_a_training_that_was_refused_are_told(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    version = replayed()[0].summary["retrains"][-1]["version"]
    (body,) = state_of(folder, "rollout").values()
    back = {**body, "phase": "rolled_back", "reason": "canary: worse", "effects": ["SetWeight 0"]}
    store = store_of(folder)
    store.commit(Entry("loop", "rollout.rolled_back", MODEL, {}, back))
    store.commit(Entry("loop", "training.refused", MODEL, {}, {"decision": f"{MODEL}-5", "because": "300 rows <few>"}))
    store.close()
    page = written(folder)
    assert {row["version"]: row["outcome"] for row in page.facts["retrains"]}[version] == "rolled back"
    assert by_path(page)["refused.0.because"].text == "300 rows <few>"
    assert f"{version} rolled back: canary: worse" in [one["words"] for one in page.facts["story"]]
    assert "no training: 300 rows <few>" in page.texts


def test_a_month_without_enough_labels_is_a_gap(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    months = [{"month": "2026-02", "frozen": None, "loop": None}, summary["auroc"]["by_month"][1]]
    changed(folder, auroc={**summary["auroc"], "by_month": months})
    page = written(folder)
    assert by_path(page)["summary.auroc.by_month.0.loop"].text == "unknown"
    assert "2026-02: too few labels" in page.texts
    assert "2026-03 loop: 0.5662" in page.texts


def test_twenty_thousand_ticks_are_drawn_as_what_can_be_seen(tmp_path: Path) -> None:
    """And the page says so; no extreme and no breach is lost."""
    folder, count = copied(tmp_path), 20_000
    summary = json.loads((folder / "summary.json").read_text())
    start, end = AT, datetime.fromisoformat(summary["to"])
    at = [start + (end - start) * place / count for place in range(count)]
    values = [0.01 * (place % 97) / 97 for place in range(count)]
    values[12_345] = 0.9
    verdicts = ["BREACH" if place == 12_345 else "OK" for place in range(count)]
    one = pl.DataFrame({"at": at, "value": values, "verdict": verdicts}).with_columns(
        name=pl.lit("psi"), threshold=0.2, bound=0.0, n=10, window=pl.lit("1d"), reason=pl.lit("because")
    )
    one = one.with_columns(model=pl.lit("a"), version=pl.lit("v1"), worst=pl.lit([], pl.List(pl.String)))
    schema = pl.read_parquet(folder / "kpis.parquet").schema
    frames = [one.with_columns(name=pl.lit(name)) for name in ("psi", "range_z", "latency_p95_ms", "other")]
    pl.concat(frames).select(pl.col(name).cast(kind) for name, kind in schema.items()).write_parquet(
        folder / "kpis.parquet"
    )
    changed(folder, evaluations=count)
    page = written(folder)
    psi = page.facts["kpis"][0]
    assert psi["ticks"] == count
    assert psi["drawn"] < 1000
    assert max(point[2] for point in psi["points"]) == 0.9
    assert [point[3] for point in psi["points"]].count("BREACH") == 1
    assert psi["verdicts"]["BREACH"] == 1
    assert any("more than can be drawn" in text for text in page.texts)
    assert (folder / PAGE).stat().st_size < 1_500_000
    assert not any("more than can be drawn" in text for text in the_page().texts)


def test_thinning_keeps_ticks_extremes_and_the_worst_verdict() -> None:
    scale = TimeScale(AT, AT + timedelta(days=10), 0, 10)
    rows = [
        {"at": AT + timedelta(hours=n), "value": float(n), "verdict": "OK", "reason": "", "bound": None}
        for n in range(240)
    ]
    rows[30] |= {"value": None, "verdict": "INCONCLUSIVE", "reason": "no rows"}
    rows[31] |= {"value": -5.0, "verdict": "BREACH", "reason": "fell"}
    ticks = pl.DataFrame(rows, schema_overrides={"bound": pl.Float64})
    thinned = points(ticks, scale)
    assert len(thinned) == 10
    assert sum(point.ticks for point in thinned) == 240
    assert (thinned[1].low, thinned[1].high, thinned[1].verdict, thinned[1].reason) == (-5.0, 47.0, "BREACH", "fell")
    assert [point.low for point in points(ticks[:10], scale)] == ticks["value"][:10].to_list()


def finding(verdict: str, kpi: str, *drifts: bool | None) -> dict[str, Any]:
    columns = [{"name": f"c{n}", "drift": drift, "reason": "too short"} for n, drift in enumerate(drifts)]
    return {"kpis": {kpi: {"verdict": verdict}}, "columns": columns}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (finding("BREACH", "psi", True, True), "Drifting: c0, c1."),
        (finding("BREACH", "auroc", False, False), "how the labels relate to the inputs that changed (concept drift)"),
        (finding("BREACH", "latency_p95_ms", False), "No column drifted: the KPI itself moved"),
        (finding("BREACH", "auroc", None, None), "No claim about single columns could be made: too short"),
        (finding("BREACH", "auroc"), "No column had rows"),
        (
            {"kpis": {}, "columns": [{"name": "_score", "drift": True, "reason": ""}]},
            "No input drifted, but the model's scores did.",
        ),
    ],
)
def test_why_says_what_the_inputs_say_and_no_more(found: dict[str, Any], said: str) -> None:
    assert said in why(found)


def test_a_folder_that_is_no_replay_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no summary\.json, control\.db, kpis\.parquet"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        write_report(tmp_path / "nowhere")
