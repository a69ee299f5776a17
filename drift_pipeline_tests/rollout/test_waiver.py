"""A waiver counts for exactly one gate of one digest in one environment, and each gate wants as many as an approval."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.signing import Signer
from drift_pipeline.errors import InputError
from drift_pipeline.rollout import signed
from drift_pipeline.rollout.approval import Approval, sign_approval
from drift_pipeline.rollout.signed import Asked, Refusal
from drift_pipeline.rollout.waiver import (
    AcceptedWaiver,
    Waiver,
    sign_waiver,
    unwaived,
    verify_waiver,
    waived_digests,
    waiver_files,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DIGEST, OTHER = sha256(b"model"), sha256(b"another model")
ADA, ADA_TOO, BOB, EVE = (Signer.generate(*who) for who in (("ada",), ("laptop", " ADA "), ("bob",), ("eve",)))
RISK, TRAINER, REPLAYER = (Signer.generate(label) for label in ("rita", "trainer", "replay-only"))
KEYS = {signer.key_id: signer.public for signer in (ADA, ADA_TOO, BOB, TRAINER, REPLAYER)}
KEYS[RISK.key_id] = replace(RISK.public, roles=("risk",))
BLOCKED = ("poison_floor", "parity:age_band")
ASKED = Asked(KEYS, "fraud", DIGEST, "production", TRAINER.key_id, 90 * DAY, NOW)


def waiver(signer: Signer = ADA, **changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"model": "fraud", "digest": DIGEST, "gate": "poison_floor", "environment": "production"}
    said |= {"trainer": TRAINER.key_id, "reason": "the concept turned", "at": NOW - DAY, "expires": NOW + DAY}
    return sign_waiver(signer, **{**said, **changes})


def approval() -> dict[str, Any]:
    said: dict[str, Any] = {"model": "fraud", "digest": DIGEST, "rollout": "fraud-v2", "environment": "production"}
    return sign_approval(ADA, **said, trainer=TRAINER.key_id, reason="r", at=NOW - DAY, expires=NOW + DAY)


def check(envelope: dict[str, Any] | Refusal, **changes: Any) -> AcceptedWaiver | Refusal:
    return verify_waiver(envelope, replace(ASKED, **changes), BLOCKED)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "forged": ({**waiver(), "payload": waiver(digest=OTHER)["payload"]}, {"digest": OTHER}, "bad signature"),
    "an approval": (approval(), {}, "the payload type is"),
    "a stranger's": (waiver(EVE), {}, "no known key signed this"),
    "of a revoked key": (waiver(ADA), {"keys": {BOB.key_id: BOB.public}}, "no known key signed this"),
    "of another model": (waiver(model="churn"), {}, "it waives the model churn, not fraud"),
    "replayed for another digest": (waiver(), {"digest": OTHER}, f"it waives the digest {DIGEST}, not {OTHER}"),
    "of another environment": (waiver(environment="staging"), {}, "it waives the environment staging, not production"),
    "of a gate that passed": (waiver(gate="latency"), {}, "the gate latency, which does not keep this version back"),
    "the trainer's own": (waiver(TRAINER), {}, "trained this model and cannot waive it"),
    "the trainer's other key": (waiver(ADA_TOO), {"trainer_key_id": ADA.key_id}, "trained this model and cannot waive"),
    "of another trainer": (waiver(trainer=BOB.key_id), {}, "it names the trainer"),
    "of a role the key has not": (waiver(role="risk"), {}, "it is signed as risk, and ada"),
    "a replay's": (waiver(REPLAYER), {}, "is a replay-only key, and this is production"),
    "too long": (waiver(expires=NOW + 100 * DAY), {}, "it lasts 101d, longer than 90d"),
    "not yet": (waiver(at=NOW + timedelta(seconds=1)), {}, "it is valid from"),
    "expired": (waiver(expires=NOW), {}, "it expired at"),
    "no envelope": ({}, {}, "no DSSE envelope"),
}


@pytest.mark.parametrize(("envelope", "asked", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_hold_is_refused(envelope: dict[str, Any], asked: dict[str, Any], reason: str) -> None:
    found = check(envelope, **asked)
    assert isinstance(found, Refusal)
    assert reason in found.reason


def test_what_holds_is_the_waiver_and_is_no_approval() -> None:
    found = check(waiver())
    assert isinstance(found, AcceptedWaiver)
    assert (found.gate, found.person, found.approver) == ("poison_floor", "ada", ADA.key_id)
    assert isinstance(signed.judge(Approval, waiver(), ASKED, {"rollout": "fraud-v2"}), Refusal)


@pytest.mark.parametrize(
    ("wanted", "given", "lacking"),
    [
        ({"approver": 1}, [(ADA, "poison_floor", "approver")], {"parity:age_band": 0}),
        ({"approver": 1}, [(ADA, gate, "approver") for gate in BLOCKED], {}),
        ({"approver": 2}, [(ADA, gate, "approver") for gate in BLOCKED], dict.fromkeys(BLOCKED, 1)),
        (
            {"approver": 2},
            [(who, gate, "approver") for who in (ADA, ADA_TOO) for gate in BLOCKED],
            dict.fromkeys(BLOCKED, 1),
        ),
        ({"approver": 2}, [(who, gate, "approver") for who in (ADA, BOB) for gate in BLOCKED], {}),
        ({"approver": 1, "risk": 1}, [(ADA, gate, "approver") for gate in BLOCKED], dict.fromkeys(BLOCKED, 1)),
        (
            {"approver": 1, "risk": 1},
            [(ADA, gate, "approver") for gate in BLOCKED] + [(RISK, gate, "risk") for gate in BLOCKED],
            {},
        ),
    ],
)
def test_each_gate_wants_as_many_people_as_an_approval(
    wanted: dict[str, int], given: list[tuple[Signer, str, str]], lacking: dict[str, int]
) -> None:
    outcomes = [check(waiver(signer, gate=gate, role=role)) for signer, gate, role in given]
    assert unwaived(BLOCKED, outcomes, wanted) == lacking


def test_gates_environments_and_signers_have_files_of_their_own(tmp_path: Path) -> None:
    envelopes = [
        waiver(signer, gate=gate, environment=environment)
        for signer in (ADA, BOB)
        for gate in BLOCKED
        for environment in ("production", "staging")
    ]
    paths = {signed.write(Waiver, tmp_path, envelope) for envelope in envelopes}
    assert len(paths) == len(envelopes)
    name = f"{DIGEST.removeprefix('sha256:')}.poison_floor.production.{ADA.key_id}.dsse.json"
    assert tmp_path / "waivers" / "fraud" / name in paths
    assert set(waiver_files(tmp_path, "fraud", DIGEST)) == paths
    assert waived_digests(tmp_path, "fraud") == {DIGEST}
    assert waived_digests(tmp_path, "churn") == set()


@pytest.mark.parametrize("envelope", [{}, {"payload": "%"}, approval()])
def test_what_is_no_waiver_is_not_written(tmp_path: Path, envelope: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no waiver"):
        signed.write(Waiver, tmp_path, envelope)
    assert list(tmp_path.iterdir()) == []
