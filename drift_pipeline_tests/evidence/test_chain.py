"""The causal chain of a version: every record that it came of, in order, and what it lacks, said."""

import json
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import drift_pipeline as dp
from drift_pipeline.control.audit import AuditRecord, Entry, seal
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.chain import Chain, Stage, chain_of
from drift_pipeline.pages.live import CHAIN
from drift_pipeline.replays.chains import chain_page
from drift_pipeline_tests.pages.worlds import app_of, ask, settings_of
from drift_pipeline_tests.replay.worlds import MODEL, drift, replayed
from drift_pipeline_tests.test_cli_live import adopted, adopted_once, place

__all__ = ["adopted", "adopted_once", "place"]

Told = tuple[str, dict[str, Any], dict[str, str]]
TRAINED = [stage for stage in Stage if stage is not Stage.ADOPTION]
ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")
BREACH = {
    "verdict": "BREACH",
    "window": "1d",
    "value": -0.2,
    "threshold": -0.05,
    "bound": -0.1,
    "n": 900,
    "reason": "r",
}
GATE = {"name": "auroc", "outcome": "pass", "reason": "better", "value": 0.1, "limit": 0, "bound": 0.05}
PROOF = {"auroc": {"before": 0.6, "after": 0.7}, "proven_on": {"rows": 500, "from": "2026-01-01"}, "results": [GATE]}


@pytest.fixture(scope="module")
def home() -> dp.Home:
    return dp.open_home(replayed()[1])


@pytest.fixture(scope="module")
def shipped(home: dp.Home) -> Chain:
    """Of the version that a drift brought forth and that took over first."""
    reigns = replayed()[0].summary["reigns"]
    return home.chain(MODEL, reigns[1]["version"])


def test_a_version_that_a_drift_brought_forth_has_every_stage_and_lacks_nothing(shipped: Chain) -> None:
    assert (shipped.stages, shipped.lacks) == (TRAINED, ())
    first: dict[Stage, int] = {stage: shipped.of(stage)[0].seq for stage in TRAINED}
    order = [Stage.BREACH, Stage.INCIDENT, Stage.DATA, Stage.CANDIDATE, Stage.GATES, Stage.APPROVALS, Stage.OUTCOME]
    assert [first[stage] for stage in order] == sorted(first[stage] for stage in order)


def test_each_step_is_a_record_of_the_chain_with_its_hash_time_actor_and_digests(home: dp.Home, shipped: Chain) -> None:
    records = {record.seq: record for record in home.records(MODEL)}
    for step in shipped.steps:
        record = records[step.seq]
        assert (step.at, step.actor, step.event, step.hash) == (record.at, record.actor, record.event, record.hash)
        assert (step.digests, step.policy_digest) == (record.digests, record.policy_digest)
    assert [step.seq for step in shipped.steps] == sorted(step.seq for step in shipped.steps)


def test_it_tells_the_numbers_that_the_records_hold(home: dp.Home, shipped: Chain) -> None:
    (opened,) = [step for step in shipped.of(Stage.BREACH) if step.event == "incident.opened"]
    (record,) = [one for one in home.records(MODEL) if one.seq == opened.seq]
    for told in opened.facts["kpis"]:
        kpi = record.details["kpis"][told["kpi"]]
        assert {name: kpi[name] for name in told if name != "kpi"} == {k: v for k, v in told.items() if k != "kpi"}
    (pinned,) = shipped.of(Stage.DATA)
    assert set(pinned.facts["delta"]) == {"predictions", "outcomes"}
    (trained,) = [step for step in shipped.of(Stage.CANDIDATE) if step.event == "candidate.trained"]
    assert trained.digests == {"bundle": shipped.digest}
    assert re.fullmatch("[0-9a-f]{64}", trained.facts["trainer"])
    assert shipped.of(Stage.DECISION)[-1].policy_digest is not None
    assert [gate["outcome"] for gate in shipped.of(Stage.GATES)[0].facts["gates"]] == ["pass"] * 6


def test_it_goes_by_the_digest_too_and_without_a_version_it_is_of_what_answers(home: dp.Home, shipped: Chain) -> None:
    assert home.chain(MODEL, shipped.digest) == shipped
    assert home.chain(MODEL).version == home.models()["answers"][0]


def test_a_first_version_has_a_short_chain(home: dp.Home) -> None:
    assert home.chain(MODEL, "recorded").stages == [Stage.ADOPTION, Stage.OUTCOME]


def test_an_unknown_version_is_refused_with_those_that_there_are(home: dp.Home) -> None:
    with pytest.raises(InputError, match=r"no version 'v99'; there are: recorded, v2"):
        home.chain(MODEL, "v99")
    assert drift("audit", "show", MODEL, "v99", "--home", home.settings.home).code == 2
    assert drift("audit", "show", "fraud", "--home", home.settings.home).code == 2


SHIPPED = ("approvals", "rollout", "outcome")


def records(*told: Told) -> list[AuditRecord]:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    made = [
        seal(Entry("loop", event, "fraud", digests, said), at, n) for n, (event, said, digests) in enumerate(told, 1)
    ]
    return [record for record in made if record.subject == "fraud"]


def decided(number: int, trigger: str, incident: str | None) -> Told:
    said = {"decision": f"fraud-{number}", "trigger": trigger, "incident": incident, "reasons": ["x"]}
    return "decision.made", {**said, "action": "retrain"}, {}


def rollout(phase: str, candidate: str, champion: str) -> Told:
    said = {"rollout_id": "fraud-v2", "candidate": candidate, "champion": champion, "phase": phase, "effects": []}
    digests = {"candidate": candidate, "champion": champion}
    return f"rollout.{phase}", {**said, "since": "2026-06-01T00:00:00+00:00", "reason": "because"}, digests


ADOPTED: Told = ("model.adopted", {"version": "v1", "rows": 9}, {"bundle": ONE})
OPENED: Told = ("incident.opened", {"key": "k", "kpis": {"auroc": BREACH}, "features": []}, {})
STARTED: Told = (
    "training.started",
    {"decision": "fraud-2", "version": "v2", "rows": 9, "block": 3, "predictions": 1},
    {},
)
FITTED: Told = ("candidate.trained", {"decision": "fraud-2", "version": "v2", "rows": 6}, {"bundle": TWO})
PROVEN: Told = ("candidate.proven", {"decision": "fraud-2", "version": "v2", **PROOF}, {"bundle": TWO})
REJECTED: Told = ("candidate.rejected", {"decision": "fraud-2", "version": "v2", **PROOF}, {"bundle": TWO})
ROLLED_OUT = (rollout("shadow", TWO, ONE), rollout("full", TWO, ONE))
KEY = "ab" * 32
WAIVED: Told = (
    "waiver.given",
    {"gate": "poison_floor", "version": "v2", "reason": "looked at", "approver": KEY},
    {"bundle": TWO},
)


@pytest.mark.parametrize(
    ("told", "lacking"),
    [
        ([decided(2, "schedule", None), STARTED, FITTED, PROVEN], {"breach", "incident", *SHIPPED}),
        ([decided(2, "drift", "k"), FITTED], {"breach", "incident", "data", "gates", *SHIPPED}),
        ([FITTED, REJECTED], {"breach", "incident", "decision", "data", *SHIPPED}),
        ([OPENED, decided(2, "drift", "k"), STARTED, FITTED, PROVEN, *ROLLED_OUT], {"approvals"}),
    ],
    ids=["by the calendar", "not proven yet", "nobody decided, rejected", "shipped without approval"],
)
def test_what_a_chain_lacks_is_said(told: list[Told], lacking: set[str]) -> None:
    found = chain_of(records(ADOPTED, *told), "fraud", "v2")
    assert {str(stage) for stage, _ in found.lacks} == lacking
    assert all(why for _, why in found.lacks)
    page = chain_page(found)
    for stage, why in found.lacks:
        assert f"no {stage}</span> {why.replace(chr(39), '&#39;')}" in page


def test_only_decisions_of_its_incident_and_before_its_own_belong_to_it() -> None:
    told = (ADOPTED, OPENED, decided(1, "drift", "k"), decided(2, "drift", "k"), FITTED, decided(3, "drift", "k"))
    found = chain_of(records(*told, decided(4, "drift", "other")), "fraud", "v2")
    assert [step.facts["decision"] for step in found.of(Stage.DECISION)] == ["fraud-1", "fraud-2"]


def test_a_waiver_stands_with_the_approvals_and_another_version_s_does_not() -> None:
    other = (
        "waiver.given",
        {"gate": "poison_floor", "version": "v3", "reason": "x", "approver": KEY},
        {"bundle": THREE},
    )
    found = chain_of(records(ADOPTED, decided(2, "drift", "k"), FITTED, WAIVED, other), "fraud", "v2")
    assert [step.event for step in found.of(Stage.APPROVALS)] == ["waiver.given"]


def test_who_is_taken_over_from_answers_no_more_and_again_after_a_rollback() -> None:
    told = (*ROLLED_OUT, rollout("rolled_back", TWO, ONE))
    found = chain_of(records(ADOPTED, FITTED, *told), "fraud", "v1")
    assert [step.words.partition(":")[0] for step in found.of(Stage.OUTCOME)] == [
        "v1 answers no more",
        "v1 answers again",
    ]
    never = chain_of(
        records(ADOPTED, FITTED, rollout("shadow", TWO, ONE), rollout("rolled_back", TWO, ONE)), "fraud", "v1"
    )
    assert never.of(Stage.OUTCOME) == []


def test_the_command_prints_every_step_and_as_json_every_digest(home: dp.Home, shipped: Chain) -> None:
    told = drift("audit", "show", MODEL, shipped.version, "--home", home.settings.home)
    assert (told.code, told.complaints) == (0, [])
    heads = re.findall(r"^ +(\d+)  ([a-z]+) +\d{4}-", told.out, flags=re.MULTILINE)
    assert heads == [(str(step.seq), str(step.stage)) for step in shipped.steps]
    document = json.loads(drift("audit", "show", MODEL, shipped.version, "--home", home.settings.home, "--json").out)
    assert document == json.loads(json.dumps(shipped.to_json()))


def test_a_home_is_read_and_a_read_only_copy_of_it_tells_the_same(tmp_path: Path, shipped: Chain) -> None:
    copy = shutil.copytree(replayed()[1], tmp_path / "copy")
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        before = files(copy)
        assert dp.open_home(copy).chain(MODEL, shipped.version) == shipped
        assert files(copy) == before
    finally:
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def files(folder: Path) -> Iterable[tuple[str, bytes]]:
    return [(str(path), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]


def test_the_page_links_its_boxes_to_its_records_and_to_the_card(tmp_path: Path, shipped: Chain) -> None:
    out = tmp_path / "chain.html"
    assert drift("audit", "show", MODEL, shipped.version, "--home", replayed()[1], "--html", out).code == 0
    page = out.read_text()
    assert {f'id="stage-{stage}"' in page and f'href="#stage-{stage}"' in page for stage in shipped.stages} == {True}
    for step in shipped.steps:
        assert step.hash in page
    (card,) = re.findall(r'<a href="([^"]+card\.html)">', page)
    assert (out.parent / card).resolve().is_file()


def test_the_live_pages_draw_the_same_chain(tmp_path: Path, shipped: Chain) -> None:
    app = app_of(settings_of(tmp_path))
    answer = ask(app, f"/{MODEL}/{shipped.version}/{CHAIN}")
    assert answer.status_code == 200
    drawn = re.findall(r"<svg.*?</svg>", answer.text, flags=re.DOTALL)
    assert drawn == re.findall(r"<svg.*?</svg>", chain_page(shipped), flags=re.DOTALL)
    assert f'href="/{MODEL}/{shipped.version}/card.html"' in answer.text
    assert (ask(app, f"/{MODEL}/v99/{CHAIN}").status_code, ask(app, f"/fraud/v1/{CHAIN}").status_code) == (404, 404)
    assert f"/{MODEL}/{shipped.version}/{CHAIN}" in ask(app, f"/{MODEL}?since=1y").text


def test_a_live_home_s_first_version_was_adopted_and_nothing_else(adopted: Path) -> None:
    told = json.loads(drift("audit", "show", MODEL, "--json").out)
    assert (told["version"], [step["event"] for step in told["steps"]][:2]) == (
        "v1",
        ["model.adopted", "reference.frozen"],
    )
    assert told["steps"][0]["facts"]["trainer"] is not None
    assert told["lacks"] == []


def test_names_of_others_are_text_on_the_page() -> None:
    evil = "<script>alert(1)</script>"
    told = ("approval.refused", {"reason": evil, "rollout": "fraud-v2"}, {"bundle": TWO})
    page = chain_page(chain_of(records(ADOPTED, FITTED, told), "fraud", "v2"))
    assert (evil in page, "alert(1)" in page) == (False, True)
