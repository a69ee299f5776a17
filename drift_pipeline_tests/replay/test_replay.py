"""A replay runs the whole loop, sees nothing before its time, and leaves a folder that proves what it did."""

import base64
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import AuditRecord, ControlStore, Record
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.telemetry.lake import Table
from drift_pipeline_tests.evidence.worlds import read_json
from drift_pipeline_tests.replay.worlds import (
    BASELINE_AT,
    ROWS_PER_DAY,
    SPEC,
    TURN,
    Ended,
    data,
    drift,
    folder,
    history,
    landed,
    replay,
    replayed,
)

TURNED = BASELINE_AT + timedelta(days=TURN - 28)
KEYS = {
    *("model", "rows", "from", "to", "evaluations", "auroc", "incidents", "decisions", "retrains", "promotions"),
    *("rollbacks", "rejected_candidates", "alerts", "audit", "wall_seconds", "partial"),
}


def the_summary() -> dict[str, Any]:
    return replayed()[0].summary


def opened(out: Path) -> ControlStore:
    return ControlStore(f"sqlite:///{out / 'control.db'}", ManualClock(BASELINE_AT))


def records(out: Path) -> list[AuditRecord]:
    store = opened(out)
    try:
        return list(store.records())
    finally:
        store.close()


def state(out: Path, kind: str) -> list[Record]:
    store = opened(out)
    try:
        return store.find(kind)
    finally:
        store.close()


def did(summary: dict[str, Any], before: datetime | None = None) -> dict[str, Any]:
    """What may be compared between two replays: all but digests, and the time it took."""
    retrains = [
        {**r, "cost": None} for r in summary["retrains"] if before is None or datetime.fromisoformat(r["at"]) < before
    ]
    return {"retrains": retrains} | (
        {} if before else {k: summary[k] for k in KEYS - {"audit", "wall_seconds", "retrains"}}
    )


RANDOM = ("candidate", "champion", "approver", "key_id", "public", "file", "files")  # another one in each run


def told(out: Path, before: datetime | None = None) -> list[tuple[str, str, str]]:
    """(time, event, details without what differs from run to run: digests, and a measured latency)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("name") == "latency":
                return "latency"
            return {k: plain(v) for k, v in sorted(value.items()) if k not in RANDOM}
        if isinstance(value, list):
            return [plain(v) for v in value if not (isinstance(v, str) and "sha256:" in v)]
        return value

    return [
        (r.at, r.event, json.dumps(plain(r.details)))
        for r in records(out)
        if before is None or datetime.fromisoformat(r.at) < before
    ]


# the whole loop


def test_the_drift_is_noticed_and_a_candidate_trained_for_it_is_accepted() -> None:
    ended, _ = replayed()
    summary = ended.summary
    assert ended.code == 0
    assert ended.complaints == []
    by_drift = [r for r in summary["retrains"] if r["cause"] in ("drift", "hotfix") and r["accepted"]]
    assert by_drift
    assert datetime.fromisoformat(by_drift[0]["at"]) >= TURNED
    assert by_drift[0]["auroc_after"] > by_drift[0]["auroc_before"] + 0.05
    assert summary["incidents"] >= 1
    assert summary["alerts"] >= 1
    assert summary["promotions"] >= 1
    assert summary["auroc"]["loop"] > summary["auroc"]["frozen"]


def test_a_rollout_passes_every_phase_in_order_and_the_reference_is_made_again() -> None:
    _, out = replayed()
    events = [r.event for r in records(out)]
    last = len(events) - 1 - events[::-1].index("model.promoted")
    start = len(events[:last]) - 1 - events[:last][::-1].index("rollout.shadow")
    assert [e for e in events[start:] if e.split(".")[0] in ("rollout", "approval", "model", "reference")] == [
        "rollout.shadow",
        "rollout.awaiting_approval",
        "approval.accepted",
        "rollout.canary",
        "rollout.full",
        "model.promoted",
        "reference.frozen",
    ]
    assert events.count("reference.frozen") == 1 + events.count("model.promoted")


def test_each_card_tells_its_rollout_to_its_end_and_the_rules_that_decided_its_training() -> None:
    _, out = replayed()
    told = records(out)
    decided = {one.details["decision"]: one.policy_digest for one in told if one.event == "decision.made"}
    trained = {one.details["version"]: one for one in told if one.event == "candidate.trained"}
    assert trained
    for version, training in trained.items():
        card = read_json(out / "evidence" / "recommendation_v3" / version / "card.json")
        fields = {field["id"]: field for section in card["sections"] for field in section["fields"]}
        assert fields["lineage.policy_digest"]["value"] == decided[training.details["decision"]]
        assert not [field for field in fields.values() if field["state"] == "NOT_RECORDED"]
        steps = [
            (one.details["rollout_id"], one.details["phase"], one.details["since"])
            for one in told
            if one.event.startswith("rollout.") and one.details["candidate"] == training.digests["bundle"]
        ]
        shown = fields["rollout.phases"]["value"] if "rollout.phases" in fields else []
        assert [(step["rollout"], step["phase"], step["since"]) for step in shown] == steps
        assert not steps or card["at"] >= steps[-1][2]


def test_the_summary_has_what_was_asked_for() -> None:
    summary = the_summary()
    assert summary.keys() >= KEYS
    assert summary["auroc"].keys() >= {"frozen", "loop", "by_month"}
    assert all(month.keys() == {"month", "frozen", "loop"} for month in summary["auroc"]["by_month"])
    assert summary["audit"].keys() == {"records", "head", "verified"}
    assert all(
        r.keys() == {"at", "cause", "decision_id", "version", "accepted", "auroc_before", "auroc_after", "cost"}
        for r in summary["retrains"]
    )
    assert summary["rows"] == history().height
    assert summary["partial"] is False
    assert json.loads((replayed()[1] / "summary.json").read_text()) == summary


def test_the_summary_counts_what_the_audit_holds() -> None:
    summary, out = the_summary(), replayed()[1]
    events = [r.event for r in records(out)]
    assert summary["audit"]["records"] == len(events)
    assert summary["audit"]["head"] == records(out)[-1].hash
    assert summary["promotions"] == events.count("model.promoted") == events.count("rollout.full")
    assert summary["rollbacks"] == events.count("rollout.rolled_back")
    assert summary["rejected_candidates"] == events.count("candidate.rejected")
    assert len(summary["retrains"]) == events.count("candidate.proven") + events.count("candidate.rejected")
    assert sum(summary["decisions"].values()) == events.count("decision.made")
    keys = {r.details["key"] for r in records(out) if r.event in ("incident.opened", "incident.reopened")}
    assert summary["incidents"] == len(keys)
    assert summary["alerts"] == len((out / "alerts.jsonl").read_text().splitlines())


def test_a_retrain_names_the_decision_that_asked_for_it() -> None:
    summary, out = the_summary(), replayed()[1]
    by_id = {r.details["decision"]: r for r in records(out) if r.event == "decision.made"}
    for retrain in summary["retrains"]:
        decision = by_id[retrain["decision_id"]]
        assert decision.event == "decision.made"
        assert decision.details["action"] in ("retrain", "hotfix_retrain")
        assert decision.policy_digest is not None


def test_the_reference_span_is_not_in_the_months() -> None:
    assert the_summary()["auroc"]["by_month"][0]["month"] == f"{BASELINE_AT:%Y-%m}"


def test_recorded_scores_are_what_is_served_until_the_first_promotion() -> None:
    served = landed(replayed()[1], "predictions")
    first = next(r for r in records(replayed()[1]) if r.event == "rollout.canary")
    early = served.filter(pl.col("_time") < datetime.fromisoformat(first.at))
    assert early["_version"].unique().to_list() == ["recorded"]
    both = early.join(history(), left_on="_id", right_on="prediction_id")
    assert both.height == early.height > 0
    assert (both["_score"] == both["score"]).all()


def test_the_canary_answers_about_its_weight() -> None:
    served = landed(replayed()[1], "predictions").filter(pl.col("_route") == "canary")
    days = served["_time"].dt.date().n_unique()
    assert 0.03 < served.height / (days * ROWS_PER_DAY) < 0.2


def test_no_row_is_served_twice_or_lost() -> None:
    served = landed(replayed()[1], "predictions")
    assert sorted(served["_id"]) == sorted(history()["prediction_id"])


def test_nothing_is_left_beside_the_result() -> None:
    assert sorted(p.name for p in folder().iterdir() if p.name.startswith(".")) == []


# what the store holds afterwards: the invariants of the faults


def test_i1_there_is_exactly_one_champion_and_it_is_the_last_promoted() -> None:
    _, out = replayed()
    (champion,) = state(out, "model")
    promoted = [r for r in records(out) if r.event == "model.promoted"]
    assert champion.body["digest"] == promoted[-1].digests["bundle"]


def test_i2_no_digest_went_beyond_the_shadow_without_an_approval() -> None:
    approved: set[str] = set()
    for record in records(replayed()[1]):
        if record.event == "approval.accepted":
            approved.add(record.digests["bundle"])
        if record.event in ("rollout.canary", "rollout.full"):
            assert record.digests["candidate"] in approved
    assert approved


def test_i3_every_generation_of_state_has_its_audit_record() -> None:
    _, out = replayed()
    events = [r.event for r in records(out)]
    (rollout,) = state(out, "rollout")
    assert rollout.generation == sum(e.startswith("rollout.") for e in events)
    (model,) = state(out, "model")
    assert model.generation == events.count("model.adopted") + events.count("rollout.full")
    (incident,) = state(out, "incident")
    changes = sum(e.startswith(("incident.", "monitoring.")) for e in events)
    assert incident.generation == events.count("reference.frozen") + changes
    candidates = state(out, "candidate")
    assert len(candidates) == events.count("candidate.trained")
    assert sum(candidate.generation for candidate in candidates) == sum(e.startswith("candidate.") for e in events)


def test_i4_the_rollback_target_of_every_rollout_is_there_and_whole() -> None:
    _, out = replayed()
    registry = LocalRegistry(out / "registry")
    for record in records(out):
        if record.event.startswith("rollout."):
            target = record.details["champion"]
            assert target == "recorded" or registry.get(target).digest == target


def test_i6_no_candidate_with_an_unknown_or_failed_gate_passed() -> None:
    for candidate in state(replayed()[1], "candidate"):
        outcomes = {result["outcome"] for result in candidate.body["results"]}
        assert candidate.body["passed"] is (outcomes == {"pass"})


def test_every_approval_says_that_it_is_a_replays() -> None:
    _, out = replayed()
    files = sorted((out / "gitops" / "approvals").rglob("*.dsse.json"))
    assert files
    for file in files:
        said = json.loads(base64.b64decode(json.loads(file.read_text())["payload"]))
        assert said["label"] == "replay-only"
        assert said["environment"] == "replay"
        assert said["approver"] != said["trainer"]
    for key in (out / "keys").glob("*.json"):
        assert json.loads(key.read_text())["label"] == "replay-only"
    private = [path.name for path in (out / "keys").glob("*.pem")]
    assert private == ["trainer.pem"], "who approved in a replay dies with it; the home's own key goes on with the home"


# nothing looks ahead


def poisoned(path: Path, labels_from: datetime, features_from: datetime) -> Path:
    """The world with every label turned, and every feature and score spoilt, from two moments on."""
    late = pl.col("ts") >= features_from
    history().with_columns(
        clicked=pl.when(pl.col("ts") >= labels_from).then(1 - pl.col("clicked")).otherwise("clicked"),
        session_length_s=pl.when(late).then(pl.col("session_length_s") * 50 + 7).otherwise("session_length_s"),
        items_viewed=pl.when(late).then(0).otherwise("items_viewed"),
        price_eur=pl.when(late).then(None).otherwise("price_eur"),
        device=pl.when(late).then(pl.lit("toaster")).otherwise("device"),
        latency_ms=pl.when(late).then(9e6).otherwise("latency_ms"),
        score=pl.when(late).then(1 - pl.col("score")).otherwise("score"),
        age_band=pl.when(late).then(None).otherwise("age_band"),
    ).write_parquet(path)
    return path


def test_nothing_before_a_moment_knows_what_comes_after_it(tmp_path: Path) -> None:
    moment = next(
        datetime.fromisoformat(r["at"]) + timedelta(days=2)
        for r in the_summary()["retrains"]
        if r["cause"] != "schedule" and r["accepted"]
    )
    data = poisoned(tmp_path / "poisoned.parquet", moment - timedelta(hours=6), moment)
    ended = replay(data, tmp_path / "out")
    _, clean = replayed()
    assert ended.code == 0, ended.err
    assert did(ended.summary, moment)["retrains"]
    assert did(ended.summary, moment) == did(the_summary(), moment)
    assert told(tmp_path / "out", moment) == told(clean, moment)
    columns = ["_id", "_version", "_route", "_score"]
    tables: tuple[Table, ...] = ("predictions", "shadow")
    for table in tables:
        sides = [landed(out, table).filter(pl.col("_time") < moment) for out in (tmp_path / "out", clean)]
        kept = [c for c in columns if c in sides[0].columns]
        assert sides[0].height > 0
        assert sides[0].select(kept).equals(sides[1].select(kept))
    assert told(tmp_path / "out") != told(clean), "the poison was seen once its time had come"


@pytest.mark.live
def test_a_label_is_not_known_before_a_long_delay_is_over(tmp_path: Path) -> None:
    """The scheduled training of 2 March cannot tell that the labels of the ten days before it were turned round."""
    at = datetime.fromisoformat("2026-03-02T00:00:00+00:00")
    options = ("--set", "outcome.delay=10d", "--to", "2026-03-05", "--triggers", "schedule")
    dirty = poisoned(tmp_path / "dirty.parquet", at - timedelta(days=10), at)
    seen: dict[str, dict[str, Any]] = {}
    for name, source in (("clean", data()), ("dirty", dirty)):
        ended = replay(source, tmp_path / name, *options)
        assert ended.code in (0, 3), ended.err
        (retrain,) = ended.summary["retrains"]
        seen[name] = {**retrain, "cost": None}
    assert seen["clean"] == seen["dirty"]
    outcomes = landed(tmp_path / "clean", "outcomes").join(history(), left_on="_id", right_on="prediction_id")
    assert (outcomes["_observed_at"] - outcomes["ts"]).unique().to_list() == [timedelta(days=10)]


# the same again


def test_the_same_seed_does_the_same_whatever_the_files_are_called(tmp_path: Path) -> None:
    """CSV for Parquet, labels in a file of their own, the time column given by option, the spec as a defs.yaml."""
    history().drop("clicked").write_csv(tmp_path / "history.csv")
    history().select("prediction_id", "clicked").sample(fraction=1, shuffle=True, seed=1).write_csv(tmp_path / "y.csv")
    flat = SPEC.replace("  timestamp: ts\n", "")
    nested = "type: drift_pipeline.components.MonitoredModel\nattributes:\n"
    nested += "".join(f"  {line}\n" for line in flat.splitlines())
    options = ("--timestamp", "ts", "--outcomes", tmp_path / "y.csv", "--seed", 0)
    ended = replay(tmp_path / "history.csv", tmp_path / "out", *options, spec=nested)
    assert ended.code == 0, ended.err
    assert did(ended.summary) == did(the_summary())
    assert told(tmp_path / "out") == told(replayed()[1])
    assert "8,400 labels joined, 0 name no prediction" in ended.summary["notes"][0]


# options


def test_without_recorded_scores_a_first_model_is_trained_on_the_older_part_of_the_reference(tmp_path: Path) -> None:
    spec = SPEC.replace("{score: score, threshold: 0.5}", "{threshold: 0.5}")
    ended = replay(data(), tmp_path / "out", "--to", "2026-02-09", spec=spec)
    assert ended.code == 0, ended.err
    served = landed(tmp_path / "out", "predictions")
    assert served.filter(pl.col("_time") < BASELINE_AT)["_score"].null_count() == ROWS_PER_DAY * 28
    assert served.filter(pl.col("_time") >= BASELINE_AT)["_version"].unique().to_list() == ["v1"]
    auroc = ended.summary["auroc"]
    assert auroc["frozen"] == auroc["loop"] > 0.7
    (adopted,) = (r for r in records(tmp_path / "out") if r.event == "model.adopted")
    assert adopted.details["rows"] == pytest.approx(0.8 * 28 * ROWS_PER_DAY, abs=ROWS_PER_DAY)


def test_from_to_and_step_choose_rows_and_ticks(tmp_path: Path) -> None:
    ended = replay(data(), tmp_path / "out", "--from", "2026-01-10", "--to", "2026-02-10T12:00Z", "--step", "6h")
    inside = history().filter(pl.col("ts").is_between(pl.lit("2026-01-10").str.to_datetime(time_zone="UTC"),
        pl.lit("2026-02-10 12:00").str.to_datetime(time_zone="UTC"), closed="left"))  # fmt: skip
    assert ended.summary["rows"] == inside.height
    assert ended.summary["evaluations"] == (31.5 - 28) * 4
    assert ended.summary["from"] == inside["ts"][0].isoformat()


def test_an_hourly_step_serves_the_same_rows(tmp_path: Path) -> None:
    ended = replay(data(), tmp_path / "out", "--to", "2026-02-05", "--step", "1h")
    assert ended.code == 0, ended.err
    assert ended.summary["evaluations"] == 3 * 24
    assert landed(tmp_path / "out", "predictions").height == 31 * ROWS_PER_DAY


@pytest.mark.parametrize("triggers", ["drift", "schedule"])
def test_only_the_triggers_that_were_chosen_retrain(tmp_path: Path, triggers: str) -> None:
    ended = replay(data(), tmp_path / "out", "--triggers", triggers, "--to", "2026-03-05")
    assert ended.code == 0, ended.err
    assert {r["cause"] for r in ended.summary["retrains"]} == {triggers}


def test_labels_that_dry_up_refuse_the_training_and_not_the_replay(tmp_path: Path) -> None:
    dry = history().with_columns(clicked=pl.when(pl.col("ts") < BASELINE_AT).then("clicked"))
    dry.write_parquet(tmp_path / "dry.parquet")
    options = ("--to", "2026-03-05", "--triggers", "schedule", "--set", "retrain.window=20d")
    ended = replay(tmp_path / "dry.parquet", tmp_path / "out", *options)
    assert ended.code == 3, ended.err
    assert ended.summary["retrains"] == []
    (refused,) = (r for r in records(tmp_path / "out") if r.event == "training.refused")
    assert "no labelled row between 2026-02-10" in refused.details["because"]


def test_a_replays_folder_verifies() -> None:
    verified: Ended = drift("audit", "verify", "--home", replayed()[1], "--json")
    assert verified.code == 0
    assert verified.summary["ok"] is True
    assert verified.summary["records"] == verified.summary["covered_by_checkpoint"] == the_summary()["audit"]["records"]
