"""Approvals: a person's signed yes to one rollout of one digest in one environment.

Filed as `approvals/<model>/<sha256 hex>.<environment>.<key id>.dsse.json`; `<sha256 hex>.dsse.json`, written elsewhere,
and names without the environment are read as well. A multi-signature envelope is one payload, so the second signer
would sign the first one's words: each signs a file of their own.
"""

from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from drift_pipeline.control.signing import Signer
from drift_pipeline.rollout import signed
from drift_pipeline.rollout.signed import REPLAY, REPLAY_ONLY, Asked, Refusal, Statement

__all__ = [
    "REPLAY",
    "REPLAY_ONLY",
    "Accepted",
    "Approval",
    "Refusal",
    "approval_files",
    "count_valid",
    "filled",
    "read_approvals",
    "sign_approval",
    "verify_approval",
    "write_approval",
]

APPROVAL_TYPE = "application/vnd.drift.approval+json"


class Approval(Statement):
    """What an approver says of one rollout."""

    kind: ClassVar[str] = "approval"
    verb: ClassVar[str] = "approves"
    payload_type: ClassVar[str] = APPROVAL_TYPE
    predicate_type: ClassVar[str] = "https://drift-pipeline.dev/approval/v2"
    scope: ClassVar[tuple[str, ...]] = ("environment",)

    predicateType: Literal["https://drift-pipeline.dev/approval/v2"]  # noqa: N815  # in-toto's spelling
    rollout: str = Field(min_length=1)


class Accepted(Approval):
    """An approval that holds, and whose it is: the `PublicKey.person` of the key that is trusted."""

    person: str


def sign_approval(signer: Signer, *, rollout: str, **said: Any) -> dict[str, Any]:
    """The envelope of a yes to one rollout; other arguments and errors as of `signed.sign`."""
    return signed.sign(Approval, signer, rollout=rollout, **said)


def write_approval(folder: Path, envelope: Mapping[str, Any]) -> Path:
    """Write it below `folder`, the GitOps checkout; errors as of `signed.write`."""
    return signed.write(Approval, folder, envelope)


def read_approvals(folder: Path, model: str, digest: str) -> list[dict[str, Any] | Refusal]:
    """The envelopes filed for this digest, unverified and in the order of their names; none filed is an empty list.

    A file that cannot be read is a refusal that names it: it neither counts nor hides the others.

    Raises:
        InputError: no model's name, or no digest.
    """
    return [signed.read(path) for path in approval_files(folder, model, digest)]


def approval_files(folder: Path, model: str, digest: str) -> list[Path]:
    """Where the approvals of this digest lie; errors as of `read_approvals`."""
    return signed.files(Approval, folder, model, digest)


def verify_approval(envelope: Mapping[str, Any] | Refusal, asked: Asked, rollout: str) -> Approval | Refusal:
    """The approval if it holds for exactly this rollout, of which a version may have several; a refusal stays one.

    Args:
        envelope: one of `read_approvals`.
    """
    found = signed.judge(Approval, envelope, asked, {"rollout": rollout})
    return found if isinstance(found, Refusal) else Accepted(**found[0].model_dump(), person=found[1])


def count_valid(outcomes: Iterable[Any]) -> int:
    """Distinct people among what was verified: two keys of one identity are one."""
    return len({outcome.person for outcome in outcomes if hasattr(outcome, "person")})


def filled(outcomes: Iterable[Any], wanted: Mapping[str, int]) -> int:
    """How many of the places that a spec wants (how many people of each role) distinct people fill, each person one.

    The largest matching, by König's theorem in the form for places: the least, over all sets of roles, of the places
    of other roles and the people who signed in one of these.
    """
    told: dict[str, set[str]] = {role: set() for role in wanted}
    for outcome in outcomes:
        if hasattr(outcome, "person") and outcome.role in told:
            told[outcome.role].add(outcome.person)
    sets = chain.from_iterable(combinations(wanted, size) for size in range(len(wanted) + 1))
    return min(
        sum(count for role, count in wanted.items() if role not in some) + len(set().union(*(told[r] for r in some)))
        for some in sets
    )
