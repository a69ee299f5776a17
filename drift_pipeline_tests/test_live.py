"""The loop live: ticks of several processes, what they remember, and what people may do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.errors import ConflictError, InputError, IntegrityError
from drift_pipeline.loop import operating
from drift_pipeline.loop.queue import HOTFIX, NORMAL
from drift_pipeline.loop.releasing import advancing
from drift_pipeline.loop.status import standings
from drift_pipeline.policy.decide import Action, Trigger
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.rollout.verdict import Observations
from drift_pipeline.telemetry.lake import Cursor, Lake, Table
from drift_pipeline_tests.test_loop import World, phase, twin


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def day(world: World) -> None:
    """A day's traffic lands, and nobody ticks."""
    now = world.clock.now()
    world._land(Window(now, now + DAY))
    world.clock.advance_to(now + DAY)


def turn_labels(world: World) -> None:
    """From now on the world is another."""
    turned = pl.when(pl.col("_time") >= world.clock.now()).then(1 - pl.col("_label")).otherwise(pl.col("_label"))
    world.rows = world.rows.with_columns(turned.alias("_label"))


def spoil_scores(world: World) -> None:
    """From now on what the champion says is noise; the world is as it was."""
    noise = pl.Series(np.random.default_rng(3).random(world.rows.height))
    spoilt = pl.when(pl.col("_time") >= world.clock.now()).then(noise).otherwise(pl.col("_recorded"))
    world.rows = world.rows.with_columns(spoilt.alias("_recorded"))


def ship(world: World) -> str:
    """A second version, shipped to full; returns its digest."""
    training = world.rolled_out(days=3)
    assert phase(world) is Phase.FULL
    return training.digest


# ticks


def test_ticks_of_processes_that_live_for_one_tick_count_together(world: World) -> None:
    """2 of 3 ticks open an incident, whichever process each of them was."""
    turn_labels(world)
    for _ in range(4):
        day(world)
        assert twin(world).tick(inline=False).model == "fraud"
    opened = [record for record in world.records() if record.event == "incident.opened"]
    assert len(opened) == 1
    assert "auroc BREACH" in str(world.store.pending()[0].body["why"])


def test_of_two_ticks_at_once_one_counts_and_the_other_is_told(world: World) -> None:
    day(world)
    first, second = twin(world), twin(world)
    first.tick(inline=False)
    before = world.events()
    with pytest.raises(ConflictError, match=r"somebody else ticked meanwhile|another process stored"):
        second.observe()
    assert world.events() == before
    day(world)
    assert second.tick(inline=False).verdict is not None


def test_a_tick_takes_up_what_another_process_did(world: World) -> None:
    turn_labels(world)
    for _ in range(4):
        day(world)
        world.loop.tick(inline=False)
    assert world.loop.incident.open
    operating.close_incident(twin(world), "ada", "known")
    day(world)
    world.loop.catch_up()
    assert not world.loop.incident.open
    assert world.records()[-1].actor == "ada"


def test_a_wanted_retrain_is_trained_proven_and_released_by_inline_ticks_alone(world: World) -> None:
    spoil_scores(world)
    seen = []
    for _ in range(12):
        day(world)
        seen.append(twin(world).tick(inline=True))
        if seen[-1].released:
            break
    assert seen[-1].trained
    assert phase(world) is Phase.SHADOW
    order = [
        "incident.opened",
        "decision.made",
        "training.claimed",
        "training.started",
        "candidate.proven",
        "rollout.shadow",
    ]
    events = [event for event in world.events() if event in order]
    assert list(dict.fromkeys(events)) == order


def test_the_scheduled_retrain_is_decided_once_however_many_ask(world: World) -> None:
    first_of_month = Window(world.clock.now(), world.clock.now() + 8 * DAY)
    world.spec = world.spec.model_copy(update={"retrain": world.spec.retrain.model_copy(update={"cron": "0 3 * * 1"})})
    made = 0
    while world.clock.now() < first_of_month.end:
        day(world)
        for _ in range(2):
            loop = twin(world)
            loop.catch_up()
            loop.observe()
            made += loop.decide_schedule(loop.look()) is not None
    assert made == 1


def test_ticks_that_each_are_a_process_of_their_own_keep_the_profiles(world: World) -> None:
    """Else each of them would read everything since the baseline, more each time."""
    for _ in range(3):
        day(world)
        twin(world).tick(inline=False)
    again, read, before = twin(world), [], Lake.landed

    def landed(lake: Lake, table: Table, since: Cursor) -> tuple[pl.DataFrame, Cursor]:
        read.append(before(lake, table, since))
        return read[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lake, "landed", landed)
        again.look()
    assert [rows.height for rows, _ in read] == [0, 0]


def test_a_tick_builds_no_pipeline_and_a_bundle_of_other_bytes_fails_it_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building one takes longer than all else of a model's first tick."""
    training = world.proven()
    world.loop.release(training.digest)
    day(world)
    with monkeypatch.context() as patch:
        patch.setattr("drift_pipeline.loop.state.load_model", lambda _: pytest.fail("a pipeline was built"))
        assert twin(world).tick(inline=False).verdict is not None
    (world.registry / training.digest[7:9] / training.digest[7:] / "model.skops").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="is not the file that was registered"):
        twin(world).tick(inline=False)


# claims


def wanted(world: World, trigger: Trigger = Trigger.SCHEDULE) -> str:
    world.policy.answer = {
        "action": "hotfix_retrain" if trigger is Trigger.HOTFIX else "retrain",
        "reasons": ["because"],
    }
    decided = world.loop.decide(trigger, world.loop.look())
    assert decided is not None
    return decided[0]


def test_a_wanted_retrain_is_claimed_once(world: World) -> None:
    world.day()
    decision = wanted(world)
    assert [body["decision"] for body in world.loop.queue.wanted()] == [decision]
    assert twin(world).queue.claim(decision, "first")
    assert not twin(world).queue.claim(decision, "second")
    assert world.loop.queue.wanted() == []


def test_the_tenth_retrain_comes_after_the_ninth(world: World) -> None:
    world.day()
    asked = [wanted(world) for _ in range(11)]
    assert [body["decision"] for body in world.loop.queue.wanted()] == asked


@pytest.mark.parametrize("trigger", [Trigger.DRIFT, Trigger.SCHEDULE])
def test_what_waits_for_its_rollout_is_known_to_the_policy_until_that_ends_or_it_waited_too_long(
    world: World, trigger: Trigger
) -> None:
    world.day()
    world.day()
    decision = wanted(world)

    def candidate() -> str | None:
        loop = twin(world)
        report = replace(loop.look(), at=world.clock.now())
        return loop.deciding.facts(trigger, report, loop.monitor).retrain.candidate

    assert candidate() is None
    training = world.loop.train(decision)
    assert training is not None
    assert candidate() == training.version == "v2"
    ended, deadline = world.clock.now(), world.spec.rollout.deadline
    world.clock.advance_to(ended + deadline - HOUR)
    assert candidate() == "v2"
    world.loop.release(training.digest)
    assert candidate() is None
    operating.roll_back(world.loop, "ada", "complaints")
    assert candidate() is None


def test_a_candidate_whose_rollout_cannot_begin_stands_in_the_way_no_longer_than_a_rollout_may_take(
    world: World,
) -> None:
    world.day()
    world.day()
    training = world.loop.train(wanted(world))
    assert training is not None
    champion = world.loop.monitor.champion.digest
    world.clock.advance_to(world.clock.now() + world.spec.rollout.deadline - HOUR)
    assert world.loop.candidates.waiting(champion) == training.version
    world.clock.advance_to(world.clock.now() + HOUR)
    assert world.loop.candidates.waiting(champion) is None
    assert world.loop.releasable() == training.digest


def test_a_failed_run_is_given_up_and_paged(world: World) -> None:
    world.day()
    decision = wanted(world)
    world.loop.queue.claim(decision, "first")
    world.loop.queue.give_up(decision, "out of memory")
    assert world.loop.queue.wanted() == []
    world.loop.deliver()
    assert [m.body["why"] for m in world.pager.sent] == ["out of memory"]


def test_a_retrain_that_was_given_up_waits_out_its_cooldown(world: World) -> None:
    report = world.day()
    world.loop.queue.give_up(wanted(world), "cancelled")
    world.clock.advance_to(world.clock.now() + HOUR)
    later = replace(report, at=world.clock.now())
    left = world.loop.deciding.facts(Trigger.DRIFT, later, world.loop.monitor).retrain.cooldown_left_hours
    assert left == world.spec.retrain.cooldown / HOUR - 1


def test_what_was_wanted_before_a_pause_waits_for_its_end_and_a_hotfix_does_not(world: World) -> None:
    world.day()
    scheduled = wanted(world)
    operating.pause(twin(world), "ada", "freeze", on=True)
    assert world.loop.queue.wanted() == []
    hotfix = wanted(world, Trigger.HOTFIX)
    assert [body["decision"] for body in world.loop.queue.wanted()] == [hotfix]
    operating.pause(twin(world), "ada", "done", on=False)
    assert [body["decision"] for body in world.loop.queue.wanted()] == [scheduled, hotfix]


def test_a_hotfix_does_not_wait_for_a_long_retrain(world: World) -> None:
    report = world.day()
    assert twin(world).queue.claim(wanted(world), "first")
    deciding, monitor = world.loop.deciding, world.loop.monitor
    facts = {trigger: deciding.facts(trigger, report, monitor).retrain.running for trigger in Trigger}
    assert facts == {Trigger.DRIFT: True, Trigger.SCHEDULE: True, Trigger.OPERATOR: True, Trigger.HOTFIX: False}
    hotfix = wanted(world, Trigger.HOTFIX)
    lanes = {body["decision"]: body["lane"] for _, body in world.loop.ledger.all("retrain")}
    assert sorted(lanes.values()) == [HOTFIX, NORMAL]
    assert lanes[hotfix] == HOTFIX


def test_what_was_proven_against_a_former_champion_is_not_released(world: World) -> None:
    world.day()
    world.day()
    late, decision = twin(world), wanted(world)
    training = late.train(decision)
    assert training is not None
    assert training.accepted
    ship_other = world.loop
    stored = world.store.get("model", "fraud")
    assert stored is not None
    other = {**stored.body, "digest": f"sha256:{'b' * 64}"}
    put = ship_other.ledger
    put.find(f"training/{decision}")
    put.commit(
        "test", {}, puts={f"training/{decision}": {**put.get(f"training/{decision}"), "champion": other["digest"]}}
    )
    assert late.release_proven() is None
    assert world.events()[-1] == "candidate.outdated"


# rollback


def test_rollback_after_full_puts_the_former_version_back_and_watches_it_against_its_own_reference(
    world: World,
) -> None:
    before = world.loop.champion
    assert before is not None
    digest, reference = ship(world), world.loop.ledger.all("reference")[0][1]["bundle"]
    status = operating.roll_back(twin(world), "ada", "complaints")
    assert (status.phase, status.champion) == (Phase.ROLLED_BACK, before.digest)
    assert world.records()[-1].actor == "ada"
    day(world)
    world.loop.tick(inline=False)
    assert world.loop.champion is not None
    assert world.loop.champion.digest == before.digest != digest
    restored = [record for record in world.records() if record.event == "reference.restored"]
    assert [record.digests["reference"] for record in restored] == [reference]
    with pytest.raises(InputError, match="no earlier version to go back to"):
        operating.roll_back(twin(world), "ada", "again")


def test_a_rollback_that_comes_second_does_not_take_the_champion_down_unasked(world: World) -> None:
    """The first one was the gateway's, of a canary; the second, a person's, came a moment later."""
    champion = ship(world)
    put = world.loop.ledger
    status = put.get("rollout")
    put.commit("test", {}, puts={"rollout": {**status, "rollout_id": "fraud-v3", "phase": "rolled_back"}})
    with pytest.raises(InputError, match=r"fraud-v3 is rolled back already, and v2 answers"):
        operating.roll_back(twin(world), "ada", "the canary is bad")
    assert put.get("model")["digest"] == champion
    back = operating.roll_back(twin(world), "ada", "v2 is bad, too", champion=True)
    assert (back.rollout_id, put.get("model")["version"]) == ("fraud-v2", "recorded")


def test_a_rollback_does_not_go_to_bytes_that_were_swapped(world: World) -> None:
    ship(world)
    stored = world.store.get("model", "fraud")
    assert stored is not None
    former = {**stored.body["previous"], "digest": stored.body["digest"]}
    (model,) = world.registry.rglob(f"{former['digest'].removeprefix('sha256:')}/model.skops")
    world.loop.ledger.get("model")
    world.loop.ledger.commit("test", {}, puts={"model": {**stored.body, "previous": former}})
    model.write_bytes(b"another")
    with pytest.raises(IntegrityError, match=r"model\.skops"):
        operating.roll_back(twin(world), "ada", "complaints")
    assert world.store.get("model", "fraud").body["version"] == "v2"  # type: ignore[union-attr]


def test_rollback_and_promotion_at_once_leave_one_of_them_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.rolled_out(days=2)
    assert phase(world) is Phase.CANARY
    day(world)
    slow, champion = twin(world), world.loop.champion
    assert slow.rollouts.active is not None

    def beaten(*args: Any) -> Observations:
        operating.roll_back(twin(world), "ada", "complaints")
        return observe(*args)

    monkeypatch.setattr(advancing, "observe", beaten)
    with pytest.raises(ConflictError):
        slow.advance()
    assert phase(world) is Phase.ROLLED_BACK
    assert world.loop.ledger.get("model")["digest"] == champion.digest  # type: ignore[union-attr]


def test_a_process_that_died_between_promotion_and_rebaselining_is_made_up_for(world: World) -> None:
    training = world.rolled_out(days=2)
    day(world)
    dying = twin(world)
    dying.session.take_up_champion = lambda: None  # type: ignore[method-assign]
    moved = dying.advance()
    assert moved is not None
    assert moved.phase is Phase.FULL
    again = twin(world)
    assert again.champion is not None
    assert again.champion.digest == training.digest
    assert world.events()[-3:] == ["rollout.full", "model.promoted", "reference.frozen"]


# people


def test_a_pause_holds_retraining_and_promotion_but_neither_monitoring_nor_rollback(world: World) -> None:
    training = world.proven()
    world.approve(training.digest)
    world.loop.release(training.digest)
    operating.pause(twin(world), "ada", "audit week", on=True)
    for _ in range(3):
        day(world)
        assert world.loop.tick(inline=False).moved is None
    assert world.loop.deciding.facts(Trigger.DRIFT, world.loop.look(), world.loop.monitor).paused
    assert phase(world) is Phase.SHADOW
    operating.roll_back(twin(world), "ada", "not this week")
    assert phase(world) is Phase.ROLLED_BACK
    operating.pause(twin(world), "ada", "done", on=False)
    assert not world.loop.pauses.paused()


def test_a_promotion_by_hand_skips_the_wait_and_nothing_else(world: World) -> None:
    training = world.proven()
    world.loop.release(training.digest)
    with pytest.raises(InputError, match=r"holds in shadow: 0 of 20 rows"):
        operating.promote(twin(world), "ada", "in a hurry")
    now = world.clock.now()
    world._land(Window(now, now + DAY / 4))
    world.clock.advance_to(now + DAY / 4)
    assert operating.promote(twin(world), "ada", "in a hurry").phase is Phase.AWAITING_APPROVAL
    with pytest.raises(InputError, match="0 of 1 approvals"):
        operating.promote(twin(world), "ada", "in a hurry")
    moved = [record for record in world.records() if record.event == "rollout.awaiting_approval"]
    assert moved[0].actor == "ada"
    assert "in a hurry" in moved[0].details["reason"]


def test_an_operators_retrain_is_decided_by_the_policy_and_named_in_the_audit(world: World) -> None:
    world.day()
    decision_id, decision = operating.retrain(twin(world), "ada", "new catalogue")
    assert decision.action is Action.RETRAIN
    record = world.records()[-1]
    assert (record.actor, record.details["reason"], record.details["decision"]) == ("ada", "new catalogue", decision_id)
    assert [body["decision"] for body in world.loop.queue.wanted()] == [decision_id]


def test_maintenance_judges_nothing_and_does_nothing(world: World) -> None:
    turn_labels(world)
    span = Window(world.clock.now(), world.clock.now() + 5 * DAY)
    operating.announce_maintenance(twin(world), "ada", "migration", span)
    for _ in range(4):
        day(world)
        ticked = world.loop.tick(inline=True)
        assert (ticked.incident, ticked.decisions, ticked.trained) == ("", (), ())
    assert "incident.opened" not in world.events()
    for _ in range(4):
        day(world)
        world.loop.tick(inline=False)
    assert "incident.opened" in world.events()


def test_a_snooze_pages_nobody_and_records_everything(world: World) -> None:
    turn_labels(world)
    operating.snooze(twin(world), "ada", "asleep", world.clock.now() + 10 * DAY)
    for _ in range(4):
        day(world)
        world.loop.tick(inline=False)
    assert "incident.opened" in world.events()
    assert [message for message in world.store.pending() if "incident" in message.id] == []


def test_status_tells_how_a_model_stands(world: World) -> None:
    turn_labels(world)
    for _ in range(4):
        day(world)
        world.loop.tick(inline=False)
    operating.acknowledge(twin(world), "ada", "on it")
    operating.pause(twin(world), "bob", "freeze", on=True)
    (one,) = standings(world.store, [world.spec], world.clock.now())
    assert (one.champion, one.verdict, one.acknowledged_by, one.paused_by) == ("recorded", "BREACH", "ada", "bob")
    assert one.incident == world.loop.incident.key
    assert one.age(world.clock.now() + HOUR) == HOUR
    assert one.kpis["auroc"]["verdict"] == "BREACH"
    stranger = world.spec.model_copy(update={"name": "other"})
    (none,) = standings(world.store, [stranger], world.clock.now())
    assert (none.champion, none.ticked_at, none.incident) == ("not adopted", None, "")


@pytest.mark.parametrize("verb", [operating.acknowledge, operating.close_incident])
def test_without_an_incident_there_is_nothing_to_say_to_it(world: World, verb: object) -> None:
    with pytest.raises(InputError, match="no incident is open"):
        verb(twin(world), "ada", "why")  # type: ignore[operator]


def test_a_verb_without_a_reason_is_refused(world: World) -> None:
    with pytest.raises(InputError, match="--reason: is empty"):
        operating.pause(twin(world), "ada", "  ", on=True)
    assert "model.paused" not in world.events()
