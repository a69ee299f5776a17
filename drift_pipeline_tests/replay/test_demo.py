"""The demo's judges: what each act has to look like, and that another ending is not passed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drift_pipeline.control.audit import AuditRecord, Entry, seal
from drift_pipeline.replays.demo import DAYS, acts_of, start_of
from drift_pipeline.spec import read_spec
from drift_pipeline.telemetry.synthetic import synthetic_history
from drift_pipeline_tests.replay.worlds import drift

START = datetime(2026, 7, 20, tzinfo=UTC)
GOOD = (
    *("incident.opened", "decision.made", "training.started", "candidate.trained", "candidate.proven"),
    *("rollout.shadow", "rollout.awaiting_approval", "approval.accepted", "rollout.canary", "rollout.full"),
    *("model.promoted", "reference.frozen"),
)
BACK = ("incident.opened", "candidate.proven", "rollout.shadow", "rollout.canary", "rollout.rolled_back")


def fault(act: int, events: tuple[str, ...]) -> str:
    found = acts_of(START)[act - 1]
    found.records += [record(event) for event in events]
    return found.fault


def record(event: str) -> AuditRecord:
    return seal(Entry("loop", event, "recommendation_v3"), START)


@pytest.mark.parametrize(
    ("act", "events"), [(1, ("model.adopted", "reference.frozen")), (2, GOOD), (3, BACK), (3, ("decision.made", *BACK))]
)
def test_an_act_that_ends_as_it_should_has_no_fault(act: int, events: tuple[str, ...]) -> None:
    assert fault(act, events) == ""


@pytest.mark.parametrize(
    ("act", "events", "said"),
    [
        (1, ("incident.opened",), "incident.opened on traffic in which nothing changed"),
        (1, ("monitoring.undecided",), "monitoring.undecided on traffic"),
        (1, ("training.started",), "training.started on traffic"),
        (2, (), "no incident.opened came"),
        (2, GOOD[:-2], "no model.promoted came"),
        (2, tuple(event for event in GOOD if event != "approval.accepted"), "no approval.accepted came"),
        (2, GOOD[::-1], "came"),
        (3, BACK[:-1], "no rollout.rolled_back came"),
        (3, (*BACK, "model.promoted"), "became champion"),
        (3, GOOD, "became champion"),
    ],
)
def test_an_act_that_ends_otherwise_says_what_is_wrong(act: int, events: tuple[str, ...], said: str) -> None:
    assert said in fault(act, events)


@pytest.mark.parametrize("day", range(14))
def test_the_demo_starts_on_a_monday_and_is_over_by_now_within_a_week(day: int) -> None:
    now = datetime(2026, 11, 23, 0, 0, tzinfo=UTC) + timedelta(days=day, hours=13)
    start = start_of(now)
    assert (start.weekday(), start.hour) == (0, 0)
    assert now - timedelta(days=7) < start + timedelta(days=DAYS) <= now


def test_the_packaged_spec_names_the_columns_that_the_traffic_has() -> None:
    spec = read_spec(Path(__file__).parents[2] / "drift_pipeline/defs/recommendation_v3/defs.yaml")
    columns = synthetic_history(1, 20, 0, score=False).columns
    named = [value for value in spec.columns.model_dump().values() if value]
    assert {*spec.watched, *named, spec.outcome.column} <= set(columns)


def test_a_home_that_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for options in ((), ("--overwrite",)):
        ended = drift("demo", "--home", tmp_path, *options)
        assert (ended.code, ended.out) == (2, "")
        assert "--home" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "seed",
    [pytest.param(1, marks=pytest.mark.live), *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4))],
)
def test_other_seeds_end_as_they_should_as_well(tmp_path: Path, seed: int) -> None:
    ended = drift("demo", "--home", tmp_path / "home", "--seed", seed, "--json")
    assert ended.code == 0, ended.err
    assert ended.summary["passed"] is True
    assert drift("audit", "verify", "--home", tmp_path / "home").code == 0
    evidence, keys, registry = (tmp_path / "home" / name for name in ("evidence", "trust", "registry"))
    assert drift("verify", evidence, "--home", tmp_path / "home", "--registry", registry).code == 0
    for path in (one for one in sorted(evidence.rglob("*")) if one.is_file()):
        sound = path.read_bytes()
        path.write_bytes(sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:])
        ended = drift("verify", evidence, "--keys", keys)
        assert (ended.code, f"{path}: NOT VERIFIED" in ended.out) == (1, True), path
        path.write_bytes(sound)
    assert drift("verify", evidence, "--keys", keys).code == 0
