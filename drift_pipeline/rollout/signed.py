"""What people sign about a version, an approval or a waiver: its fields, its checks, and the folder it is filed in.

One DSSE file a signer in the GitOps repository, `<kind>s/<model>/<sha256 hex>.<scope ...>.<key id>.dsse.json`: each has
a reason, a time and an expiry of its own, and two who sign on two branches merge without a conflict. The environment
is part of the name, so that nobody's word for one replaces that for another.

A deleted file is withdrawn. Git keeps who did it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from drift_pipeline.clock import format_duration
from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.signing import PublicKey, Signer, verify
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.files import read_plain, write_whole
from drift_pipeline.spec import APPROVER, ROLE

REPLAY = "replay"
REPLAY_ONLY = "replay-only"
LONGEST_NAME = 40  # of a part of a file's name; a longer one is told by its hash
MOST_BYTES = 1 << 20  # of a file
_MOST_TOLD = 2_000  # letters of a reason

_MODEL = r"^[a-z][a-z0-9_]{0,63}$"
_DIGEST = r"^sha256:[0-9a-f]{64}$"
_KEY_ID = r"^[0-9a-f]{64}$"


class Statement(BaseModel):
    """What a person says of one digest. `approver` and `trainer` are key ids; `label` is the signer's own, or null."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]  # how it is called, and with an s the folder it is filed in
    verb: ClassVar[str]
    payload_type: ClassVar[str]
    predicate_type: ClassVar[str]
    scope: ClassVar[tuple[str, ...]]  # the fields that its file's name has between the digest and the key

    model: str = Field(pattern=_MODEL)
    digest: str = Field(pattern=_DIGEST)
    environment: str = Field(min_length=1)
    role: str = Field(pattern=ROLE)
    approver: str = Field(pattern=_KEY_ID)
    label: str | None
    trainer: str = Field(pattern=_KEY_ID)
    reason: str = Field(min_length=1)
    at: AwareDatetime
    expires: AwareDatetime

    @model_validator(mode="after")
    def _expires_after_it_is_given(self) -> "Statement":
        if self.expires <= self.at:
            raise ValueError(f"it expires at {self.expires}, before it is given at {self.at}")
        return self

    @property
    def file_name(self) -> str:
        parts = (self.digest.removeprefix("sha256:"), *(_spelled(getattr(self, name)) for name in self.scope))
        return f"{'.'.join(parts)}.{self.approver}.dsse.json"


S = TypeVar("S", bound=Statement)


def shown(text: str) -> str:
    """A stranger's words as they can be told: half of a surrogate pair is none, and moves no cursor."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[: _MOST_TOLD + 1])
    return plain if len(plain) <= _MOST_TOLD else f"{plain[:_MOST_TOLD]}..."


@dataclass(frozen=True)
class Refusal:
    """What does not count, and why; for the audit, so without what a stranger wrote that cannot be told, or is long."""

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", shown(self.reason))


@dataclass(frozen=True)
class Asked:
    """What a statement has to be for, and by whom.

    Args:
        keys: who may sign, from a protected ref, with their roles.
        model, digest, environment: of the candidate's stored bytes, recomputed, and where it is rolled out.
        trainer_key_id: the key that attested the training, as the candidate's record has it; whoever holds it may not
            sign, by another key neither.
        longest: one that was given for longer does not count, but in a replay, whose clock is virtual.
        now: aware; a statement is valid from `at` until before `expires`.
    """

    keys: Mapping[str, PublicKey]
    model: str
    digest: str
    environment: str
    trainer_key_id: str
    longest: timedelta
    now: datetime


def sign(
    kind: type[Statement],
    signer: Signer,
    *,
    model: str,
    digest: str,
    environment: str,
    trainer: str,
    reason: str,
    at: datetime,
    expires: datetime,
    role: str = APPROVER,
    **of: str,
) -> dict[str, Any]:
    """The envelope of what the signer says. Self-approval is refused on reading.

    Args:
        trainer: the id of the key that attested the training.
        of: what the kind says besides, such as the rollout of an approval.

    Raises:
        InputError: a field is not of its form, a time has no zone, or it expires before it is given.
    """
    said: dict[str, Any] = {
        "predicateType": kind.predicate_type,
        "model": model,
        "digest": digest,
        "environment": environment,
        **of,
    }
    said |= {"role": role, "approver": signer.key_id, "label": signer.public.label, "trainer": trainer}
    times = {"at": at, "expires": expires}
    try:
        kind.model_validate({**said, "reason": reason, **times})
    except ValidationError as error:
        raise InputError(f"no {kind.kind}: {_told(error)}") from error
    told = {name: time.astimezone(UTC).isoformat() for name, time in times.items()}
    return signer.sign({**said, "reason": reason, **told}, kind.payload_type)


def write(kind: type[Statement], folder: Path, envelope: Mapping[str, Any]) -> Path:
    """Write it below `folder`, the GitOps checkout, whole or not at all; a signer's newer one replaces the older.

    Raises:
        InputError: the envelope holds nothing of the kind, or the folder cannot be written.
    """
    try:
        said = kind.model_validate_json(base64.b64decode(envelope["payload"], validate=True))
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"the envelope holds no {kind.kind}: {error}") from error
    return write_whole(place(kind, folder, said.model) / said.file_name, canonical(dict(envelope)) + b"\n")


def place(kind: type[Statement], folder: Path, model: str) -> Path:
    """Where those of a model are filed. Raises InputError where it is no model's name."""
    if not re.fullmatch(_MODEL, model):
        raise InputError(f"{model!r} is no model's name, which is {_MODEL}")
    return folder / f"{kind.kind}s" / model


def files(kind: type[Statement], folder: Path, model: str, digest: str) -> list[Path]:
    """Where those of this digest lie, by name. Raises InputError: no model's name, or no digest."""
    if not re.fullmatch(_DIGEST, digest):
        raise InputError(f"{digest!r} is no digest sha256:<64 hex>")
    return sorted(place(kind, folder, model).glob(f"{digest.removeprefix('sha256:')}.*dsse.json"))


def read(path: Path) -> dict[str, Any] | Refusal:
    """The envelope of a file, unverified; a refusal that names it where it cannot be read, or where no statement has
    such a name."""
    if not (path.name.isascii() and path.name.isprintable()):
        return Refusal(f"{path.name} is no name of a filed statement")
    try:
        envelope = json.loads(read_plain(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        return Refusal(f"{path.name} cannot be read: {error}")
    return envelope if isinstance(envelope, dict) else Refusal(f"{path.name} is no JSON object")


def judge(
    kind: type[S], envelope: Mapping[str, Any] | Refusal, asked: Asked, more: Mapping[str, str]
) -> tuple[S, str] | Refusal:
    """What the envelope says, and whose word it is (`PublicKey.person` of the trusted key), if it holds for exactly
    this; a refusal stays one.

    Args:
        more: further fields that it has to say, such as the rollout of an approval.
    """
    if isinstance(envelope, Refusal):
        return envelope
    try:
        payload, signers = verify(envelope, asked.keys, kind.payload_type)
        said = kind.model_validate(payload)
    except ValidationError as error:
        return Refusal(f"no {kind.kind}: {_told(error)}")
    except IntegrityError as error:
        return Refusal(str(error))
    by = next((key for key in asked.keys.values() if key.key_id == said.approver and key.key_id in signers), None)
    if by is None:
        return Refusal(f"it names the approver {said.approver[:16]}, who did not sign it")
    refused = next(_objections(said, by, asked, more), None)
    return (said, by.person) if refused is None else Refusal(refused)


def _objections(said: Statement, by: PublicKey, asked: Asked, more: Mapping[str, str]) -> Iterator[str]:
    """Why it does not count, the first of which is told."""
    wanted = {"model": asked.model, "digest": asked.digest, **more, "environment": asked.environment}
    for name, value in wanted.items():
        if (found := getattr(said, name)) != value:
            yield f"it {said.verb} the {name} {found}, not {value}"
    trainer = next((key.person for key in asked.keys.values() if key.key_id == asked.trainer_key_id), None)
    if said.approver == asked.trainer_key_id or by.person == trainer:
        yield f"{by} trained this model and cannot {said.verb.removesuffix('s')} it"
    if said.trainer != asked.trainer_key_id:
        yield f"it names the trainer {said.trainer[:16]}, who is {asked.trainer_key_id[:16]}"
    if said.role not in by.roles:
        yield f"it is signed as {said.role}, and {by} was appointed as {', '.join(by.roles)}"
    if asked.environment != REPLAY and REPLAY_ONLY in (by.label, said.label):
        yield f"{by} is a {REPLAY_ONLY} key, and this is {asked.environment}"
    if asked.environment != REPLAY and (lasts := said.expires - said.at) > asked.longest:
        longest = format_duration(asked.longest)
        yield f"it lasts {format_duration(lasts)}, longer than {longest} (DRIFT_LONGEST_APPROVAL_DAYS)"
    if asked.now < said.at:
        yield f"it is valid from {said.at.isoformat()}, and it is {asked.now.isoformat()}"
    if asked.now >= said.expires:
        yield f"it expired at {said.expires.isoformat()}, and it is {asked.now.isoformat()}"


def _spelled(text: str) -> str:
    """As part of a file's name, on any file system: other texts give other parts, of other letters than case alone."""
    plain = quote(text, safe="")
    if plain == plain.lower() and len(plain) <= LONGEST_NAME and "." not in plain:
        return plain
    return f"{re.sub('[^a-z0-9]+', '-', text.lower())[:LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _told(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors(include_url=False))
