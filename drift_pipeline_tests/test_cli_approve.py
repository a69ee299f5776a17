"""`drift key` and `drift approve`: what they refuse, what they leave behind, and how it shows on the model's card."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DAY, SystemClock
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import appoint, dismiss
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline.rollout.approval import sign_approval, write_approval
from drift_pipeline_tests.evidence.cards import write_card
from drift_pipeline_tests.evidence.worlds import MODEL, Home, audited, read_json
from drift_pipeline_tests.replay.worlds import Ended, drift


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    for name in ("DRIFT_HOME", "DRIFT_ENVIRONMENT", "DRIFT_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "no_models"))
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def approve(home: Home, *options: object, version: str = "v2", key: str = "ada", reason: str = "it holds") -> Ended:
    named = ("--key", home.private(key), "--reason", reason, "--home", home.settings.home)
    return drift("approve", MODEL, version, *named, *options)


def refused(ended: Ended, home: Home, code: int) -> str:
    """What a refusal says, which leaves neither a file nor a record."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.err
    assert home.filed() == []
    assert audited(home, "approval.given") == []
    assert (ended.out == "") == (code == 2)
    return ended.out + ended.err


# keys


def test_a_new_key_is_private_and_its_home_trusts_it(home: Home, tmp_path: Path) -> None:
    ended = drift("key", tmp_path / "ada.pem", "--label", "ada", "--home", home.settings.home)
    assert (ended.code, ended.err) == (0, "")
    signer = Signer.load(tmp_path / "ada.pem")
    assert (tmp_path / "ada.pem").stat().st_mode & 0o777 == 0o600
    copy = home.settings.keys / f"ada-{signer.key_id[-12:]}.pub.json"
    assert PublicKey.load(copy) == signer.public == PublicKey(signer.public.raw, "ada", "ada")
    for told in (signer.key_id, tmp_path / "ada.pem", tmp_path / "ada.pub.json", copy):
        assert str(told) in ended.out


def test_without_a_home_it_says_where_the_public_half_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a demo may have left a home where the tests were started
    ended = drift("key", tmp_path / "ada.pem", "--label", "ada")
    assert f"a home that adds it: drift key {tmp_path / 'ada.pub.json'} --home" in ended.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ada.pem", "ada.pub.json"]


def test_a_key_is_told_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = drift("key", tmp_path / "ada.pem", "--label", "ada", "--json").summary
    assert told["key_id"] == Signer.load(tmp_path / "ada.pem").key_id
    assert (told["label"], told["public"], told["trusted_by"]) == ("ada", str(tmp_path / "ada.pub.json"), None)


@pytest.mark.parametrize("taken", ["ada.pem", "ada.pub.json"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    ended = drift("key", tmp_path / "ada.pem", "--label", "ada")
    assert (ended.code, ended.out) == (2, "")
    assert "never overwritten" in ended.err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "mine")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent/ada.pem", "--label", "ada"), "cannot be written"),
        (("ada.pem", "--label", " "), "label"),
        (("ada.pem",), "give --label to make a key"),
        (("ada.pem", "--label", "ada", "--home", "absent"), "no control store"),
    ],
)
def test_a_key_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = drift("key", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


# what is given


@pytest.mark.parametrize("named", ["v2", "digest"])
def test_an_approval_is_filed_audited_and_told(home: Home, named: str) -> None:
    bundle = home.candidate()
    home.signer("ada")
    ended = approve(home, version=bundle.digest if named == "digest" else named)
    assert (ended.code, ended.err) == (0, "")
    (path,) = home.filed()
    assert str(path) in ended.out
    assert "fraud v2: fraud-v2 approved for production by ada (" in ended.out
    assert " UTC\napprovals   1 valid now" in ended.out
    (told,) = audited(home, "approval.given")
    assert (told.actor, told.digests) == ("ada", {"bundle": bundle.digest})
    assert verify_home(home.settings).ok


def test_an_approval_is_told_as_json(home: Home) -> None:
    bundle = home.candidate()
    home.signer("ada")
    told = approve(home, "--json", "--environment", "staging").summary
    assert told["approved"] is True
    assert (told["model"], told["version"], told["digest"]) == (MODEL, "v2", bundle.digest)
    assert (told["environment"], told["valid"], told["wanted"]) == ("staging", 1, None)
    assert told["path"] == str(home.filed()[0])


def test_how_many_are_wanted_is_told_where_the_spec_is_known(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.candidate()
    (tmp_path / "models" / "fraud").mkdir(parents=True)
    (tmp_path / "models" / "fraud" / "defs.yaml").write_text(
        "name: fraud\nowner: o\ntask: binary_classification\nfeatures: {a: numeric}\noutcome: {column: y}\n"
        "rollout: {approvals: 2}\n"
    )
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    for label, count in (("ada", "1 of 2"), ("bob", "2 of 2")):
        home.signer(label)
        assert f"approvals   {count} approvals valid now" in approve(home, key=label).out


def test_the_environment_is_the_installation_s(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.candidate()
    home.signer("ada")
    monkeypatch.setenv("DRIFT_ENVIRONMENT", "staging")
    monkeypatch.setenv("DRIFT_HOME", str(home.settings.home))
    command = ("approve", MODEL, "v2", "--key", home.private("ada"), "--reason", "r")
    assert "approved for staging" in drift(*command).out


# roles


def with_roles(home: Home, who: str, *roles: str) -> None:
    options = [part for role in roles for part in ("--role", role)]
    made = drift("key", home.private(who), "--label", who, "--home", home.settings.home, *options)
    assert made.code == 0, made


def test_an_approval_is_signed_in_a_role_that_the_key_was_appointed_with(home: Home) -> None:
    home.candidate()
    with_roles(home, "rita", "risk")
    with_roles(home, "ruth", "risk", "approver")
    assert "it is signed as approver, and rita" in approve(home, "--role", "approver", key="rita").out
    assert approve(home, key="rita").code == 0
    asked = approve(home, key="ruth")
    assert (asked.code, "say as which it signs" in asked.err) == (2, True)
    assert approve(home, "--role", "risk", key="ruth").code == 0
    assert [record.details["role"] for record in audited(home, "approval.given")] == ["risk", "risk"]
    (refused,) = audited(home, "approval.refused")
    assert (refused.actor, refused.details["version"]) == ("rita", "v2")


def test_what_the_spec_wants_of_each_role_is_counted(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / MODEL).mkdir(parents=True)
    spec = f"name: {MODEL}\nowner: o\ntask: binary_classification\nfeatures: {{a: numeric}}\noutcome: {{column: y}}\n"
    (tmp_path / "models" / MODEL / "defs.yaml").write_text(spec + "rollout: {approvals: {approver: 1, risk: 1}}\n")
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    home.candidate()
    for who, role in (("ada", "approver"), ("bob", "approver"), ("rita", "risk")):
        with_roles(home, who, role)
    counts = [approve(home, "--json", key=who).summary for who in ("ada", "bob", "rita")]
    assert [(told["valid"], told["wanted"]) for told in counts] == [(1, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("role", ["home", "trainer", "Risk", "", "risk officer"])
def test_what_is_no_role_is_refused_and_leaves_no_key(home: Home, role: str) -> None:
    made = drift("key", home.private("ada"), "--label", "ada", "--home", home.settings.home, "--role", role)
    assert (made.code, "is no role" in made.err, home.private("ada").exists()) == (2, True, False)


def test_a_key_that_was_appointed_before_there_were_roles_approves(home: Home) -> None:
    home.candidate()
    home.signer("ada")
    (row,) = [row for row in home.store.find("key") if row.body["label"] == "ada"]
    body = {name: value for name, value in row.body.items() if name != "roles"}
    home.store.commit(Entry("test", "key.added", "ada"), [Put("key", row.key, body, row.generation)])
    assert approve(home).code == 0


# what is bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((MODEL, "v9"), "fraud has no candidate 'v9'; there are: v2, v10"),
        ((MODEL, "sha256:" + "0" * 64), "there are: v2, v10"),
        (("churn", "v2"), "there is no candidate of a model 'churn'; there are some of: fraud"),
        (("frau", "v2"), "there is no candidate of a model 'frau'"),
        ((MODEL, "v2", "--reason", ""), "reason: "),
        ((MODEL, "v2", "--expires", "0d"), "it expires at"),
        ((MODEL, "v2", "--expires", "90"), "'90' is not a duration"),
        ((MODEL, "v2", "--environment", ""), "environment"),
        ((MODEL, "v2", "--key", "absent.pem"), "absent.pem: no readable private key"),
        ((MODEL, "v2", "--home", "absent"), "no control store (control.db)"),
    ],
)
def test_bad_input_ends_with_two(home: Home, arguments: tuple[str, ...], said: str) -> None:
    for version in ("v10", "v2"):
        home.candidate(version)
    home.signer("ada")
    named = ("--key", home.private("ada"), "--reason", "r", "--home", home.settings.home)
    assert said in refused(drift("approve", *arguments[:2], *named, *arguments[2:]), home, 2)
    assert not Path("absent").exists()


# what would not count


def failed(home: Home) -> None:
    gate = {"name": "auroc", "outcome": "fail", "value": -0.1, "bound": None, "limit": 0, "reason": "worse"}
    home.candidate(passed=False, results=[gate])
    home.signer("ada")


def changed_bytes(home: Home) -> None:
    digest = home.candidate().digest.removeprefix("sha256:")
    home.signer("ada")
    (home.settings.registry / digest[:2] / digest / "model.skops").write_bytes(b"another model")


def no_trainer(home: Home) -> None:
    home.candidate(trainer=None)
    home.signer("ada")


def unknown_signer(home: Home) -> None:
    home.candidate()
    home.signer("ada", known=False)


def replay_only(home: Home) -> None:
    home.candidate()
    signer = Signer.generate("replay-only")
    signer.save(home.private("ada"))
    appoint(home.settings, home.store, signer.public, "test", "r")


def trainer(home: Home) -> None:
    home.candidate(trainer=home.signer("ada").key_id)


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (failed, "its gates did not pass: auroc (worse)"),
        (changed_bytes, "model.skops is not the file that was registered"),
        (no_trainer, "names no trainer's key"),
        (unknown_signer, "no known key signed this"),
        (unknown_signer, "has to add it: drift key FILE.pub.json --home"),
        (replay_only, "is a replay-only key, and this is production; make a person's key (drift key)"),
        (trainer, "trained this model; somebody else has to approve"),
    ],
)
def test_what_would_not_count_is_not_filed(home: Home, arrange: Callable[[Home], None], said: str) -> None:
    arrange(home)
    told = refused(approve(home), home, 1)
    assert told.startswith("fraud v2: NOT APPROVED for production: ")
    assert said in told
    as_json = json.loads(refused(approve(home, "--json"), home, 1))
    assert as_json["approved"] is False
    assert said in as_json["reason"]


def test_a_replay_only_key_approves_for_the_replay(home: Home) -> None:
    replay_only(home)
    assert approve(home, "--environment", "replay").code == 0


# how it shows on the card


def by_hand(home: Home, bundle: Bundle, signer: Signer) -> None:
    """Filed past the command, as whoever can write to the GitOps folder could."""
    now = SystemClock().now()
    said: dict[str, Any] = {"model": MODEL, "digest": bundle.digest, "rollout": "fraud-v2", "environment": "production"}
    envelope = sign_approval(signer, **said, reason="mine", trainer=home.trainer.key_id, at=now, expires=now + 14 * DAY)
    write_approval(home.settings.gitops, envelope)


def given(home: Home, *options: object, version: str = "v2") -> Path:
    home.signer("ada")
    ended = approve(home, *options, version=version)
    assert ended.code == 0, ended
    (path,) = home.filed()
    return path


def valid_one(home: Home, bundle: Bundle) -> None:
    given(home)


def tampered(home: Home, bundle: Bundle) -> None:
    path = given(home)
    envelope = read_json(path)
    other = sign_approval(
        Signer.generate(),
        **{"model": MODEL, "digest": bundle.digest, "rollout": "fraud-v2", "environment": "production"},
        trainer=home.trainer.key_id,
        reason="something else",
        at=SystemClock().now(),
        expires=SystemClock().now() + DAY,
    )
    path.write_text(json.dumps({**envelope, "payload": other["payload"]}))


def cut_off(home: Home, bundle: Bundle) -> None:
    path = given(home)
    path.write_bytes(path.read_bytes()[:-40])


def expired(home: Home, bundle: Bundle) -> None:
    given(home, "--expires", "1h")


def elsewhere(home: Home, bundle: Bundle) -> None:
    given(home, "--environment", "staging")


def of_another_digest(home: Home, bundle: Bundle) -> None:
    other = home.candidate("v3")
    path = given(home, version="v3")
    path.rename(path.with_name(path.name.replace(other.digest[7:], bundle.digest[7:])))


def self_approved(home: Home, bundle: Bundle) -> None:
    by_hand(home, bundle, home.trainer)


def left_the_team(home: Home, bundle: Bundle) -> None:
    given(home)
    dismiss(home.settings, home.store, Signer.load(home.private("ada")).key_id, "ops")


def for_another_rollout(home: Home, bundle: Bundle) -> None:
    given(home)
    home.store.commit(Entry("loop", "rollout.shadow", MODEL), [Put("rollouts", f"{MODEL}/v2", {"count": 2})])


def by_a_replay(home: Home, bundle: Bundle) -> None:
    by_hand(home, bundle, home.signer("replay-only"))


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (valid_one, None),
        (tampered, "bad signature under the key of ada"),
        (cut_off, "cannot be read"),
        (expired, "it expired at"),
        (elsewhere, "it approves the environment staging, not production"),
        (of_another_digest, "it approves the digest"),
        (self_approved, "no known key signed this"),
        (for_another_rollout, "it approves the rollout fraud-v2, not fraud-v2.2"),
        (left_the_team, "no known key signed this"),
        (by_a_replay, "is a replay-only key, and this is production"),
    ],
)
def test_the_card_shows_whether_an_approval_counts_and_why_not(
    home: Home, tmp_path: Path, arrange: Callable[[Home, Bundle], None], reason: str | None
) -> None:
    bundle = home.candidate()
    arrange(home, bundle)
    write_card(home.card(bundle, SystemClock().now() + DAY), tmp_path / "card")
    document = read_json(tmp_path / "card" / "card.json")
    fields = {field["id"]: field["value"] for section in document["sections"] for field in section["fields"]}
    page, text = ((tmp_path / "card" / f"card.{end}").read_text() for end in ("html", "md"))
    (filed,) = fields["approvals.filed"]
    assert fields["approvals.valid"] == (reason is None) == filed["valid"]
    assert f"<b>{fields['approvals.valid']} of 1</b><span>approvals valid in production" in page
    assert ('<span class="mark good">valid</span>' in page) == (reason is None)
    assert ('<span class="mark bad">invalid</span>' in page) == (reason is not None)
    if reason is None:
        assert (filed["label"], filed["reason"]) == ("ada", "it holds")
        assert filed["key_id"] == Signer.load(home.private("ada")).key_id
        assert f"| yes | it holds | ada | approver | {filed['key_id']} | {filed['at']} | {filed['expires']} |" in text
        assert filed["expires"] in page
    else:
        assert reason in filed["reason"]
        assert reason in page
        assert filed["reason"] in text.replace("\\", "").replace("&gt;", ">")
