"""An approval counts for exactly what it says, once a person, and every other one is refused with the reason."""

import base64
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.errors import InputError
from drift_pipeline.rollout.approval import (
    APPROVAL_TYPE,
    Approval,
    Refusal,
    count_valid,
    filled,
    read_approvals,
    sign_approval,
    verify_approval,
    write_approval,
)
from drift_pipeline.rollout.signed import MOST_BYTES, Asked

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DIGEST, OTHER = sha256(b"model"), sha256(b"another model")
ADA, BOB, EVE = Signer.generate("ada"), Signer.generate("bob"), Signer.generate("eve")
ADA_TOO = Signer.generate("Ada Lovelace's laptop", " ADA ")  # of the same person
TRAINER, REPLAYER = Signer.generate("trainer"), Signer.generate("replay-only")
RISK, BOTH = Signer.generate("rita"), Signer.generate("ruth")
ROLES = {RISK: ("risk",), BOTH: ("approver", "risk"), ADA_TOO: ("approver", "risk")}
KEYS = {
    signer.key_id: replace(signer.public, roles=ROLES.get(signer, ("approver",)))
    for signer in (ADA, ADA_TOO, BOB, TRAINER, REPLAYER, RISK, BOTH)
}


ASKED = Asked(KEYS, "fraud", DIGEST, "production", TRAINER.key_id, 90 * DAY, NOW)


def approval(signer: Signer = ADA, **changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "model": "fraud",
        "digest": DIGEST,
        "rollout": "fraud-v2",
        "environment": "production",
        "trainer": TRAINER.key_id,
        "reason": "the gates hold, and so does the card",
        "at": NOW - DAY,
        "expires": NOW + DAY,
    }
    return sign_approval(signer, **{**said, **changes})


def said_by(signer: Signer, payload_type: str = APPROVAL_TYPE, **changes: Any) -> dict[str, Any]:
    """Signed by hand, past what `sign_approval` checks; None leaves a field out."""
    payload = json.loads(base64.b64decode(approval()["payload"]))
    said = {key: value for key, value in {**payload, **changes}.items() if value is not None}
    return signer.sign(said, payload_type)


def check(envelope: dict[str, Any] | Refusal, **changes: Any) -> Approval | Refusal:
    rollout = changes.pop("rollout", "fraud-v2")
    return verify_approval(envelope, replace(ASKED, **changes), rollout)


def forged() -> dict[str, Any]:
    """Ada's signature of one digest under the payload of another."""
    return {**approval(), "payload": approval(digest=OTHER)["payload"]}


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # envelope, what is asked -> why not
    ({}, {}, "no DSSE envelope"),
    (said_by(ADA, "application/vnd.in-toto+json"), {}, "the payload type is"),
    (said_by(ADA, predicateType="https://drift-pipeline.dev/gate/v1"), {}, "predicateType: Input should be"),
    (said_by(ADA, predicateType=None), {}, "predicateType: Field required"),
    (said_by(ADA, role="Risk!"), {}, "role: String should match"),
    (approval(role="risk"), {}, "it is signed as risk, and ada "),
    (approval(RISK), {}, "it is signed as approver, and rita "),
    (said_by(ADA, at="2026-03-01T12:00:00"), {}, "at: Input should have timezone info"),
    (said_by(ADA, expires="2026-03-01T12:00:00+00:00"), {}, "it: Value error, it expires at"),
    (said_by(ADA, scope="everything"), {}, "scope: Extra inputs are not permitted"),
    (forged(), {"digest": OTHER}, "bad signature under the key of ada"),
    (approval(EVE), {}, "no known key signed this"),
    (approval(ADA), {"keys": {}}, "no known key signed this"),
    (said_by(BOB), {}, f"it names the approver {ADA.key_id[:16]}, who did not sign it"),
    (said_by(BOB, approver=EVE.key_id), {}, f"it names the approver {EVE.key_id[:16]}, who did not sign it"),
    (approval(model="churn"), {}, "it approves the model churn, not fraud"),
    (approval(digest=OTHER), {}, f"it approves the digest {OTHER}, not {DIGEST}"),
    (approval(rollout="fraud-v2.2"), {}, "it approves the rollout fraud-v2.2, not fraud-v2"),
    (said_by(ADA, predicateType="https://drift-pipeline.dev/approval/v1"), {}, "predicateType: Input should be"),
    (said_by(ADA, rollout=None), {}, "rollout: Field required"),
    (approval(ADA_TOO), {"trainer_key_id": ADA.key_id}, "trained this model and cannot approve it"),
    (approval(expires=NOW + 36500 * DAY), {}, "it lasts 36501d, longer than 90d"),
    (approval(environment="staging"), {}, "it approves the environment staging, not production"),
    (approval(environment="replay"), {}, "it approves the environment replay, not production"),
    (approval(TRAINER), {}, "trained this model and cannot approve it"),
    (approval(TRAINER, trainer=BOB.key_id), {}, "trained this model and cannot approve it"),
    (approval(trainer=BOB.key_id), {}, f"it names the trainer {BOB.key_id[:16]}, who is {TRAINER.key_id[:16]}"),
    (approval(REPLAYER), {}, "is a replay-only key, and this is production"),
    (said_by(REPLAYER, approver=REPLAYER.key_id, label="ops"), {}, "is a replay-only key, and this is production"),
    (approval(at=NOW + timedelta(seconds=1)), {}, "it is valid from 2026-03-02T12:00:01+00:00, and it is"),
    (approval(expires=NOW), {}, "it expired at 2026-03-02T12:00:00+00:00, and it is 2026-03-02T12:00:00+00:00"),
]


@pytest.mark.parametrize(
    ("envelope", "asked", "reason"), REFUSED, ids=[re.sub("[0-9a-f]{16}", "KEY", reason) for *_, reason in REFUSED]
)
def test_what_does_not_hold_is_refused(envelope: dict[str, Any], asked: dict[str, Any], reason: str) -> None:
    found = check(envelope, **asked)
    assert isinstance(found, Refusal)
    assert reason in found.reason


def test_what_holds_is_the_approval() -> None:
    found = check(approval())
    assert isinstance(found, Approval)
    assert (found.model, found.digest, found.environment) == ("fraud", DIGEST, "production")
    assert (found.approver, found.label, found.trainer) == (ADA.key_id, "ada", TRAINER.key_id)
    assert (found.at, found.expires) == (NOW - DAY, NOW + DAY)


def test_an_approval_holds_from_its_first_moment() -> None:
    assert isinstance(check(approval(at=NOW)), Approval)


def test_a_replay_only_key_approves_in_replay() -> None:
    assert isinstance(check(approval(REPLAYER, environment="replay"), environment="replay"), Approval)


def test_a_replay_only_key_does_not_shed_its_label_in_the_list_of_keys() -> None:
    relabelled = {REPLAYER.key_id: PublicKey(REPLAYER.public.raw, "ops")}
    found = check(approval(REPLAYER), keys=relabelled)
    assert found == Refusal(f"ops ({REPLAYER.key_id[:16]}) is a replay-only key, and this is production")


def test_every_changed_byte_of_the_payload_is_refused() -> None:
    envelope = approval()
    payload = base64.b64decode(envelope["payload"])
    for position in range(0, len(payload), 7):
        changed = payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :]
        assert isinstance(check({**envelope, "payload": base64.b64encode(changed).decode()}), Refusal)


def test_a_time_in_another_zone_is_the_same_time() -> None:
    summer = timezone(timedelta(hours=2))
    assert approval(at=(NOW - DAY).astimezone(summer), expires=(NOW + DAY).astimezone(summer)) == approval()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "abc"}, "digest: "),
        ({"model": "../fraud"}, "model: "),
        ({"environment": ""}, "environment: "),
        ({"reason": ""}, "reason: "),
        ({"trainer": "ada"}, "trainer: "),
        ({"at": datetime(2026, 3, 1)}, "at: "),  # noqa: DTZ001
        ({"expires": NOW - DAY}, "it expires at"),
    ],
)
def test_what_could_never_count_is_not_signed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        approval(**change)


def test_two_approvers_are_two_files_and_two_approvals(tmp_path: Path) -> None:
    paths = [write_approval(tmp_path, approval(signer)) for signer in (ADA, BOB)]
    name = DIGEST.removeprefix("sha256:")
    folder = tmp_path / "approvals" / "fraud"
    assert paths == [folder / f"{name}.production.{who.key_id}.dsse.json" for who in (ADA, BOB)]
    found = read_approvals(tmp_path, "fraud", DIGEST)
    assert sorted(map(str, found)) == sorted(map(str, (approval(ADA), approval(BOB))))
    assert count_valid(map(check, found)) == 2
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)


def test_two_keys_of_one_person_count_once() -> None:
    assert count_valid(map(check, [approval(ADA), approval(ADA_TOO)])) == 1
    assert count_valid(map(check, [approval(ADA), approval(ADA_TOO), approval(BOB)])) == 2


def test_an_approval_in_a_replay_may_last_as_long_as_its_virtual_time_wants() -> None:
    envelope = approval(REPLAYER, environment="replay", expires=NOW + 400 * DAY)
    assert isinstance(check(envelope, environment="replay"), Approval)


def test_one_approver_counts_once_and_a_refusal_never() -> None:
    twice = [approval(ADA), approval(ADA, reason="once more"), approval(EVE), approval(TRAINER)]
    assert count_valid(map(check, twice)) == 1
    assert count_valid([]) == 0


def test_a_newer_approval_of_the_same_signer_replaces_the_older(tmp_path: Path) -> None:
    for expires in (NOW, NOW + DAY):
        write_approval(tmp_path, approval(expires=expires))
    assert read_approvals(tmp_path, "fraud", DIGEST) == [approval()]


@pytest.mark.parametrize("rest", ["", f"{ADA.key_id}."], ids=["the digest alone", "as before: without environment"])
def test_a_file_of_an_older_name_is_read_too(tmp_path: Path, rest: str) -> None:
    path = write_approval(tmp_path, approval())
    path.rename(path.with_name(f"{DIGEST.removeprefix('sha256:')}.{rest}dsse.json"))
    assert read_approvals(tmp_path, "fraud", DIGEST) == [approval()]


ENVIRONMENTS = ["production", "Production", "eu.west", "eu/west", "../..", "eu west", "ü", "a" * 300, "a" * 301]


def test_no_environment_overwrites_what_was_said_of_another(tmp_path: Path) -> None:
    paths = [write_approval(tmp_path, approval(environment=name)) for name in ENVIRONMENTS]
    assert len({path.name.casefold() for path in paths}) == len(ENVIRONMENTS)
    assert {path.parent for path in paths} == {tmp_path / "approvals" / "fraud"}
    found = [check(envelope) for envelope in read_approvals(tmp_path, "fraud", DIGEST)]
    assert count_valid(found) == 1
    assert len(found) == len(ENVIRONMENTS)


WANTED: list[tuple[dict[str, int], list[tuple[Signer, str]], int]] = [
    ({"approver": 2}, [(ADA, "approver"), (ADA_TOO, "approver")], 1),
    ({"approver": 2}, [(ADA, "approver"), (BOB, "approver")], 2),
    ({"approver": 1}, [(ADA, "approver"), (BOB, "approver")], 1),
    ({"approver": 1}, [(RISK, "risk")], 0),
    ({"approver": 1, "risk": 1}, [(ADA, "approver"), (BOB, "approver")], 1),
    ({"approver": 1, "risk": 1}, [(ADA, "approver"), (RISK, "risk")], 2),
    ({"approver": 1, "risk": 1}, [(BOTH, "approver"), (BOTH, "risk")], 1),
    ({"approver": 1, "risk": 1}, [(ADA, "approver"), (ADA_TOO, "risk")], 1),
    ({"approver": 1, "risk": 1}, [(BOTH, "approver"), (BOTH, "risk"), (RISK, "risk")], 2),
    ({"approver": 2, "risk": 1}, [(BOTH, "approver"), (BOTH, "risk"), (RISK, "risk"), (EVE, "approver")], 2),
    ({"approver": 1, "risk": 1, "legal": 1}, [(ADA, "approver"), (RISK, "risk")], 2),
]


@pytest.mark.parametrize(("wanted", "signed", "count"), WANTED)
def test_each_person_fills_one_place_of_those_that_are_wanted(
    wanted: dict[str, int], signed: list[tuple[Signer, str]], count: int
) -> None:
    outcomes = [check(approval(signer, role=role)) for signer, role in signed]
    assert filled(outcomes, wanted) == filled(outcomes[::-1], wanted) == count


def test_only_this_model_and_this_digest_are_read(tmp_path: Path) -> None:
    for envelope in (approval(), approval(digest=OTHER), approval(model="churn")):
        write_approval(tmp_path, envelope)
    assert read_approvals(tmp_path, "fraud", DIGEST) == [approval()]
    assert read_approvals(tmp_path, "nobody", DIGEST) == []


def test_a_file_under_another_digest_s_name_does_not_count(tmp_path: Path) -> None:
    path = write_approval(tmp_path, approval(digest=OTHER))
    path.rename(path.with_name(path.name.replace(OTHER[7:], DIGEST[7:])))
    assert count_valid(map(check, read_approvals(tmp_path, "fraud", DIGEST))) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "no JSON"),
        (b'{"payload": %s}' % (b"9" * 5000), "cannot be read"),
        (b" " * (MOST_BYTES + 1), "cannot be read"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_hides_no_other(tmp_path: Path, data: bytes, reason: str) -> None:
    path = write_approval(tmp_path, approval(BOB))
    path.write_bytes(data)
    write_approval(tmp_path, approval(ADA))
    outcomes = list(map(check, read_approvals(tmp_path, "fraud", DIGEST)))
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert refused.reason.startswith(path.name)
    assert reason in refused.reason
    assert count_valid(outcomes) == 1


@pytest.mark.parametrize("odd", ["a pipe", "a device", "half of a surrogate pair", "a long word", "a name of bytes"])
def test_what_a_stranger_files_holds_up_nobody_and_can_be_told_in_the_audit(tmp_path: Path, odd: str) -> None:
    path = write_approval(tmp_path, approval(BOB))
    write_approval(tmp_path, approval(ADA))
    signed_by = "\ud800" if odd.startswith("half") else "x" * 10**5
    stranger = {**approval(BOB), "signatures": [{"keyid": signed_by, "sig": "eA=="}]}
    match odd:
        case "a pipe":
            path.unlink()
            os.mkfifo(path)
        case "a device":
            path.unlink()
            path.symlink_to("/dev/zero")
        case "a name of bytes":
            os.rename(path, os.fsencode(path).replace(b".dsse", b"\xff.dsse"))
        case _:
            path.write_text(json.dumps(stranger))
    outcomes = list(map(check, read_approvals(tmp_path, "fraud", DIGEST)))
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    assert len(canonical(refused.reason)) < 2100
    assert count_valid(outcomes) == 1


@pytest.mark.parametrize("envelope", [{}, {"payload": "%"}, {"payload": "e30="}, {"payload": None}])
def test_what_is_no_approval_is_not_written(tmp_path: Path, envelope: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no approval"):
        write_approval(tmp_path, envelope)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "approvals").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_approval(tmp_path, approval())


@pytest.mark.parametrize("model", ["../fraud", "", "Fraud", "fraud/x"])
def test_a_name_never_leads_out_of_the_folder(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match="no model's name"):
        read_approvals(tmp_path, model, DIGEST)


def test_a_digest_is_no_pattern(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no digest"):
        read_approvals(tmp_path, "fraud", "sha256:*")
