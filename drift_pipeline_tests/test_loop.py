"""The loop's promises when something is wrong: a bad candidate, a silent policy, an alert that does not go out."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline import loop as module
from drift_pipeline.clock import DAY, HOUR, Clock, ManualClock, Window
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import AuditRecord, ControlStore, Entry, Message, Put
from drift_pipeline.detection.judging.monitor import Monitor
from drift_pipeline.detection.judging.verdict import KpiResult, Report, Verdict
from drift_pipeline.errors import InputError, IntegrityError, RefusedError, UnavailableError
from drift_pipeline.loop import Backends, Loop, Training, Trust, operating
from drift_pipeline.loop.monitoring import rebaselining
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.monitoring.rebaselining import Rebaselining
from drift_pipeline.loop.releasing.starting import register
from drift_pipeline.loop.state import Version
from drift_pipeline.policy.decide import Action, Trigger
from drift_pipeline.policy.engines import DECISION, Answer
from drift_pipeline.policy.incident import Incident
from drift_pipeline.policy.release import ROLLBACK_RULE
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.rollout.approval import REPLAY, sign_approval, write_approval
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.spec import ModelSpec, RangeZ
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.training import worlds

SPAN = Window(worlds.START, worlds.START + 14 * DAY)
SPEC = worlds.spec(trainer="logistic_regression", trials=1, min_rows=300)
MINUTES = 6  # between two rows
DELAY = SPEC.outcome.delay


class Policy:
    """Answers always the same, or not at all."""

    digest = f"sha256:{'0' * 64}"

    def __init__(self) -> None:
        self.answer: Mapping[str, object] | None = {"action": "retrain", "reasons": ["because"]}
        self.release: Mapping[str, object] | None = {"allow": True, "reasons": ["why not"]}

    def evaluate(self, facts: Mapping[str, object], rule: str = DECISION) -> Answer:  # noqa: ARG002
        answer = self.answer if rule == DECISION else self.release
        if answer is None:
            raise UnavailableError("it is dead")
        return Answer(answer, self.digest, {"engine": "fake"})


class Pager:
    """Keeps what it was sent; may be down."""

    def __init__(self) -> None:
        self.up, self.sent = True, list[Message]()

    def send(self, message: Message) -> None:
        if not self.up:
            raise UnavailableError("nobody answers")
        self.sent.append(message)


class World:
    """A model whose recorded scores are poor, or one that is trained, its traffic, and the people around it."""

    def __init__(self, home: Path, spec: ModelSpec = SPEC, *, recorded: bool = True, database: str = "") -> None:
        self.spec = spec
        frame = worlds.history(30 * DAY // timedelta(minutes=MINUTES))
        poor = 1 / (1 + np.exp(-np.random.default_rng(5).normal(frame["amount"].to_numpy(), 3)))
        self.rows = frame.with_columns(
            (worlds.START + MINUTES * (pl.col("_time") - worlds.START)).alias("_time"), _recorded=pl.Series(poor)
        )
        self.clock = ManualClock(SPAN.end)
        self.policy, self.pager = Policy(), Pager()
        self.lake = Lake(home / "lake")
        self.store = ControlStore(database or f"sqlite:///{home / 'control.db'}", self.clock)
        self.registry, self.gitops = home / "registry", home / "gitops"
        self.trainer, self.approver = Signer.generate("ci"), Signer.generate("ada")
        keys = {signer.key_id: signer.public for signer in (self.trainer, self.approver)}
        self.loop = Loop(
            spec,
            Backends(self.lake, self.store, LocalRegistry(self.registry), self.policy, self.pager),
            Trust(self.gitops, REPLAY, lambda: keys, self.trainer.key_id),
            self.clock,
            step=DAY,
            seed=0,
        )
        self.batch = 0
        self._land(SPAN)
        try:
            self.loop.adopt(SPAN, recorded=recorded)
        except InputError:
            self.store.close()
            raise

    def _land(self, window: Window, candidate: str = "good") -> None:
        """A day's rows: mirrored in the shadow, every fourth answered by the candidate in the canary."""
        inside = pl.col("_time").is_between(window.start, window.end, closed="left")
        rows = self.rows.filter(inside)
        labels = rows.select("_id", (pl.col("_time") + DELAY).alias("_observed_at"), "_label")
        champion, new, rollout = self.loop.champion, self.loop.rollouts.candidate, self.loop.rollouts.status
        served = rows.drop("_label").with_columns(
            _score=pl.col("_recorded"), _version=pl.lit("recorded"), _route=pl.lit("stable")
        )
        if champion is not None and not rows.is_empty():
            served = served.with_columns(champion.scores(served, self.spec), _version=pl.lit(champion.name))
        if champion is not None and new is not None and rollout is not None and not rows.is_empty():
            told = new.scores(served, self.spec)
            told = {"good": told, "turned": 1 - told, "nan": told * float("nan")}[candidate]
            answers = pl.int_range(pl.len()) % 4 == (0 if rollout.phase is Phase.CANARY else 9)
            here, other = pl.when(answers).then(told), pl.when(answers).then(served["_score"])
            names = pl.lit(new.name), pl.lit(champion.name)
            self.lake.append(
                "shadow",
                served.select(
                    "_id",
                    "_time",
                    other.otherwise(told).alias("_score"),
                    pl.when(answers).then(names[1]).otherwise(names[0]).alias("_version"),
                ),
                self.batch,
            )
            served = served.with_columns(
                here.otherwise(pl.col("_score")).alias("_score"),
                pl.when(answers).then(names[0]).otherwise(names[1]).alias("_version"),
            )
        self.lake.append("predictions", served, self.batch)
        self.lake.append("outcomes", labels, self.batch)
        self.batch += 1

    def day(self, candidate: str = "good") -> Report:
        """A day's traffic, then what was observed."""
        now = self.clock.now()
        self._land(Window(now, now + DAY), candidate)
        self.clock.advance_to(now + DAY)
        return self.loop.observe()

    def drift(self) -> str:
        """From the second day on one column is elsewhere: the key of the incident that opens."""
        later = pl.col("_time") >= SPAN.end + DAY
        self.rows = self.rows.with_columns(
            pl.when(later).then(pl.col("amount") + 3).otherwise("amount").alias("amount")
        )
        while not self.loop.incident.open:
            self.day()
        return self.loop.incident.key

    def proven(self) -> Training:
        """A candidate whose gates passed, after two days."""
        self.day()
        training = self.loop.retrain("fraud-1", self.day())
        assert training is not None
        assert training.accepted
        return training

    def rolled_out(self, days: int) -> Training:
        """A candidate that is approved, so many days into its rollout: after two it is in the canary."""
        training = self.proven()
        self.approve(training.digest)
        self.loop.release(training.digest)
        for _ in range(days):
            self.day()
            self.loop.advance()
        return training

    def approve(self, digest: str, signer: Signer | None = None, rollout: str = "fraud-v2") -> None:
        envelope = sign_approval(
            signer or self.approver,
            model=self.spec.name,
            digest=digest,
            rollout=rollout,
            environment=REPLAY,
            trainer=self.trainer.key_id,
            reason="read",
            at=self.clock.now(),
            expires=self.clock.now() + 60 * DAY,
        )
        write_approval(self.gitops, envelope)

    def records(self) -> list[AuditRecord]:
        return list(self.store.records())

    def events(self) -> list[str]:
        return [record.event for record in self.records()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def phase(world: World) -> Phase | None:
    return world.loop.rollouts.status.phase if world.loop.rollouts.status else None


# the way through


def test_all_of_the_reference_that_takes_time_is_done_before_a_tick_can_find_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, found = list[ChampionMonitor](), list[bool]()
    prepared = Rebaselining.prepared

    def spied(self: Rebaselining, champion: Version, span: Window) -> Callable[[], ChampionMonitor]:
        record = prepared(self, champion, span)
        with closing(ControlReader(f"sqlite:///{tmp_path / 'control.db'}")) as store:
            found.append(store.get("model", "fraud") is not None)
        monkeypatch.setattr(rebaselining, "new_baseline", None)  # nothing of it is left to do
        monkeypatch.setattr(rebaselining, "keep_reference", None)

        def recorded() -> ChampionMonitor:
            made.append(record())
            return made[0]

        return recorded

    monkeypatch.setattr(Rebaselining, "prepared", spied)
    world = World(tmp_path)
    assert (len(made), found) == (1, [False])
    assert world.store.find("reference", "fraud/")
    world.store.close()


def test_a_good_candidate_becomes_champion_after_an_approval(world: World) -> None:
    training = world.proven()
    assert world.loop.release(training.digest)
    phases = []
    for _ in range(3):
        world.day()
        world.loop.advance()
        phases.append(phase(world))
        world.approve(training.digest)
    assert phases == [Phase.AWAITING_APPROVAL, Phase.CANARY, Phase.FULL]
    assert world.loop.champion is not None
    assert world.loop.champion.digest == training.digest
    assert world.loop.rollouts.candidate is None
    assert world.events()[-3:] == ["rollout.full", "model.promoted", "reference.frozen"]
    kept = world.store.get("model", "fraud")
    assert kept is not None
    assert kept.body["digest"] == training.digest


def test_a_policy_that_is_silent_or_says_no_holds_a_rollout_and_never_a_rollback(world: World) -> None:
    training = world.proven()
    world.loop.release(training.digest)
    world.approve(training.digest)
    world.day()
    for said in (None, None, {"allow": False, "reasons": ["not now"]}, {"allow": False, "reasons": ["not now"]}):
        world.policy.release = said
        assert world.loop.advance() is None
        assert phase(world) is Phase.SHADOW
    held = [record.details for record in world.store.records() if record.event == "release.held"]
    assert [told["reasons"] for told in held] == [["policy unavailable: it is dead"], ["not now"]]
    with pytest.raises(RefusedError, match="not now"):
        operating.promote(world.loop, "ada", "at last")
    world.policy.release = {"allow": True, "reasons": ["now"]}
    assert world.loop.advance() is not None
    (forward,) = (record for record in world.store.records() if record.event == "rollout.awaiting_approval")
    assert forward.details["policy"] == {"engine": "fake", "reasons": ["now"]}
    assert forward.policy_digest == world.policy.digest
    world.policy.release = None
    operating.roll_back(world.loop, "ada", "complaints")
    back = world.store.head()
    assert back is not None
    assert (back.event, back.details["policy"]) == ("rollout.rolled_back", {"rule": ROLLBACK_RULE})


def test_a_scheduled_retrain_that_nobody_could_decide_is_asked_again(world: World) -> None:
    world.proven()
    world.clock.advance_to(world.clock.now() + 40 * DAY)
    answer, world.policy.answer = world.policy.answer, None
    for _ in range(3):
        world.loop.catch_up()
        world.loop.decide_schedule(world.loop.look())
        world.clock.advance_to(world.clock.now() + HOUR)
    told = [r for r in world.store.records() if r.event == "decision.made" and r.details["trigger"] == "schedule"]
    assert [record.details["reasons"] for record in told] == [["policy unavailable: it is dead"]]
    world.policy.answer = answer
    decided = world.loop.decide_schedule(world.loop.look())
    assert decided is not None
    assert decided[1].action is Action.RETRAIN


# release


def test_rows_that_the_recorded_model_did_not_score_are_left_out_of_the_gates(world: World) -> None:
    """A candidate is compared on rows that both models scored; a gap in the record is no reason to refuse it."""
    gap = pl.int_range(pl.len()) % 50 == 0
    world.rows = world.rows.with_columns(pl.when(gap).then(None).otherwise(pl.col("_recorded")).alias("_recorded"))
    assert world.proven().before is not None


def test_what_was_never_proven_is_not_released(world: World) -> None:
    with pytest.raises(IntegrityError, match="no record says that the gates of"):
        world.loop.release(f"sha256:{'a' * 64}")
    assert world.loop.rollouts.status is None


@pytest.mark.parametrize("passed", [False, None, "true", 1])
def test_what_failed_its_gates_is_not_released(world: World, passed: object) -> None:
    digest = f"sha256:{'a' * 64}"
    put = Put("candidate", f"fraud/{digest}", {"passed": passed})
    world.store.commit(Entry(actor="loop", event="candidate.rejected", subject="fraud"), [put])
    with pytest.raises(IntegrityError, match="it is not released"):
        world.loop.release(digest)
    assert "rollout.shadow" not in world.events()


def test_a_second_release_during_a_rollout_changes_nothing(world: World) -> None:
    training = world.proven()
    assert world.loop.release(training.digest) is True
    before = world.loop.rollouts.status, world.events()
    assert world.loop.release(training.digest) is False
    assert (world.loop.rollouts.status, world.events()) == before


def another_model(world: World, digest: str) -> None:
    """Other bytes in the place of those that were registered."""
    (model,) = world.registry.rglob(f"{digest.removeprefix('sha256:')}/model.skops")
    model.write_bytes(b"another model")


def another_bundle(world: World, digest: str) -> None:
    """A bundle that is whole by itself, in the place of the one that was approved."""
    other = LocalRegistry(world.registry).put({"model": "fraud", "version": "v9"}, {"model.skops": b"another model"})
    (theirs,), (ours,) = (world.registry.rglob(one.removeprefix("sha256:")) for one in (other.digest, digest))
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)


def no_bundle(world: World, digest: str) -> None:
    (folder,) = world.registry.rglob(digest.removeprefix("sha256:"))
    (folder / "manifest.json").unlink()


REFUSED = r"is not the file that was registered|has other bytes|is missing"


@pytest.mark.parametrize(
    ("steps", "harm"),
    [(0, another_bundle), (1, another_model), (1, another_bundle), (2, another_bundle), (2, no_bundle)],
)
def test_no_step_is_taken_with_other_bytes_than_were_approved(
    world: World, steps: int, harm: Callable[[World, str], None]
) -> None:
    """Neither by a process that loaded the old ones, nor by one that begins anew."""
    training, champion = world.proven(), world.loop.champion
    world.approve(training.digest)
    world.loop.release(training.digest)
    for _ in range(steps):
        world.day()
        world.loop.advance()
    held = phase(world)
    world.day()
    harm(world, training.digest)
    with pytest.raises(IntegrityError, match=REFUSED):
        twin(world).step_rollout()
    assert phase(world) is held
    world.loop.advance()
    status = world.loop.rollouts.status
    assert status is not None
    assert status.phase is Phase.ROLLED_BACK
    assert "not taken to" in status.reason
    assert world.loop.champion is champion
    assert not {"model.promoted", "rollout.full"} & set(world.events())


@pytest.mark.parametrize("harm", [another_model, another_bundle])
def test_other_bytes_than_passed_the_gates_are_not_released(world: World, harm: Callable[[World, str], None]) -> None:
    training = world.proven()
    harm(world, training.digest)
    for loop in (world.loop, twin(world)):
        with pytest.raises(IntegrityError, match=REFUSED):
            loop.release(training.digest)
    assert world.loop.rollouts.status is None
    assert world.loop.rollouts.candidate is None


# a candidate that is bad


@pytest.mark.parametrize("harm", ["turned", "nan"])
@pytest.mark.parametrize("bad_in", [Phase.SHADOW, Phase.CANARY])
def test_a_bad_candidate_is_rolled_back_and_the_champion_stays(world: World, harm: str, bad_in: Phase) -> None:
    training, champion = world.proven(), world.loop.champion
    world.approve(training.digest)
    world.loop.release(training.digest)
    for _ in range(3):
        world.day(harm if phase(world) is bad_in else "good")
        world.loop.advance()
    assert phase(world) is Phase.ROLLED_BACK
    assert world.loop.champion is champion
    assert world.loop.rollouts.candidate is None
    assert world.events().count("rollout.rolled_back") == 1
    assert not {"model.promoted", "rollout.full"} & set(world.events())
    world.loop.deliver()
    assert [m.body["what"] for m in world.pager.sent if "rollout" in m.id] == ["rollout.rolled_back"]


def test_without_an_approval_nothing_passes_the_shadow_and_the_deadline_ends_it(world: World) -> None:
    training = world.proven()
    world.loop.release(training.digest)
    seen = set()
    for _ in range(13):
        world.day()
        world.loop.advance()
        seen.add(phase(world))
    assert seen == {Phase.AWAITING_APPROVAL}
    world.clock.advance_to(world.clock.now() + 2 * DAY)
    world.loop.advance()
    assert phase(world) is Phase.ROLLED_BACK


def test_who_trained_it_cannot_approve_it_and_that_is_audited_once(world: World) -> None:
    training = world.proven()
    world.approve(training.digest, world.trainer)
    world.loop.release(training.digest)
    for _ in range(4):
        world.day()
        world.loop.advance()
    assert phase(world) is Phase.AWAITING_APPROVAL
    (refused,) = (r for r in world.records() if r.event == "approval.refused")
    assert "trained this model and cannot approve it" in refused.details["reason"]


# the policy


def test_a_dead_policy_retrains_nothing_and_says_so(world: World) -> None:
    world.policy.answer = None
    decided = world.loop.decide(Trigger.SCHEDULE, world.day())
    assert decided is not None
    decision_id, decision = decided
    assert decision.action is Action.IGNORE
    assert decision.reasons == ("policy unavailable: it is dead",)
    record = world.records()[-1]
    assert (record.details["decision"], record.event) == (decision_id, "decision.made")
    assert record.policy_digest == Policy.digest


def test_without_an_incident_drift_asks_the_policy_nothing(world: World) -> None:
    report, before = world.day(), world.events()
    assert world.loop.decide(Trigger.DRIFT, report) is None
    assert world.events() == before


# training


def test_too_few_rows_to_prove_on_are_no_training_and_the_reason_is_audited(tmp_path: Path) -> None:
    world = World(tmp_path, worlds.spec(trainer="logistic_regression", trials=1, min_rows=3300))
    try:
        assert world.loop.retrain("fraud-7", world.day()) is None
        refused = world.records()[-1]
        assert refused.event == "training.refused"
        assert refused.details["decision"] == "fraud-7"
        assert "are too few: 500 unseen ones are to prove, and retrain.min_rows 3,300" in refused.details["because"]
    finally:
        world.store.close()


def test_a_window_without_labels_is_no_training_and_the_reason_is_audited(world: World) -> None:
    report = world.day()
    world.clock.advance_to(world.clock.now() + 400 * DAY)
    assert world.loop.retrain("fraud-7", report) is None
    assert world.events()[-1] == "training.refused"
    assert "no labelled row between" in world.records()[-1].details["because"]


def test_a_reference_of_too_few_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"9,000 \(retrain.min_rows\) with both classes are needed"):
        World(tmp_path, worlds.spec(min_rows=9000))


# alerts


def alerted(world: World, message_id: str) -> None:
    entry = Entry(actor="loop", event="incident.opened", subject="fraud")
    world.store.commit(entry, (), [Message(message_id, module.ALERTS, {"what": "incident.opened"})])


def test_an_alert_waits_in_the_outbox_until_its_channel_is_up_and_goes_out_once(world: World) -> None:
    world.pager.up = False
    alerted(world, "fraud:1")
    alerted(world, "fraud:2")
    assert world.loop.deliver() == 0
    assert world.loop.deliver() == 0
    first, second = world.store.pending(topic=module.ALERTS)
    assert (first.attempts, second.attempts) == (2, 0)
    world.pager.up = True
    assert world.loop.deliver() == 2
    assert world.loop.deliver() == 0
    assert [m.id for m in world.pager.sent] == ["fraud:1", "fraud:2"]


def test_each_time_that_nothing_can_be_judged_is_paged_also_after_an_incident(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a spell: the page of the first one must not swallow the second's."""
    verdicts = iter([Verdict.OK, *[Verdict.INCONCLUSIVE] * 3, Verdict.OK, *[Verdict.INCONCLUSIVE] * 3])

    def judged(*_: object) -> Report:
        kpi = KpiResult("psi", next(verdicts), None, None, None, None, 0, "as told")
        return Report(world.clock.now(), {"psi": kpi}, (), provisional=False)

    monkeypatch.setattr(Monitor, "evaluate", judged)
    world.loop.session.memory.incident = Incident(reference="sha256:ab", key="ab-20260101T0000")
    for _ in range(8):
        world.clock.advance_to(world.clock.now() + 18 * HOUR)
        world.loop.observe()
    world.loop.deliver()
    paged = [m.id for m in world.pager.sent if m.body["what"] == "monitoring.undecided"]
    assert len(paged) == len(set(paged)) == 2


# resumed from the store


def twin(world: World, clock: Clock | None = None) -> Loop:
    """A loop of another process, with a clock of its own: it knows nothing but what the backends hold."""
    backends = Backends(world.lake, world.store, LocalRegistry(world.registry), world.policy, world.pager)
    keys = {signer.key_id: signer.public for signer in (world.trainer, world.approver)}
    trust = Trust(world.gitops, REPLAY, lambda: keys, world.trainer.key_id)
    made = Loop(world.spec, backends, trust, clock or world.clock, step=DAY, seed=0)
    made.resume()
    return made


def told_by(loop: Loop) -> dict[str, object]:
    report = loop.look()
    return {
        "kpis": {name: kpi.to_json() for name, kpi in report.kpis.items()},
        "findings": [finding.to_json() for finding in report.features],
        "champion": loop.champion.to_json() if loop.champion else None,
        "candidate": loop.rollouts.candidate.to_json() if loop.rollouts.candidate else None,
        "rollout": loop.rollouts.status.to_json() if loop.rollouts.status else None,
        "retrains": loop.trainings.done.to_json(),
        "holdout": loop.trainings.holdout["_id"].to_list(),
    }


@pytest.mark.parametrize("days", [0, 1, 2, 3])
def test_a_loop_that_died_goes_on_from_the_store_in_every_phase(world: World, days: int) -> None:
    training = world.proven()
    world.approve(training.digest)
    world.loop.release(training.digest)
    for _ in range(days):
        world.day()
        world.loop.advance()
    assert phase(world) is [Phase.SHADOW, Phase.AWAITING_APPROVAL, Phase.CANARY, Phase.FULL][days]
    resumed = twin(world)
    assert told_by(resumed) == told_by(world.loop)
    sides = [(i.key, i.open, i.reference, i.kpis) for i in (resumed.incident, world.loop.incident)]
    assert sides[0] == sides[1]


def test_a_resumed_loop_carries_the_rollout_to_its_end(world: World) -> None:
    training = world.proven()
    world.approve(training.digest)
    world.loop.release(training.digest)
    for _ in range(3):
        world.loop = twin(world)
        world.day()
        world.loop.advance()
    assert phase(world) is Phase.FULL
    assert world.events().count("model.promoted") == 1


def test_a_reference_whose_bytes_were_changed_is_not_taken_up(world: World) -> None:
    (kept,) = world.registry.rglob("reference.bin")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"reference\.bin is not the file that was registered"):
        twin(world)


def test_a_model_that_was_never_adopted_is_not_resumed(world: World) -> None:
    stranger = worlds.spec(trainer="logistic_regression", trials=1, min_rows=300).model_copy(update={"name": "other"})
    world.spec = stranger
    with pytest.raises(InputError, match="other: no model was watched before"):
        twin(world)


# the three steps of a retrain, each in a process of its own


def test_the_steps_of_a_retrain_hand_on_by_the_store_alone(world: World) -> None:
    world.day()
    report = world.day()
    pinned = world.loop.pin("fraud-1", report)
    assert pinned is not None
    trained = twin(world).fit(twin(world).trainings.pinned())
    assert trained is not None
    training = twin(world).prove(twin(world).trainings.pinned())
    assert training.digest == twin(world).trainings.trained() == trained.digest
    assert training.accepted
    assert register(twin(world).rollouts, training.digest).name == pinned.version == "v2"
    assert world.events()[-4:] == ["training.started", "candidate.trained", "candidate.proven", "model.registered"]


def test_what_is_fitted_and_proven_is_not_fitted_or_asked_again(world: World) -> None:
    training = world.proven()
    before = world.events()
    loop = twin(world)
    assigned = loop.fit(loop.trainings.pinned())
    assert assigned is not None
    assert loop.prove(assigned) == training
    register(loop.rollouts, training.digest)
    register(loop.rollouts, training.digest)
    assert world.events() == [*before, "model.registered"]


def test_proving_what_was_only_pinned_is_refused(world: World) -> None:
    world.day()
    pinned = world.loop.pin("fraud-1", world.day())
    assert pinned is not None
    with pytest.raises(InputError, match="v2 is not trained"):
        world.loop.prove(pinned)
    with pytest.raises(InputError, match="v2 is not trained"):
        world.loop.trainings.trained()


def test_a_candidate_for_another_champion_is_not_proven(world: World) -> None:
    world.day()
    report = world.day()
    stale = world.loop.pin("fraud-1", report)
    assert stale is not None
    trained = world.loop.fit(stale)
    assert trained is not None
    with pytest.raises(IntegrityError, match="pin a new dataset"):
        world.loop.prove(replace(trained, champion=f"sha256:{'a' * 64}"))


def test_an_incident_that_opens_keeps_why_with_what_can_be_drawn(world: World) -> None:
    shifted = world.rows.with_columns(pl.when(pl.col("_time") >= SPAN.end + DAY).then(pl.col("amount") + 3)
        .otherwise("amount").alias("amount"))  # fmt: skip
    world.rows = shifted
    for _ in range(6):
        world.day()
    assert world.loop.incident.open
    (finding,) = world.store.find("finding", "fraud/")
    column = next(c for c in finding.body["columns"] if c["name"] == "amount")
    assert column["drift"] is True
    assert column["direction"] == "up"
    shape = column["shape"]
    assert len(shape["edges"]) == len(shape["reference"]) + 1 == len(shape["current"]) + 1
    outside = shape["below"][0] + shape["above"][0]
    assert sum(shape["reference"]) + outside == pytest.approx(1, abs=1e-4)
    assert shape["above"][1] > shape["above"][0] + 0.1


def test_a_threshold_that_is_edited_does_not_lock_the_model_out(world: World) -> None:
    kpis = world.spec.kpis.model_copy(update={"range_z": RangeZ(threshold=6)})
    world.spec = world.spec.model_copy(update={"kpis": kpis})
    resumed = twin(world)
    assert resumed.champion == world.loop.champion
    assert resumed.look().kpis["range_z"].threshold == 6
