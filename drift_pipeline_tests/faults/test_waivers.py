"""A version that a gate kept back goes on while its waivers hold, at each step, and not a moment longer."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from drift_pipeline.clock import DAY, ManualClock, system_clock
from drift_pipeline.components.home import KeptFleet
from drift_pipeline.control.signing import Signer
from drift_pipeline.errors import IntegrityError
from drift_pipeline.evidence.approve import Given, approve, make_key
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.evidence.waive import Waived, waive
from drift_pipeline.loop import operating
from drift_pipeline.loop.home import Home, models_of, opened
from drift_pipeline.loop.loop import Loop
from drift_pipeline.loop.releasing.approvals import kept_back
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.rollout.signed import Refusal
from drift_pipeline.settings import Settings
from drift_pipeline_tests.faults.homes import MODEL, NOW, adopted, candidate, settings_of, spec_of
from drift_pipeline_tests.replay.worlds import drift

GATE = "poison_floor"


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A live home whose v2 the poison floor kept back; `ada.pem`, `bob.pem` and `rita.pem` lie beside it."""
    settings, clock = adopted(tmp_path_factory.mktemp("blocked")), ManualClock(NOW)
    folder = settings.home.parent
    for who, role in (("ada", "approver"), ("bob", "approver"), ("rita", "risk")):
        make_key(folder / f"{who}.pem", who, None, settings, "ops", clock, (role,))
    with opened(settings, clock) as at:
        candidate(at, at.resumed(spec_of(settings)), "v2", [GATE])
    return folder


@pytest.fixture
def settings(blocked: Path, tmp_path: Path) -> Settings:
    shutil.copytree(blocked, tmp_path / "site")
    return settings_of(tmp_path / "site")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def at(settings: Settings, clock: ManualClock) -> Iterator[Home]:
    with opened(settings, clock) as made:
        yield made


def key(settings: Settings, who: str = "ada") -> Signer:
    return Signer.load(settings.home.parent / f"{who}.pem")


def waived(settings: Settings, clock: ManualClock, who: str = "ada", lasting: timedelta = 7 * DAY) -> Waived:
    found = waive(settings, key(settings, who), MODEL, "v2", GATE, "the concept turned", lasting, clock)
    assert isinstance(found, Waived), found
    return found


def approved(settings: Settings, clock: ManualClock, who: str = "ada") -> Given | Refusal:
    return approve(settings, key(settings, who), MODEL, "v2", "read the card", 30 * DAY, clock)


def digest_of(loop: Loop) -> str:
    ((_, body),) = loop.ledger.all("candidate")
    return str(body["digest"])


def events(at: Home, *names: str) -> list[str]:
    return [record.event for record in at.store.records() if record.event in names]


def in_canary(loop: Loop) -> None:
    """As the evidence of a day of traffic would have taken it there."""
    status = loop.rollouts.status
    assert status is not None
    loop.rollouts.move(replace(status, phase=Phase.CANARY, since=loop.clock.now()), (), "test")


def test_nothing_goes_on_without_a_waiver_and_the_reason_is_told(
    settings: Settings, at: Home, clock: ManualClock
) -> None:
    loop = at.resumed(spec_of(settings))
    assert loop.releasable() is None
    with pytest.raises(IntegrityError, match="poison_floor did not pass and has 0 of 1 waivers"):
        loop.release(digest_of(loop))
    found = approved(settings, clock)
    assert isinstance(found, Refusal)
    assert "poison_floor (below its floor); train another version, or waive" in found.reason


def test_the_loop_begins_what_is_waived_at_its_next_tick_and_the_record_of_its_gates_stays(
    settings: Settings, at: Home, clock: ManualClock
) -> None:
    loop = at.resumed(spec_of(settings))
    found = waived(settings, clock)
    assert found.lacking == {}
    assert loop.tick(inline=True).released == digest_of(loop)
    status = loop.rollouts.active
    assert status is not None
    assert status.phase is Phase.SHADOW
    record = loop.ledger.get(f"candidate/{digest_of(loop)}")
    assert record["passed"] is False
    assert [gate["outcome"] for gate in record["results"]] == ["pass", "fail"]
    (given,) = [record for record in at.store.records() if record.event == "waiver.given"]
    assert (given.actor, given.details["gate"], given.details["reason"]) == ("ada", GATE, "the concept turned")
    assert (settings.home / given.details["file"]) == found.path
    assert events(at, "waiver.accepted") == ["waiver.accepted"]  # once, however often it is looked at
    assert isinstance(approved(settings, clock), Given)
    assert verify_home(settings).reason == ""


@pytest.mark.parametrize("way", ["expired", "withdrawn", "revoked", "cut off"])
def test_a_canary_ends_at_once_when_its_waiver_counts_no_more(
    settings: Settings, at: Home, clock: ManualClock, way: str
) -> None:
    loop = at.resumed(spec_of(settings))
    waived(settings, clock, "bob", timedelta(hours=2))
    assert loop.release(digest_of(loop))
    assert isinstance(approved(settings, clock, "ada"), Given)
    in_canary(loop)
    assert loop.advance() is None
    (path,) = (settings.gitops / "waivers" / MODEL).iterdir()
    if way == "expired":
        clock.advance_to(NOW + timedelta(hours=3))
    elif way == "withdrawn":
        path.unlink()
    elif way == "revoked":
        assert drift("key", settings.home.parent / "bob.pub.json", "--home", settings.home, "--revoke").code == 0
    else:
        path.write_text(path.read_text()[:50])
    moved = loop.advance()
    assert moved is not None
    assert moved.phase is Phase.ROLLED_BACK
    assert "gate poison_floor did not pass and has 0 of 1 waivers" in moved.reason
    said = events(at, "waiver.refused", "waiver.withdrawn")
    assert said == ["waiver.withdrawn" if way == "withdrawn" else "waiver.refused"]


def test_before_the_canary_it_waits_for_another_waiver(settings: Settings, at: Home, clock: ManualClock) -> None:
    loop = at.resumed(spec_of(settings))
    waived(settings, clock, "ada", timedelta(hours=2))
    loop.release(digest_of(loop))
    clock.advance_to(NOW + timedelta(hours=3))
    assert loop.advance() is None
    assert kept_back(loop.rollouts.context, digest_of(loop))
    with pytest.raises(Exception, match="poison_floor did not pass and has 0 of 1 waivers"):
        operating.promote(loop, "ada", "now")
    waived(settings, clock, "bob")
    assert kept_back(loop.rollouts.context, digest_of(loop)) == ""


def test_a_revoked_key_waives_nothing_within_one_tick_of_a_process_that_lives_long(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setenv("DRIFT_HOME", str(settings.home))
    monkeypatch.setenv("DRIFT_MODELS", str(settings.models))
    monkeypatch.setattr("drift_pipeline.components.home.system_clock", lambda: clock)
    waived(settings, clock)
    kept, specs, folder = KeptFleet(), models_of(settings), settings.home.parent

    def releasable() -> bool:
        with kept.of(specs) as (_, fleet):
            loop = fleet.loop(spec_of(settings))
            loop.catch_up()
            return loop.releasable() is not None

    try:
        assert releasable()
        assert drift("key", folder / "ada.pub.json", "--home", settings.home, "--revoke").code == 0
        assert not releasable()
    finally:
        kept.close()


def test_where_roles_are_wanted_a_waiver_wants_the_same_ones(settings: Settings, at: Home, clock: ManualClock) -> None:
    assert settings.models is not None
    path = settings.models / MODEL / "defs.yaml"
    path.write_text(path.read_text() + "rollout: {approvals: {approver: 1, risk: 1}}\n")
    loop = at.resumed(spec_of(settings))
    assert waived(settings, clock, "ada").lacking == {GATE: 1}
    assert waived(settings, clock, "bob").lacking == {GATE: 1}
    assert loop.releasable() is None
    assert waived(settings, clock, "rita").lacking == {}
    assert loop.releasable() == digest_of(loop)


def test_a_waiver_for_another_environment_counts_for_nothing_here_and_stands_beside(
    settings: Settings, at: Home, clock: ManualClock
) -> None:
    loop = at.resumed(spec_of(settings))
    waived(settings.model_copy(update={"environment": "staging"}), clock)
    assert loop.releasable() is None
    (refused,) = [record for record in at.store.records() if record.event == "waiver.refused"]
    assert refused.details["reason"] == "it waives the environment staging, not production"
    waived(settings, clock)
    assert loop.releasable() == digest_of(loop)
    assert len(list((settings.gitops / "waivers" / MODEL).iterdir())) == 2


# the command


def test_the_command_files_it_says_what_is_next_and_the_card_shows_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_MODELS", str(settings.models))
    monkeypatch.setenv("DRIFT_HOME", str(settings.home))
    command = ("waive", MODEL, "v2", "--gate", GATE, "--key", settings.home.parent / "ada.pem", "--reason", "it turned")
    ended = drift(*command)
    assert ended.code == 0, ended
    assert "poison_floor waived for production by ada" in ended.out
    assert "its rollout begins at the loop's next tick" in ended.out
    told = json.loads(drift(*command, "--json").out)
    assert (told["waived"], told["gate"], told["lacking"]) == (True, GATE, {})
    with opened(settings, ManualClock(NOW)) as at:
        (record,) = list(at.store.find("candidate"))
        now = system_clock().now()
        made = write_documents(settings, at.store, at.registry, spec_of(settings), record.body["digest"], now)
    (shown,) = made.card.fields["gates.waivers"].value
    assert (shown["gate"], shown["valid"], shown["label"], shown["reason"]) == (GATE, True, "ada", "it turned")
    page, text = ((made.folder / f"card.{end}").read_text() for end in ("html", "md"))
    assert "<th>Gate</th><th>Label</th><th>Role</th>" in page
    assert "| poison_floor | yes | it turned | ada | approver |" in text


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"--gate": "auroc"}, 1, "its gate auroc passed; there is nothing to waive"),
        ({"--gate": "speed"}, 2, "v2 has no such gate; there are: auroc, poison_floor"),
        ({"--key": "eve.pem"}, 1, "no known key signed this"),
        ({"--role": "risk"}, 1, "it is signed as risk, and ada"),
        ({"--expires": "91d"}, 1, "longer than 90d (DRIFT_LONGEST_APPROVAL_DAYS)"),
        ({"--reason": ""}, 2, "reason: "),
        ({"--environment": ""}, 2, "--environment: is empty"),
    ],
)
def test_what_would_not_count_is_not_filed_and_its_reason_is_audited(
    settings: Settings, changed: dict[str, str], code: int, said: str
) -> None:
    folder = settings.home.parent
    Signer.generate("loop").save(folder / "eve.pem")
    options = {"--gate": GATE, "--key": "ada.pem", "--reason": "r", **changed}
    options["--key"] = str(folder / options["--key"])
    ended = drift("waive", MODEL, "v2", *(part for pair in options.items() for part in pair), "--home", settings.home)
    assert ended.code == code, ended
    assert said in ended.out + ended.err
    assert not (settings.gitops / "waivers").exists()
    with opened(settings, ManualClock(NOW)) as at:
        refused = [record for record in at.store.records() if record.event == "waiver.refused"]
    assert [said in record.details["reason"] for record in refused] == [True] * (code == 1)
    assert all(record.actor != "loop" for record in refused)  # a stranger's label is what they like
