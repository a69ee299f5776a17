"""What was changed beside the audit is neither served nor moved, and what people change counts at the next look."""

import asyncio
import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import DAY, ManualClock
from drift_pipeline.components.home import KeptFleet
from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import ControlStore, Entry, Put
from drift_pipeline.control.trust import approvers
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop import operating
from drift_pipeline.loop.declared import LiveSpecs
from drift_pipeline.loop.fleet import Failed, Fleet
from drift_pipeline.loop.forms import FrozenSpecs
from drift_pipeline.loop.home import Home, models_of, opened, refuse_unadopted
from drift_pipeline.loop.releasing.approvals import filed
from drift_pipeline.loop.routes import routes
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.rollout.approval import count_valid
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.gateway import Gateway
from drift_pipeline.serving.keys import KIND, producers
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.faults.homes import MODEL, NOW, given, spec_of
from drift_pipeline_tests.faults.test_audit_attacks import change, database, one, records
from drift_pipeline_tests.replay.worlds import drift


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def at(settings: Settings, clock: ManualClock) -> Iterator[Home]:
    with opened(settings, clock) as made:
        yield made


def of_v2(at: Home) -> str:
    status = at.store.get("rollout", MODEL)
    assert status is not None
    return str(status.body["candidate"])


def make_v2_champion(settings: Settings) -> None:
    """One UPDATE, well spelled."""
    with database(settings.home) as connection:
        (body,) = connection.execute("SELECT body FROM state WHERE kind = 'model'").fetchone()
        (other,) = connection.execute("SELECT body FROM state WHERE kind = 'candidate'").fetchone()
        model = {**json.loads(body), **{name: json.loads(other)[name] for name in ("digest", "version")}}
        connection.execute("UPDATE state SET body = ? WHERE kind = 'model'", (canonical(model).decode(),))


def gateway(settings: Settings, store: ControlStore, clock: ManualClock) -> Gateway:
    specs = FrozenSpecs(store, LiveSpecs(settings.models or Path(), models_of(settings), lambda: float("inf")))
    return Gateway(
        specs,
        store,
        LocalRegistry(settings.registry),
        SpoolWriter(settings.home / "spool" / "gateway"),
        clock,
        judge_slo=lambda _: None,
        rolled_back=lambda *_: None,
        every_seconds=1,
        rotate_seconds=1,
        drills=False,
    )


# state beside the audit


async def followed(gateway: Gateway) -> str:
    await gateway.follow()
    gateway.spool.close()
    return gateway.models.problems.get(MODEL, "")


def run(gateway: Gateway) -> str:
    return asyncio.run(followed(gateway))


def test_a_champion_that_no_record_made_is_not_served_and_the_one_that_answers_stays(
    settings: Settings, at: Home, clock: ManualClock
) -> None:
    before = gateway(settings, at.store, clock)
    assert run(before) == ""
    answered = before.models.served[MODEL].champion.name
    make_v2_champion(settings)
    fresh = gateway(settings, at.store, clock)
    assert "is not what record" in run(fresh)
    assert "changed beside the audit" in fresh.models.problems[MODEL]
    assert MODEL not in fresh.models.served
    assert answered == "v1"


@pytest.mark.parametrize("kind", ["model", "rollout", "candidate", "registered", "rollouts", "approvals", "holdout"])
def test_no_rollout_step_is_based_on_state_that_was_changed_beside_the_audit(
    settings: Settings, at: Home, clock: ManualClock, kind: str
) -> None:
    change(settings.home, "UPDATE state SET generation = generation + 1 WHERE kind = ?", kind)
    clock.advance_to(NOW + 3 * timedelta(hours=1))
    fleet = Fleet(at, models_of(settings))
    with suppress(InputError, IntegrityError):
        fleet.loop(spec_of(settings)).release(of_v2(at))
    moved = fleet.advance()
    assert [record.event for record in records(settings.home)][-1] != "rollout.awaiting_approval"
    if kind in ("model", "rollout", "candidate", "approvals"):
        assert [one for one in moved if isinstance(one, Failed) and "beside the audit" in one.reason]


def test_a_rollout_that_was_put_on_by_hand_is_not_gone_on_with(settings: Settings, at: Home) -> None:
    change(settings.home, "UPDATE state SET body = replace(body, '\"shadow\"', '\"canary\"') WHERE kind = 'rollout'")
    with pytest.raises(IntegrityError, match="changed beside the audit"):
        routes(at.store, models_of(settings).values())
    (failed,) = Fleet(at, models_of(settings)).advance()
    assert isinstance(failed, Failed)


def test_a_row_with_a_record_that_says_something_else_is_found_by_one_look(settings: Settings, at: Home) -> None:
    """The audit record changed with it, hash and all: the one that follows does not fit any more."""
    found = at.store.get("model", MODEL)
    assert found is not None
    at.store.attest(found)
    change(settings.home, "UPDATE audit SET hash = ? WHERE seq = ?", "0" * 64, found.seq)
    with opened(settings, ManualClock(NOW)) as other, pytest.raises(IntegrityError, match="beside the audit"):
        other.store.attest(found)


def test_a_producer_that_nobody_added_has_no_key(settings: Settings, at: Home) -> None:
    (known,) = producers(at.store)
    with database(settings.home) as connection:
        (body,) = connection.execute("SELECT body FROM state WHERE kind = ?", (KIND,)).fetchone()
        connection.execute("INSERT INTO state VALUES (?, 'mallory', ?, 1, 2)", (KIND, body))
    assert [producer.name for producer in producers(at.store)] == [known.name]


SPOILED = {
    "its row is garbage": "UPDATE state SET body = 'garbage' WHERE kind = 'model' AND key = ?",
    "its row is of another shape": "UPDATE state SET body = '{}' WHERE kind = 'model' AND key = ?",
    "its rollout is garbage": "UPDATE state SET body = 'garbage' WHERE kind = 'rollout' AND key = ?",
    "its rollout is of another shape": "UPDATE state SET body = '{}' WHERE kind = 'rollout' AND key = ?",
    "its memory is garbage": "UPDATE memory SET body = 'garbage' WHERE key = ?",
    "its memory is of another shape": "UPDATE memory SET body = '{}' WHERE key = ?",
}


@pytest.fixture
def another(settings: Settings, at: Home) -> str:
    """A second model, whose rows come after all of the first one's; nothing but its rows is there."""
    name = MODEL.replace("recommendation", "abcd")
    assert settings.models is not None
    (settings.models / name).mkdir()
    spec = (settings.models / MODEL / "defs.yaml").read_text().replace(MODEL, name)
    (settings.models / name / "defs.yaml").write_text(spec)
    rows = {kind: at.store.get(kind, MODEL) for kind in ("model", "rollout", "forms", "labels")}
    puts = [Put(kind, name, {**row.body}) for kind, row in rows.items() if row is not None]
    at.store.commit(Entry("test", "put", name), puts)
    at.store.remember(Put("", name, {"at": NOW.isoformat()}))
    return name


@pytest.mark.parametrize("what", SPOILED)
def test_a_model_whose_rows_are_spoiled_stops_no_other(
    settings: Settings, at: Home, clock: ManualClock, another: str, what: str
) -> None:
    change(settings.home, SPOILED[what], another)
    fleet = Fleet(at, models_of(settings))
    ticked = {one.model: one for one in fleet.tick(inline=True)}
    assert isinstance(ticked[another], Failed)
    assert not isinstance(ticked[MODEL], Failed), ticked[MODEL]
    assert MODEL in {one.model for one in fleet.advance() if not isinstance(one, Failed)}
    refuse_unadopted(settings, models_of(settings))
    there = gateway(settings, at.store, clock)
    assert run(there) == ""
    assert there.trouble == ""
    assert MODEL in there.models.served


def test_a_rollback_that_cannot_be_written_keeps_no_other_from_being_written(
    settings: Settings, at: Home, clock: ManualClock
) -> None:
    told = []

    def rolled_back(model: str, rollout_id: str, reason: str) -> None:
        if model == "spoiled":
            raise IntegrityError("changed beside the audit")
        told.append(model)

    there = gateway(settings, at.store, clock)
    there.brake._rolled_back = rolled_back
    there.brake._to_tell = {(model, "r1"): "slow" for model in ("spoiled", "whole")}
    for _ in range(2):
        with pytest.raises(IntegrityError, match="beside the audit"):
            asyncio.run(there.brake.tell())
    there.spool.close()
    assert told == ["whole"]


# trust


def count(at: Home, settings: Settings) -> int:
    loop = at.loop(spec_of(settings))
    return count_valid(filed(loop.rollouts.context, of_v2(at), f"{MODEL}-v2"))


def test_who_is_dismissed_or_appointed_while_a_process_runs_counts_no_more_or_from_then_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    """As Dagster's sensors hold it: one fleet, kept for as long as the code server lives."""
    monkeypatch.setenv("DRIFT_HOME", str(settings.home))
    monkeypatch.setenv("DRIFT_MODELS", str(settings.models))
    kept, specs = KeptFleet(), models_of(settings)
    folder, home = settings.home.parent, settings.home

    def counted() -> int:
        with kept.of(specs) as (_, fleet):
            loop = fleet.loop(spec_of(settings))
            status = loop.rollouts.active
            assert status is not None
            return count_valid(filed(loop.rollouts.context, status.candidate, status.rollout_id))

    try:
        monkeypatch.setattr("drift_pipeline.components.home.system_clock", lambda: clock)
        assert counted() == 1
        assert drift("key", folder / "ada.pub.json", "--home", home, "--revoke").code == 0
        assert counted() == 0
        assert drift("key", folder / "bob.pem", "--label", "bob", "--home", home).code == 0
        given(settings, Signer.load(folder / "bob.pem"), "v2", clock)
        assert counted() == 1
        one(home, "keys/bob-*.pub.json").unlink()  # by hand: at once, and a finding
        assert counted() == 0
    finally:
        kept.close()
    assert "no record says that its key was revoked" in verify_home(settings).reason


def test_a_key_that_is_only_dropped_into_the_folder_approves_nothing(settings: Settings, at: Home) -> None:
    mallory = Signer.generate("mallory")
    mallory.public.save(settings.keys / "mallory.pub.json")
    assert mallory.key_id not in approvers(settings, at.store)
    change(settings.home, "UPDATE state SET body = replace(body, 'false', 'true') WHERE kind = 'key'")
    assert approvers(settings, at.store) == {}  # rows that were changed are nobody's


@pytest.mark.parametrize("way", ["relabelled", "another key", "torn"])
def test_an_approvers_file_that_was_changed_counts_no_more(settings: Settings, at: Home, way: str) -> None:
    path = one(settings.home, "keys/ada-*.pub.json")
    fields = json.loads(path.read_text())
    if way == "another key":
        path.unlink()
        Signer.generate("ada", "ada").public.save(path)
    else:
        path.write_text(json.dumps({**fields, "identity": "bob"}) if way == "relabelled" else "{")
    assert count(at, settings) == 0


# a new decision


def test_what_was_rolled_back_is_rolled_out_again_only_once_it_is_approved_anew(
    settings: Settings, at: Home, clock: ManualClock
) -> None:
    loop, digest = at.resumed(spec_of(settings)), of_v2(at)
    operating.roll_back(loop, "ada", "complaints")
    with pytest.raises(InputError, match=rf"{MODEL}-v2\.2 begins once it is approved anew \(0 of 1\)"):
        loop.release(digest)
    found = given(settings, Signer.load(settings.home.parent / "ada.pem"), "v2", clock)
    assert found.rollout == f"{MODEL}-v2.2"
    assert loop.release(digest)
    status = loop.rollouts.status
    assert status is not None
    assert (status.rollout_id, status.phase) == (f"{MODEL}-v2.2", Phase.SHADOW)


def test_an_approval_that_lasts_longer_than_the_settings_allow_counts_no_more(settings: Settings, at: Home) -> None:
    assert count(at, settings) == 1
    shorter = settings.model_copy(update={"longest_approval_days": 7})
    with opened(shorter, ManualClock(NOW)) as other:
        assert count(other, shorter) == 0


# specs


def rewrite(settings: Settings, old: str, new: str) -> None:
    assert settings.models is not None
    path = settings.models / MODEL / "defs.yaml"
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def test_a_changed_spec_is_in_force_at_the_next_tick_and_the_audit_says_what_changed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_HOME", str(settings.home))
    monkeypatch.setenv("DRIFT_MODELS", str(settings.models))
    kept, specs = KeptFleet(), models_of(settings)
    monkeypatch.setattr("drift_pipeline.loop.declared.LiveSpecs._every", 0.0)
    try:
        with kept.of(specs) as (_, fleet):
            assert fleet.loop(specs[MODEL]).spec.owner == "ml-platform@example.com"
        rewrite(settings, "ml-platform@example.com", "payments@example.com")
        with kept.of(specs) as (_, fleet):
            assert fleet.loop(specs[MODEL]).spec.owner == "payments@example.com"
        told = [record for record in records(settings.home) if record.event == "spec.changed"]
        assert [(record.subject, record.details["changed"]) for record in told] == [(MODEL, ["owner"])]
        rewrite(settings, "owner:", "owner: [")
        with kept.of(specs) as (_, fleet):
            assert fleet.loop(specs[MODEL]).spec.owner == "payments@example.com"
    finally:
        kept.close()
    assert verify_home(settings).ok
    one(settings.home, f"gitops/specs/{told[0].digests['spec'].removeprefix('sha256:')}.json").write_text("{}")
    assert told[0].digests["spec"] in verify_home(settings).reason


def test_gateway_and_capture_take_up_a_changed_spec_and_a_new_model(settings: Settings, at: Home) -> None:
    assert settings.models is not None
    seconds = 0.0
    live = LiveSpecs(settings.models, models_of(settings), lambda: seconds)
    specs = FrozenSpecs(at.store, live)
    assert specs[MODEL].owner == "ml-platform@example.com"
    rewrite(settings, "ml-platform@example.com", "payments@example.com")
    shutil.copytree(settings.models / MODEL, settings.models / "churn")
    rewritten = settings.models / "churn" / "defs.yaml"
    rewritten.write_text(rewritten.read_text().replace(f"name: {MODEL}", "name: churn"))
    assert specs[MODEL].owner == "ml-platform@example.com"  # looked at once a second at most
    seconds = 1.0
    assert specs[MODEL].owner == "payments@example.com"
    assert specs[MODEL].forms == specs[MODEL].with_forms(at.store.get("forms", MODEL).body).forms  # type: ignore[union-attr]
    assert set(specs) == {MODEL, "churn"}
    (settings.models / MODEL / "defs.yaml").unlink()
    seconds = 2.0
    assert specs[MODEL].owner == "payments@example.com"


def test_an_approval_of_an_earlier_form_is_refused_with_what_it_lacks(settings: Settings, at: Home) -> None:
    path = one(settings.home, "gitops/approvals/*/*.json")
    envelope = json.loads(path.read_text())
    said = json.loads(base64.b64decode(envelope["payload"]))
    old = {name: value for name, value in said.items() if name != "rollout"}
    old["predicateType"] = "https://drift-pipeline.dev/approval/v1"
    signer = Signer.load(settings.home.parent / "ada.pem")
    path.write_text(json.dumps(signer.sign(old, "application/vnd.drift.approval+json")))
    assert count(at, settings) == 0
    assert "rollout: Field required" in records(settings.home)[-1].details["reason"]


def test_an_own_key_that_is_gone_stops_no_record_but_every_checkpoint_and_says_so(
    settings: Settings, clock: ManualClock
) -> None:
    (settings.keys / "trainer.pem").unlink()
    clock.advance_to(NOW + DAY)
    with opened(settings, clock) as at:
        at.store.commit(Entry("test", "observed", "x"))
        (failed,) = [one for one in Fleet(at, {}).tick(inline=False) if isinstance(one, Failed)]
    assert failed.model == "audit"
    assert "no checkpoint" in failed.reason
    assert records(settings.home)[-1].event == "observed"


def promoted(at: Home, settings: Settings) -> None:
    """v2 answers, and v1 did before."""
    loop = at.resumed(spec_of(settings))
    status = loop.rollouts.active
    assert status is not None
    v1, v2 = loop.monitor.champion, loop.rollouts.candidate
    assert v2 is not None
    for phase in (Phase.AWAITING_APPROVAL, Phase.CANARY):
        loop.rollouts.move(replace(status, phase=phase), (), "loop")
    champion = {**v2.to_json(), "previous": v1.to_json()}
    loop.rollouts.move(replace(status, phase=Phase.FULL), (), "loop", champion=champion)


def stopped(at: Home, settings: Settings) -> None:
    operating.roll_back(at.loop(spec_of(settings)), "ada", "stop")


TAMPERED = {
    "another champion": lambda home: change(
        home, "UPDATE state SET body = replace(body, 'sha256:', 'sha256:0') WHERE kind = 'model'"
    ),
    "no champion": lambda home: change(home, "DELETE FROM state WHERE kind = 'model'"),
    "another generation": lambda home: change(home, "UPDATE state SET generation = 9 WHERE kind = 'model'"),
    "another rollout": lambda home: change(
        home, "UPDATE state SET body = replace(body, 'v2', 'v9') WHERE kind = 'rollout'"
    ),
    "no rollout": lambda home: change(home, "DELETE FROM state WHERE kind = 'rollout'"),
    "neither": lambda home: change(home, "DELETE FROM state WHERE kind IN ('model', 'rollout')"),
}


@pytest.mark.parametrize("what", TAMPERED)
@pytest.mark.parametrize("before", [None, promoted, stopped], ids=["in shadow", "promoted", "rolled back"])
def test_a_rollback_puts_back_what_was_changed_beside_the_audit_and_goes_on_from_there(
    settings: Settings, at: Home, what: str, before: Callable[[Home, Settings], None] | None
) -> None:
    if before is not None:
        before(at, settings)
    v1 = next(record for record in at.store.records() if record.event == "model.adopted").digests["bundle"]
    TAMPERED[what](settings.home)
    with opened(settings, ManualClock(NOW)) as other:
        moved = operating.roll_back(other.loop(spec_of(settings)), "ada", "who is that?")
        assert moved.champion == v1
        route = routes(other.store, [spec_of(settings)])[MODEL]
        assert (route.champion["version"], route.candidate, route.previous) == ("v1", None, None)
        assert verify_home(settings).ok
        told = next(record for record in other.store.records() if record.event == "model.put_back")
        assert (told.actor, told.details["reason"]) == ("ada", "who is that?")
        (page,) = [m for m in other.store.pending(topic="alerts") if m.body["what"] == "model.put_back"]
        assert "changed beside the audit" in page.body["why"]
        other.resumed(spec_of(settings)).look()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("UPDATE state SET generation = generation + 1 WHERE kind = 'reference'", "no intact record tells of it"),
        ("UPDATE audit SET hash = 'x' WHERE seq = 3", "the audit does not hold from record"),
    ],
)
def test_where_nothing_intact_tells_who_answers_a_rollback_is_refused_with_advice(
    settings: Settings, at: Home, more: str, said: str
) -> None:
    make_v2_champion(settings)
    change(settings.home, more)
    before = len(records(settings.home))
    with opened(settings, ManualClock(NOW)) as other, pytest.raises(IntegrityError, match=said) as told:
        operating.roll_back(other.loop(spec_of(settings)), "ada", "who is that?")
    assert "restore the control store from a copy that verifies" in str(told.value)
    assert len(records(settings.home)) == before
