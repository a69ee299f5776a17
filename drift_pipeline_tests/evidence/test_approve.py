"""An approval is filed and audited together with what it means, or refused with nothing left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DAY, ManualClock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.trust import approvers
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.approve import Given, approve, make_key
from drift_pipeline.evidence.statements import approvals_wanted
from drift_pipeline.rollout.approval import Refusal
from drift_pipeline.settings import Settings
from drift_pipeline_tests.evidence.worlds import AT, MODEL, Home, audited


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def give(home: Home, label: str = "ada", version: str = "v2", known: bool = True, **settings: str) -> Given | Refusal:
    signer = home.signer(label, known)
    changed = home.settings.model_copy(update=settings)
    return approve(changed, signer, MODEL, version, "the gates hold", 14 * DAY, home.clock)


def test_an_approval_is_filed_and_audited(home: Home) -> None:
    bundle = home.candidate()
    found = give(home)
    assert isinstance(found, Given)
    assert home.filed() == [found.path]
    assert (found.version, found.digest, found.expires) == ("v2", bundle.digest, AT + 14 * DAY)
    assert (found.valid, found.wanted, found.refused) == (1, None, ())
    (told,) = audited(home, "approval.given")
    assert (told.actor, told.subject, told.digests) == ("ada", MODEL, {"bundle": bundle.digest})
    assert told.details["reason"] == "the gates hold"
    assert (told.details["environment"], told.details["rollout"], found.rollout) == ("production", *2 * ["fraud-v2"])
    assert verify(home.store.records(), exists=home.registry.exists).ok


def test_two_people_are_two_approvals_and_one_person_is_one(home: Home) -> None:
    home.candidate()
    counts = [found.valid for found in (give(home, "ada"), give(home, "bob")) if isinstance(found, Given)]
    assert counts == [1, 2]
    again = approve(home.settings, home.trainer, MODEL, "v2", "mine", DAY, home.clock)
    assert isinstance(again, Refusal)
    assert len(home.filed()) == 2


def test_others_that_do_not_count_are_told(home: Home) -> None:
    home.candidate()
    first = give(home, "ada")
    assert isinstance(first, Given)
    first.path.write_text("{")
    second = give(home, "bob")
    assert isinstance(second, Given)
    assert second.valid == 1
    assert len(second.refused) == 1
    assert first.path.name in second.refused[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"passed": False}, "its gates did not pass: none was asked"),
        ({"passed": False, "results": [{"name": "auroc", "outcome": "fail", "reason": "worse"}]}, "auroc (worse)"),
        ({"passed": None}, "its gates were not asked yet"),
        ({"trainer": None}, "names no trainer's key"),
    ],
)
def test_a_version_that_nobody_can_approve_is_refused(home: Home, change: dict[str, Any], said: str) -> None:
    home.candidate(**{"results": [], **change})
    found = give(home)
    assert isinstance(found, Refusal)
    assert said in found.reason
    assert home.filed() == []
    assert audited(home, "approval.given") == []


@pytest.mark.parametrize(("file", "said"), [("model.skops", "is not the file that"), ("manifest.json", "other bytes")])
def test_bytes_that_changed_are_refused(home: Home, file: str, said: str) -> None:
    digest = home.candidate().digest.removeprefix("sha256:")
    (home.settings.registry / digest[:2] / digest / file).write_bytes(b"{}")
    found = give(home)
    assert isinstance(found, Refusal)
    assert said in found.reason
    assert home.filed() == []


def test_a_bundle_that_is_gone_is_refused(home: Home) -> None:
    digest = home.candidate().digest.removeprefix("sha256:")
    (home.settings.registry / digest[:2] / digest).rename(home.settings.registry / "elsewhere")
    found = give(home)
    assert isinstance(found, Refusal)
    assert "holds no bundle" in found.reason


def test_a_name_that_two_candidates_have_asks_for_a_digest(home: Home) -> None:
    first, second = home.candidate("v2"), home.candidate("v3", version="v2")
    with pytest.raises(InputError, match=f"2 candidates v2; name one by its digest: .*{first.digest}"):
        give(home)
    found = approve(home.settings, home.signer("bob"), MODEL, second.digest, "r", DAY, home.clock)
    assert isinstance(found, Given)
    assert found.digest == second.digest


def test_how_many_are_wanted_is_what_the_model_s_spec_says(tmp_path: Path) -> None:
    spec = "name: fraud\nowner: o\ntask: binary_classification\nfeatures: {a: numeric}\noutcome: {column: y}\n"
    for name, text in (("a", "broken: ["), ("b", spec + "rollout: {approvals: 3}\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "defs.yaml").write_text(text)
    settings = Settings(home=tmp_path, database="", models=tmp_path)
    assert approvals_wanted(settings, "fraud") == {"approver": 3}
    assert approvals_wanted(settings, "churn") is None


def test_two_keys_of_one_person_are_one_approval(home: Home) -> None:
    home.candidate()
    home.signer("laptop", identity="ada")
    for label, valid in (("ada", 1), ("bob", 2)):
        found = give(home, label)
        assert isinstance(found, Given)
        assert found.valid == valid
    again = approve(home.settings, Signer.load(home.private("laptop")), MODEL, "v2", "once more", DAY, home.clock)
    assert isinstance(again, Given)
    assert again.valid == 2


def test_an_approval_that_lasts_too_long_is_refused(home: Home) -> None:
    home.candidate()
    found = approve(home.settings, home.signer("ada"), MODEL, "v2", "for ever", 91 * DAY, home.clock)
    assert isinstance(found, Refusal)
    assert "longer than 90d (DRIFT_LONGEST_APPROVAL_DAYS)" in found.reason
    assert home.filed() == []


def test_a_home_trusts_the_public_half_of_a_new_key(home: Home, tmp_path: Path) -> None:
    signer, copy = make_key(tmp_path / "ada.pem", "ada", None, home.settings, "ops", home.clock)
    assert copy is not None
    assert copy.parent == home.settings.keys
    assert approvers(home.settings, home.store) == {signer.key_id: signer.public}
    (told,) = audited(home, "key.added")
    assert (told.actor, told.details["key_id"]) == ("ops", signer.key_id)


@pytest.mark.parametrize("place", ["absent", "home"])
def test_a_key_that_no_home_can_trust_is_not_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "home").mkdir()
    settings = Settings(home=tmp_path / place, database="")
    with pytest.raises(InputError, match="no control store"):
        make_key(tmp_path / "bob.pem", "bob", None, settings, "ops", ManualClock(AT))
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
