"""Approvals: a person's signed yes to one rollout of one digest in one environment, as a DSSE file in the GitOps
repository.

One file a signer, `approvals/<model>/<sha256 hex>.<key id>.dsse.json`: each approver has a reason, a time and an expiry
of their own, and two who approve on two branches merge without a conflict. A multi-signature envelope is one payload,
so the second signer would sign the first one's words. `<sha256 hex>.dsse.json`, written elsewhere, is read as well.

A deleted file is a withdrawn approval. Git keeps who did it.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from drift_pipeline.clock import format_duration
from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.signing import PublicKey, Signer, verify
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.files import write_whole

APPROVAL_TYPE = "application/vnd.drift.approval+json"
PREDICATE_TYPE = "https://drift-pipeline.dev/approval/v2"
REPLAY = "replay"
REPLAY_ONLY = "replay-only"

_MODEL = r"^[a-z][a-z0-9_]{0,63}$"
_DIGEST = r"^sha256:[0-9a-f]{64}$"
_KEY_ID = r"^[0-9a-f]{64}$"


class Approval(BaseModel):
    """What an approver says. `approver` and `trainer` are key ids; `label` is the signer's own, or null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predicateType: Literal["https://drift-pipeline.dev/approval/v2"]  # noqa: N815  # in-toto's spelling
    model: str = Field(pattern=_MODEL)
    digest: str = Field(pattern=_DIGEST)
    rollout: str = Field(min_length=1)
    environment: str = Field(min_length=1)
    role: Literal["approver"]
    approver: str = Field(pattern=_KEY_ID)
    label: str | None
    trainer: str = Field(pattern=_KEY_ID)
    reason: str = Field(min_length=1)
    at: AwareDatetime
    expires: AwareDatetime

    @model_validator(mode="after")
    def _expires_after_it_is_given(self) -> "Approval":
        if self.expires <= self.at:
            raise ValueError(f"it expires at {self.expires}, before it is given at {self.at}")
        return self


class Accepted(Approval):
    """An approval that holds, and whose it is: the `PublicKey.person` of the key that is trusted."""

    person: str


@dataclass(frozen=True)
class Refusal:
    """An approval that does not count, and why; for the audit."""

    reason: str


def sign_approval(
    signer: Signer,
    *,
    model: str,
    digest: str,
    rollout: str,
    environment: str,
    trainer: str,
    reason: str,
    at: datetime,
    expires: datetime,
) -> dict[str, Any]:
    """The envelope; `trainer` is the id of the key that attested the training. Self-approval is refused on reading.

    Raises:
        InputError: a field is not of its form, a time has no zone, or it expires before it is given.
    """
    said = {
        "predicateType": PREDICATE_TYPE,
        "model": model,
        "digest": digest,
        "rollout": rollout,
        "environment": environment,
        "role": "approver",
        "approver": signer.key_id,
        "label": signer.public.label,
        "trainer": trainer,
        "reason": reason,
        "at": at,
        "expires": expires,
    }
    try:
        Approval.model_validate(said)
    except ValidationError as error:
        raise InputError(f"no approval: {_told(error)}") from error
    times = {"at": at.astimezone(UTC).isoformat(), "expires": expires.astimezone(UTC).isoformat()}
    return signer.sign({**said, **times}, APPROVAL_TYPE)


def write_approval(folder: Path, envelope: Mapping[str, Any]) -> Path:
    """Write it below `folder`, the GitOps checkout, whole or not at all; a signer's newer approval replaces the older.

    Raises:
        InputError: the envelope holds no approval, or the folder cannot be written.
    """
    try:
        said = Approval.model_validate_json(base64.b64decode(envelope["payload"], validate=True))
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"the envelope holds no approval: {error}") from error
    path = _place(folder, said.model) / f"{said.digest.removeprefix('sha256:')}.{said.approver}.dsse.json"
    return write_whole(path, canonical(dict(envelope)) + b"\n")


def read_approvals(folder: Path, model: str, digest: str) -> list[dict[str, Any] | Refusal]:
    """The envelopes filed for this digest, unverified and in the order of their names; none filed is an empty list.

    A file that cannot be read is a refusal that names it: it neither counts nor hides the others.

    Raises:
        InputError: no model's name, or no digest.
    """
    return [read_approval(path) for path in approval_files(folder, model, digest)]


def approval_files(folder: Path, model: str, digest: str) -> list[Path]:
    """Where the approvals of this digest lie; errors as of `read_approvals`."""
    if not re.fullmatch(_DIGEST, digest):
        raise InputError(f"{digest!r} is no digest sha256:<64 hex>")
    return sorted(_place(folder, model).glob(f"{digest.removeprefix('sha256:')}.*dsse.json"))


def verify_approval(
    envelope: Mapping[str, Any] | Refusal,
    *,
    keys: Mapping[str, PublicKey],
    model: str,
    digest: str,
    rollout: str,
    environment: str,
    trainer_key_id: str,
    longest: timedelta,
    now: datetime,
) -> Approval | Refusal:
    """The approval if it holds for exactly this; a refusal stays one.

    Args:
        envelope: one of `read_approvals`.
        keys: who may approve, from a protected ref.
        model: the model that is rolled out.
        digest: of the candidate's stored bytes, recomputed.
        rollout: its rollout, of which a version may have several.
        environment: where it is rolled out.
        trainer_key_id: the key that attested the training, as the candidate's record has it; whoever holds it may not
            approve, by another key neither.
        longest: one that was given for longer does not count, but in a replay, whose clock is virtual.
        now: aware; an approval is valid from `at` until before `expires`.
    """
    if isinstance(envelope, Refusal):
        return envelope
    try:
        payload, signers = verify(envelope, keys, APPROVAL_TYPE)
        said = Approval.model_validate(payload)
    except ValidationError as error:
        return Refusal(f"no approval: {_told(error)}")
    except IntegrityError as error:
        return Refusal(str(error))
    by = next((key for key in keys.values() if key.key_id == said.approver and key.key_id in signers), None)
    trainer = next((key.person for key in keys.values() if key.key_id == trainer_key_id), None)
    lasts = said.expires - said.at
    objections = (
        (by is None, f"it names the approver {said.approver[:16]}, who did not sign it"),
        (said.model != model, f"it approves the model {said.model}, not {model}"),
        (said.digest != digest, f"it approves the digest {said.digest}, not {digest}"),
        (said.rollout != rollout, f"it approves the rollout {said.rollout}, not {rollout}"),
        (said.environment != environment, f"it approves the environment {said.environment}, not {environment}"),
        (
            said.approver == trainer_key_id or (by is not None and by.person == trainer),
            f"{by} trained this model and cannot approve it",
        ),
        (said.trainer != trainer_key_id, f"it names the trainer {said.trainer[:16]}, who is {trainer_key_id[:16]}"),
        (
            environment != REPLAY and REPLAY_ONLY in (by and by.label, said.label),
            f"{by} is a {REPLAY_ONLY} key, and this is {environment}",
        ),
        (
            environment != REPLAY and lasts > longest,
            f"it lasts {format_duration(lasts)}, longer than {format_duration(longest)} (DRIFT_LONGEST_APPROVAL_DAYS)",
        ),
        (now < said.at, f"it is valid from {said.at.isoformat()}, and it is {now.isoformat()}"),
        (now >= said.expires, f"it expired at {said.expires.isoformat()}, and it is {now.isoformat()}"),
    )
    if refused := next((Refusal(told) for holds, told in objections if holds), None):
        return refused
    assert by is not None, "it was objected to"
    return Accepted(**said.model_dump(), person=by.person)


def count_valid(outcomes: Iterable[Approval | Refusal]) -> int:
    """Distinct people among what `verify_approval` returned: two keys of one identity are one."""
    return len({outcome.person for outcome in outcomes if isinstance(outcome, Accepted)})


def _place(folder: Path, model: str) -> Path:
    if not re.fullmatch(_MODEL, model):
        raise InputError(f"{model!r} is no model's name, which is {_MODEL}")
    return folder / "approvals" / model


def read_approval(path: Path) -> dict[str, Any] | Refusal:
    """The envelope of a file, unverified; a refusal that names it where it cannot be read."""
    try:
        envelope = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return Refusal(f"{path.name} cannot be read: {error}")
    return envelope if isinstance(envelope, dict) else Refusal(f"{path.name} is no JSON object")


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors(include_url=False))
