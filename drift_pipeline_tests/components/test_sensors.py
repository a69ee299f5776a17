"""The loop unattended: what the sensors launch, once, and what becomes of a run that fails."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from drift_pipeline.clock import ManualClock, SystemClock
from drift_pipeline.components.sensors import NONE_DUE, loop_sensors
from drift_pipeline.components.today import Today
from drift_pipeline.control.store import Entry, Message
from drift_pipeline.loop import operating
from drift_pipeline.loop.home import opened
from drift_pipeline.loop.retraining.working import LEASE
from drift_pipeline.settings import Settings
from drift_pipeline_tests.alerts.worlds import listening
from drift_pipeline_tests.components.daemon import FROM_A_FOLDER, Dagster, dagster
from drift_pipeline_tests.components.worlds import MODEL, SPEC, copied, events, records, replayed, store

pytestmark = FROM_A_FOLDER
MINUTE = timedelta(minutes=1)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Dagster]:
    with dagster(copied(tmp_path / "home"), tmp_path) as running:
        yield running


def ask(*, hotfix: bool = False) -> str:
    """A person asks for a retrain; the decision's id."""
    with opened(Settings(), SystemClock()) as at:
        return operating.retrain(at.loop(SPEC), "ada", "the season turned", hotfix=hotfix)[0]


def status(live: Dagster, decision_id: str) -> str:
    """How the decision stands in the control store."""
    with store(Settings().home) as opened_store:
        found = opened_store.get("retrain", f"{MODEL}/{decision_id}")
    assert found is not None
    return str(found.body["status"])


def test_what_drives_the_loops_runs_without_being_switched_on(live: Dagster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFT_TICK_SECONDS")
    sensors = {sensor.name: sensor for sensor in loop_sensors({MODEL: SPEC}, live.repository.get_job("submit_rollout"))}
    assert {name: sensor.minimum_interval_seconds for name, sensor in sensors.items()} == {
        "loop_tick": 5,
        "rollout_tick": 5,
        "documents": 10,
        "retrain_failed": 30,
        "retrain_canceled": 30,
        "lineage": 60,
    }
    running = dg.DefaultScheduleStatus.RUNNING
    schedules = {schedule.name for schedule in live.repository.schedule_defs if schedule.default_status is running}
    assert schedules == {"retrain_when_due", "report_yesterday"}
    assert {one.default_status.value for one in live.repository.sensor_defs} == {"RUNNING"}


def test_channels_are_told_by_a_sensor_of_their_own_and_no_tick_waits_for_them(
    live: Dagster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with listening() as endpoint:
        channel = {"kind": "webhook", "url": endpoint.url, "secret": "HOOK"}
        routes = tmp_path / "alerts.yaml"
        routes.write_text(json.dumps({"channels": {"hook": channel}, "routes": [{"channels": ["hook"]}]}))
        monkeypatch.setenv("DRIFT_ALERTS", str(routes))
        monkeypatch.setenv("HOOK", "whsec_" + base64.b64encode(bytes(24)).decode())
        made = {one.name: one for one in loop_sensors({MODEL: SPEC}, live.repository.get_job("submit_rollout"))}
        with dg.DagsterInstance.ephemeral() as instance:
            made["alerts"](dg.build_sensor_context(instance=instance))  # it tells what comes from now on
            paged("tick.failed")
            made["loop_tick"](dg.build_sensor_context(instance=instance))
            assert endpoint.posted == []
            made["alerts"](dg.build_sensor_context(instance=instance))
            assert [one["data"]["model"] for one in endpoint.documents] == [MODEL]
            paged("rollout.rolled_back")
            monkeypatch.setenv("DRIFT_POLICY", str(tmp_path / "none"))  # rules are nothing that a page wants
            made["alerts"](dg.build_sensor_context(instance=instance))
        assert [one["data"]["what"] for one in endpoint.documents] == ["tick.failed", "rollout.rolled_back"]


def paged(what: str) -> None:
    body = {"model": MODEL, "what": what, "why": "a test", "at": datetime.now(UTC).isoformat()}
    with store(Settings().home) as at:
        at.commit(Entry("test", "test", MODEL), messages=[Message(f"{MODEL}:{what}:{what}", "alerts", body)])


def test_a_model_that_was_looked_at_a_moment_ago_waits_for_its_turn(
    live: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_TICK_SECONDS", "30")
    tick = loop_sensors({MODEL: SPEC}, live.repository.get_job("submit_rollout"))[0]
    told = []
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            result = tick(dg.build_sensor_context(instance=instance))
            assert isinstance(result, dg.SensorResult)
            assert isinstance(result.skip_reason, dg.SkipReason)
            told.append(result.skip_reason.skip_message)
    assert (told[0] or "").startswith(f"{MODEL}: ")
    assert told[1] == NONE_DUE


def test_a_wanted_retrain_is_launched_once_with_its_lane_and_never_again(live: Dagster) -> None:
    decision_id = ask()
    live.evaluate_sensors()
    (run,) = live.queued()
    assert {name: value for name, value in run.tags.items() if name.startswith("drift/")} == {
        "drift/model": MODEL,
        "drift/decision": decision_id,
        "drift/lane": "normal",
        "drift/retrain": MODEL,
        "drift/capacity": "spot",
    }
    assert run.tags["dagster/max_retries"] == "2"
    assert run.asset_selection is not None
    assert {key.path[0] for key in run.asset_selection} == {MODEL}
    assert len(run.asset_selection) == 5
    live.evaluate_sensors(after=MINUTE)
    assert [one.run_id for one in live.queued()] == [run.run_id]
    assert live.told("loop_tick").startswith(f"{MODEL}: ")
    assert " judged)" in live.told("loop_tick")


def test_unattended_from_the_decision_to_the_shadow(live: Dagster) -> None:
    decision_id = ask()
    live.evaluate_sensors()
    assert live.execute(live.queued()[0]) is dg.DagsterRunStatus.SUCCESS
    assert status(live, decision_id) == "proven"
    live.evaluate_sensors(after=MINUTE)
    assert live.queued() == []
    (submission,) = live.queued("submit_rollout")
    assert (submission.tags["drift/lane"], submission.tags["dagster/priority"]) == ("submit", "5")
    assert live.execute(submission) is dg.DagsterRunStatus.SUCCESS
    live.evaluate_sensors(after=2 * MINUTE)
    assert live.queued("submit_rollout") == []
    assert live.told("rollout_tick") == f"{MODEL} stays where it is"
    new = records(Settings().home)[len(records(replayed())) :]
    told = [(one.event, one.actor) for one in new if not one.event.startswith(("incident", "undecided"))]
    assert told[-8:] == [
        ("training.claimed", "loop"),
        ("training.started", "loop"),
        ("candidate.trained", "loop"),
        ("candidate.proven", "loop"),
        ("model.registered", "loop"),
        ("documents.written", "evidence"),
        ("rollout.shadow", "dagster:loop_tick"),
        ("documents.written", "evidence"),
    ]
    assert status(live, decision_id) == "released"


@pytest.mark.live
def test_a_submission_that_failed_is_launched_again_while_its_candidate_waits(live: Dagster) -> None:
    ask()
    live.evaluate_sensors()
    assert live.execute(live.queued()[0]) is dg.DagsterRunStatus.SUCCESS
    live.evaluate_sensors(after=MINUTE)
    (first,) = live.queued("submit_rollout")
    live.evaluate_sensors(after=2 * MINUTE)
    assert [one.run_id for one in live.queued("submit_rollout")] == [first.run_id]
    live.instance.report_run_failed(first, "the worker is gone")
    live.evaluate_sensors(after=3 * MINUTE)
    (again,) = live.queued("submit_rollout")
    assert again.run_id != first.run_id
    assert live.execute(again) is dg.DagsterRunStatus.SUCCESS


@pytest.mark.live
def test_a_hotfix_does_not_wait_for_a_normal_retrain_of_the_same_model(live: Dagster) -> None:
    normal = ask()
    live.evaluate_sensors()
    hotfix = ask(hotfix=True)
    live.evaluate_sensors(after=MINUTE)
    slow, urgent = live.queued()
    assert (slow.tags["drift/decision"], urgent.tags["drift/decision"]) == (normal, hotfix)
    assert (urgent.tags["drift/lane"], urgent.tags["dagster/priority"]) == ("hotfix", "10")
    assert "drift/retrain" not in urgent.tags
    assert live.dequeued() == [urgent.run_id, slow.run_id]
    assert live.execute(urgent) is dg.DagsterRunStatus.SUCCESS
    assert (status(live, hotfix), status(live, normal)) == ("proven", "wanted")


def test_a_run_that_comes_second_refuses_and_ends_nothing(live: Dagster) -> None:
    decision_id = ask()
    live.evaluate_sensors()
    live.evaluate_sensors(after=MINUTE)
    with opened(Settings(), SystemClock()) as at:
        assert at.loop(SPEC).queue.claim(decision_id, "another run")
    (late,) = live.queued()
    assert live.execute(late) is dg.DagsterRunStatus.FAILURE
    live.evaluate_sensors(after=2 * MINUTE)
    assert status(live, decision_id) == "running"
    assert "training.failed" not in events(Settings().home)


def test_a_retrain_that_nothing_is_heard_of_is_launched_again_and_paged(live: Dagster) -> None:
    """Its process died with everything that could have told, as at a reboot."""
    decision_id = ask()
    live.evaluate_sensors()
    (first,) = live.queued()
    live.instance.report_run_failed(first, "the machine was gone")
    with opened(Settings(), SystemClock()) as at:
        loop = at.loop(SPEC)
        assert loop.queue.claim(decision_id, "a process that died")
        entry = loop.ledger.get(f"retrain/{decision_id}")
        held = {**entry["held"], "at": (SystemClock().now() - LEASE).isoformat()}
        loop.ledger.commit("test", {}, puts={f"retrain/{decision_id}": {**entry, "held": held}})
    live.evaluate_sensors(after=MINUTE)
    (again,) = live.queued()
    assert again.run_id != first.run_id
    assert again.tags["drift/decision"] == decision_id
    assert "training.lapsed" in events(Settings().home)
    pages = [json.loads(line) for line in Settings().alerts.read_text(encoding="utf-8").splitlines()]
    assert [page["what"] for page in pages if page["what"].startswith("training")] == ["training.lapsed"]


@pytest.mark.live
def test_a_retry_goes_on_with_what_its_run_had_claimed(live: Dagster) -> None:
    decision_id = ask()
    live.evaluate_sensors()
    (run,) = live.queued()
    with opened(Settings(), SystemClock()) as at:
        assert at.loop(SPEC).queue.claim(decision_id, "another run")
    live.instance.add_run_tags(run.run_id, {"drift/claimed": decision_id})
    retried = live.instance.get_run_by_id(run.run_id)
    assert retried is not None
    assert live.execute(retried) is dg.DagsterRunStatus.SUCCESS
    assert status(live, decision_id) == "proven"


@pytest.mark.parametrize(("retries", "ends"), [("2", "wanted"), ("0", "failed")], ids=["retried", "no retry left"])
def test_a_run_that_died_is_given_up_when_no_retry_is_left(live: Dagster, retries: str, ends: str) -> None:
    decision_id = ask()
    live.evaluate_sensors()
    (run,) = live.queued()
    live.instance.add_run_tags(run.run_id, {"dagster/max_retries": retries})
    live.instance.report_run_failed(live.queued()[0], "the worker is gone")
    live.evaluate_sensors(after=MINUTE)
    assert status(live, decision_id) == ends
    if ends == "failed":
        (record,) = (one for one in records(Settings().home) if one.event == "training.failed")
        assert record.details["because"] == f"run {run.run_id}: the worker is gone"
        assert live.queued() == []


def test_a_step_that_failed_is_told_of_in_the_audit(live: Dagster) -> None:
    """Without a retry: what its step may try again, it tries itself."""
    decision_id = ask()
    live.evaluate_sensors()
    for bundle in Settings().registry.rglob("*.skops"):
        bundle.write_bytes(b"no model")
    assert live.execute(live.queued()[0]) is dg.DagsterRunStatus.FAILURE
    live.evaluate_sensors(after=MINUTE)
    assert status(live, decision_id) == "failed"
    (record,) = (one for one in records(Settings().home) if one.event == "training.failed")
    assert f"{MODEL}__training_dataset: " in record.details["because"]


def test_a_cancelled_run_is_given_up(live: Dagster) -> None:
    decision_id = ask()
    live.evaluate_sensors()
    live.instance.report_run_canceled(live.queued()[0])
    live.evaluate_sensors(after=MINUTE)
    assert status(live, decision_id) == "failed"


def test_a_model_that_fails_is_told_of_and_nothing_is_raised(live: Dagster) -> None:
    for bundle in (Settings().registry).rglob("*.skops"):
        bundle.write_bytes(b"no model")
    live.evaluate_sensors()
    assert live.told("loop_tick").startswith(f"{MODEL}: IntegrityError: ")


def test_todays_verdict_is_observed_once_an_hour_with_numbers_and_drawn_by_evidently(live: Dagster) -> None:
    live.evaluate_sensors()
    live.evaluate_sensors(after=MINUTE / 2)
    (seen,) = observed(live)
    assert seen.metadata["verdict"].value == live.told("loop_tick").removeprefix(f"{MODEL}: ").partition(",")[0]
    assert isinstance(seen.metadata["now_drifting_share"], dg.FloatMetadataValue)
    assert seen.partition is None
    (point,) = Settings().evidently.glob("*/snapshots/*.json")
    told = {one["display_name"]: one["value"] for one in json.loads(point.read_text())["metric_results"].values()}
    assert {f"now_{name}" for name in told} >= {name for name in seen.metadata if name.startswith("now_")}


def test_an_hours_news_is_told_once_and_of_many_models_not_in_one_tick(live: Dagster) -> None:
    with opened(Settings(), SystemClock()) as at:
        loop, today = at.resumed(SPEC), Today()
        loop.tick(inline=False)
        loop.clock = ManualClock(loop.clock.now())
        assert [len(list(today.news(loop, at.settings))) for _ in range(2)] == [1, 0]
        loop.clock.advance_to(loop.clock.now() + timedelta(hours=1))
        assert len(list(today.news(loop, at.settings))) == 1
        loop.session.memory.seen = {**loop.session.memory.seen, "verdict": "BREACH"}
        assert len(list(today.news(loop, at.settings))) == 1
        assert len(list(Settings().evidently.glob("*/snapshots/*.json"))) == 2
        today._told.clear()
        today._left = 0
        assert list(today.news(loop, at.settings)) == []


def observed(live: Dagster) -> list[dg.AssetObservation]:
    """What was told of the model's drift report, newest first."""
    found = live.instance.fetch_observations(dg.AssetKey([MODEL, "drift_report"]), limit=10).records
    return [one.event_log_entry.asset_observation for one in found if one.event_log_entry.asset_observation]


def test_a_workspace_that_cannot_be_written_is_told_and_the_tick_goes_on(live: Dagster) -> None:
    Settings().evidently.write_text("in the way")
    decision_id = ask()
    live.evaluate_sensors()
    assert [run.tags["drift/decision"] for run in live.queued()] == [decision_id]
    live.evaluate_sensors(after=MINUTE)
    assert "cannot be written" in live.told("loop_tick")


def test_every_sensor_schedule_and_job_says_what_it_is_for(live: Dagster) -> None:
    jobs = [job for job in live.repository.get_all_jobs() if not job.name.startswith("__")]
    told = {one.name: one.description for one in live.repository.sensor_defs}
    told |= {one.name: one.description for one in jobs}
    told |= {one.name: one.description for one in live.repository.schedule_defs}
    assert len(told) == 6 + 3 + 6
    assert [name for name, said in told.items() if len(said or "") < 40] == []


@pytest.mark.parametrize("adopted_before", [False, True], ids=["no home", "empty home"])
def test_without_an_adopted_model_the_tick_says_what_to_do(tmp_path: Path, adopted_before: bool) -> None:
    home = tmp_path / "home"
    if adopted_before:
        with opened(Settings(home=home, database=""), SystemClock(), new=True):
            pass
    with dagster(home, tmp_path) as live:
        live.evaluate_sensors()
        assert "drift adopt" in live.told("loop_tick")
        assert live.instance.get_runs() == []
