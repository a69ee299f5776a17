"""A card is written again at each approval and each step of a rollout, and what a crash left out at the next look."""

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from drift_pipeline.clock import MINUTE
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import ConflictError, InputError
from drift_pipeline.evidence import offline, sealing
from drift_pipeline.evidence.approve import approve
from drift_pipeline.evidence.attestation import ATTESTATION
from drift_pipeline.evidence.documents import refresh_documents, write_documents
from drift_pipeline.evidence.offline import Fault, verify_evidence
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline_tests.evidence.test_card import fields_of
from drift_pipeline_tests.evidence.worlds import AT, DAY, MODEL, Home, audited, read_json, spec

CHAMPION = "sha256:" + "5a" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def refreshed(home: Home) -> list[str]:
    """The versions whose documents were written."""
    made = refresh_documents(home.settings, home.store, home.registry, spec(), home.clock.now())
    return [one.card.version for one in made]


def card(home: Home, version: str = "v2") -> dict[str, Any]:
    return read_json(home.settings.evidence / MODEL / version / "card.json")


def faults(home: Home) -> list[Fault]:
    """Of the evidence, verified from its files alone."""
    return verify_evidence(home.settings.evidence, home.settings.trust).faults


def value(home: Home, field: str, version: str = "v2") -> Any:
    return fields_of(card(home, version))[field]["value"]


def step(home: Home, bundle: Bundle, phase: Phase, reason: str = "submitted", number: int = 1) -> None:
    """What the loop commits when a rollout moves; a day later."""
    home.clock.advance_to(home.clock.now() + DAY)
    now, of = home.clock.now(), f"{MODEL}-v2" + (f".{number}" if number > 1 else "")
    before = home.store.get("rollout", MODEL)
    status = Status(of, MODEL, bundle.digest, CHAMPION, phase, now, AT, reason)
    puts = [Put("rollout", MODEL, status.to_json(), before.generation if before else 0)]
    counted = home.store.get("rollouts", f"{MODEL}/v2")
    if counted is None or counted.body["count"] != number:
        puts.append(Put("rollouts", f"{MODEL}/v2", {"count": number}, counted.generation if counted else 0))
    home.store.commit(Entry("loop", f"rollout.{phase}", MODEL, {"candidate": bundle.digest}, status.to_json()), puts)


def given(home: Home, label: str = "ada") -> None:
    lasting = timedelta(days=30)
    found = approve(home.settings, home.signer(label), MODEL, "v2", "the card is read", lasting, home.clock)
    assert hasattr(found, "valid"), found


def test_each_step_is_on_the_card_with_when_and_why_and_the_home_verifies(home: Home) -> None:
    bundle = home.candidate()
    for phase, reason in (
        (Phase.SHADOW, "submitted"),
        (Phase.AWAITING_APPROVAL, "3000 rows"),
        (Phase.CANARY, "1 of 1 approvals"),
        (Phase.ROLLED_BACK, "canary: AUROC 0.549 against 0.716"),
    ):
        step(home, bundle, phase, reason)
        assert refreshed(home) == ["v2"]
        now = home.clock.now().isoformat()
        assert card(home)["at"] == now
        last = {"rollout": f"{MODEL}-v2", "phase": str(phase), "since": now, "by": "loop", "reason": reason}
        assert value(home, "rollout.phases")[-1] == last
    assert len(value(home, "rollout.phases")) == 4
    outcome = f"{MODEL}-v2: rolled back 2026-03-06 12:00 UTC; canary: AUROC 0.549 against 0.716"
    assert value(home, "rollout.outcome") == outcome
    page = (home.settings.evidence / MODEL / "v2" / "card.html").read_text()
    assert 'class="as-of">As of <time datetime="2026-03-06T12:00:00+00:00">2026-03-06 12:00 UTC<' in page
    assert outcome in page
    assert "evidence" not in verify_home(home.settings).reason


def test_an_approval_is_on_the_card_when_it_is_given_and_gone_when_it_is_withdrawn(home: Home) -> None:
    step(home, home.candidate(), Phase.SHADOW)
    refreshed(home)
    assert (value(home, "approvals.valid"), value(home, "approvals.filed")) == (0, [])
    given(home)
    assert refreshed(home) == ["v2"]
    (filed,) = value(home, "approvals.filed")
    assert (filed["valid"], filed["label"], value(home, "approvals.valid")) == (True, "ada", 1)
    (path,) = home.filed()
    key = f"{MODEL}/{path.relative_to(home.settings.home).as_posix()}"
    path.unlink()
    held = home.store.get("file", key)
    assert held is not None
    home.store.commit(Entry("loop", "approval.withdrawn", MODEL), [Put("file", key, {"digest": None}, held.generation)])
    assert refreshed(home) == ["v2"]
    assert (value(home, "approvals.valid"), value(home, "approvals.filed")) == (0, [])


def test_an_approval_for_the_next_rollout_counts_on_the_card_of_what_was_rolled_back(home: Home) -> None:
    bundle = home.candidate()
    step(home, bundle, Phase.SHADOW)
    given(home)
    step(home, bundle, Phase.CANARY)
    step(home, bundle, Phase.ROLLED_BACK, "slow")
    refreshed(home)
    assert value(home, "approvals.valid") == 1  # of the rollout that ended: it was valid, and the card says so
    given(home, "bob")
    refreshed(home)
    assert [one["valid"] for one in sorted(value(home, "approvals.filed"), key=lambda one: str(one["label"]))] == [
        False,
        True,
    ]
    step(home, bundle, Phase.SHADOW, number=2)
    refreshed(home)
    assert [one["rollout"] for one in value(home, "rollout.phases")] == [f"{MODEL}-v2"] * 3 + [f"{MODEL}-v2.2"]
    assert value(home, "approvals.valid") == 1


def test_what_a_person_supplies_in_the_spec_comes_onto_the_card(home: Home) -> None:
    step(home, home.candidate(), Phase.SHADOW)
    refreshed(home)
    home.store.commit(Entry("loop", "spec.changed", MODEL), [Put("spec", MODEL, {"digest": "sha256:" + "1" * 64}, 0)])
    home.clock.advance_to(home.clock.now() + DAY)
    assert refreshed(home) == ["v2"]
    assert refreshed(home) == []


def test_where_nothing_moved_nothing_is_written(home: Home) -> None:
    step(home, home.candidate(), Phase.SHADOW)
    refreshed(home)
    before, records = card(home), len(audited(home, "documents.written"))
    home.clock.advance_to(home.clock.now() + DAY)
    assert refreshed(home) == []
    assert (card(home), len(audited(home, "documents.written"))) == (before, records)


def test_a_model_without_a_version_of_its_own_has_no_card(home: Home) -> None:
    assert refreshed(home) == []
    home.store.commit(
        Entry("loop", "model.adopted", MODEL), [Put("model", MODEL, {"digest": "recorded", "version": "recorded"}, 0)]
    )
    assert refreshed(home) == []


def test_what_is_trained_and_not_proven_has_no_card_and_what_was_rejected_has_one(home: Home) -> None:
    for passed, written in ((None, []), (False, ["v2"])):
        bundle = home.candidate("v2" if passed is False else "v1", passed=passed)
        last = home.store.get("training", MODEL)
        put = Put("training", MODEL, {"digest": bundle.digest}, last.generation if last else 0)
        home.store.commit(Entry("loop", "candidate", MODEL), [put])
        assert refreshed(home) == written


@pytest.mark.parametrize("written", ["nothing", "the files, and no record of them"])
def test_a_crash_between_step_and_card_is_made_good_at_the_next_look(home: Home, written: str) -> None:
    bundle = home.candidate()
    step(home, bundle, Phase.SHADOW)
    refreshed(home)
    step(home, bundle, Phase.ROLLED_BACK, "slow")
    if written != "nothing":  # as a process that died after it wrote them left them
        page = home.settings.evidence / MODEL / "v2" / "card.json"
        page.write_text(page.read_text() + " ")
        assert "was changed" in verify_home(home.settings).reason
    home.clock.advance_to(home.clock.now() + DAY)
    assert refreshed(home) == ["v2"]
    assert value(home, "rollout.outcome").startswith(f"{MODEL}-v2: rolled back")
    assert "evidence" not in verify_home(home.settings).reason


@pytest.mark.parametrize(("killed_in", "written_again"), [("_note", ["v2"]), ("put_in_place", [])])
def test_a_home_whose_writer_was_killed_verifies_at_every_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch, killed_in: str, written_again: list[str]
) -> None:
    """Before its record the card is the one before it; after it, the new one waits beside its place."""
    bundle = home.candidate()
    step(home, bundle, Phase.SHADOW)
    refreshed(home)
    step(home, bundle, Phase.ROLLED_BACK, "slow")
    folder, waiting = home.settings.evidence / MODEL / "v2", home.settings.home / "waiting"
    with monkeypatch.context() as patched:
        patched.setattr(sealing, killed_in, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_documents(home.settings, home.store, home.registry, spec(), bundle.digest, home.clock.now())
    assert value(home, "rollout.outcome").startswith(f"{MODEL}-v2: in shadow")
    assert "evidence" not in verify_home(home.settings).reason
    assert faults(home) == []
    home.clock.advance_to(home.clock.now() + DAY)
    assert refreshed(home) == written_again
    assert value(home, "rollout.outcome").startswith(f"{MODEL}-v2: rolled back")
    assert "evidence" not in verify_home(home.settings).reason
    assert faults(home) == []
    for left in waiting.iterdir():
        os.utime(left, (0, 0))
    refreshed(home)
    pages = [f"{name}.{end}" for name in ("annex", "card", "datasheet") for end in ("html", "json", "md")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([ATTESTATION, *pages, "ml-bom.cdx.json"])
    assert [*waiting.iterdir()] == []


class Killed(BaseException):
    """What nothing catches, as nothing outlives a kill."""


def test_a_writer_that_is_killed_before_any_of_its_renames_leaves_what_verifies(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit holds at each; the evidence by itself too, but between the first file put in its place and the last,
    which the next look makes good."""
    monkeypatch.setattr(offline, "_PAUSE_S", 0.0)  # nobody writes meanwhile
    bundle, replace = home.candidate(), Path.replace
    step(home, bundle, Phase.SHADOW)
    refreshed(home)
    broken = []
    for last in range(24):
        renames = iter(range(last))

        def killed(path: Path, target: Path, left: Iterator[int] = renames) -> Path:
            if next(left, None) is None:
                raise Killed
            return replace(path, target)

        at = home.clock.now() + (1 + last) * MINUTE
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", killed)
            with pytest.raises(Killed):
                write_documents(home.settings, home.store, home.registry, spec(), bundle.digest, at)
        assert "evidence" not in verify_home(home.settings).reason, last
        broken += [last] if faults(home) else []
        refreshed(home)
        assert faults(home) == [], last
        assert "evidence" not in verify_home(home.settings).reason, last
    assert broken == [*range(13, 24)]  # of 12 files


def test_processes_that_write_one_card_at_once_leave_what_the_audit_names(home: Home) -> None:
    bundle = home.candidate()
    step(home, bundle, Phase.SHADOW)
    begin, failed = threading.Barrier(3), list[Exception]()

    def write(seconds: int) -> None:
        store = open_store(home.settings, home.clock, home.trainer)
        begin.wait()
        try:
            for more in range(4):
                at = home.clock.now() + timedelta(seconds=10 * seconds + more)
                write_documents(home.settings, store, home.registry, spec(), bundle.digest, at)
        except ConflictError as error:
            failed.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:  # every try met another's: the next look writes it, as after a crash
        write_documents(home.settings, home.store, home.registry, spec(), bundle.digest, home.clock.now() + DAY)
    assert "evidence" not in verify_home(home.settings).reason


def test_processes_that_write_of_several_models_at_once_do_not_hinder_each_other(home: Home) -> None:
    """The manifest is about all of them."""
    models = ("churn", "fraud", "spam")
    bundles = [home.candidate("v2", model) for model in models]
    begin = threading.Barrier(3)

    def write(model: str, digest: str) -> None:
        store = open_store(home.settings, home.clock, home.trainer)
        begin.wait()
        for day in range(3):
            write_documents(home.settings, store, home.registry, spec(name=model), digest, home.clock.now() + day * DAY)
        store.close()

    pairs = zip(models, bundles, strict=True)
    threads = [threading.Thread(target=write, args=(model, bundle.digest)) for model, bundle in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(audited(home, "documents.written")) == 9
    assert faults(home) == []
    assert "evidence" not in verify_home(home.settings).reason


def test_who_verifies_while_a_card_is_written_raises_no_alarm(home: Home) -> None:
    bundle = home.candidate()
    step(home, bundle, Phase.SHADOW)
    refreshed(home)
    page = home.settings.evidence / MODEL / "v2" / "card.json"
    whole = page.read_bytes()
    page.write_bytes(whole + b" ")  # written, and not recorded yet
    committed = threading.Timer(0.1, lambda: page.write_bytes(whole))
    committed.start()
    assert "evidence" not in verify_home(home.settings).reason
    committed.join()


def test_a_card_that_cannot_be_written_is_said_and_nothing_is_recorded(home: Home) -> None:
    step(home, home.candidate(), Phase.SHADOW)
    home.settings.evidence.write_text("a file where the folder has to be")
    with pytest.raises(InputError, match="cannot be written"):
        refreshed(home)
    assert audited(home, "documents.written") == []


def test_a_look_that_finds_nothing_costs_a_few_reads_of_state_and_none_of_the_audit(home: Home) -> None:
    step(home, home.candidate(), Phase.SHADOW)
    refreshed(home)
    asked = list[str]()
    event.listen(home.store._engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    assert refreshed(home) == []
    assert sum(query.startswith("SELECT") for query in asked) <= 14
    assert not [query for query in asked if "FROM audit" in query]
