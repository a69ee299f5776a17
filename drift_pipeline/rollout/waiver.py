"""Waivers: a person's signed word that one gate, which did not pass, may stand aside for one digest in one environment.

Filed as `waivers/<model>/<sha256 hex>.<gate>.<environment>.<key id>.dsse.json`, and held to the same checks as an
approval. Each gate that did not pass wants as many people, of the same roles, as the spec wants to approve a version:
what lets past a gate is no lighter than what lets past the shadow. The gate's result stays what it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from drift_pipeline.control.signing import Signer
from drift_pipeline.rollout import signed
from drift_pipeline.rollout.approval import filled
from drift_pipeline.rollout.signed import Asked, Refusal, Statement

WAIVER_TYPE = "application/vnd.drift.waiver+json"


class Waiver(Statement):
    """What somebody says of one gate."""

    kind: ClassVar[str] = "waiver"
    verb: ClassVar[str] = "waives"
    payload_type: ClassVar[str] = WAIVER_TYPE
    predicate_type: ClassVar[str] = "https://drift-pipeline.dev/waiver/v1"
    scope: ClassVar[tuple[str, ...]] = ("gate", "environment")

    predicateType: Literal["https://drift-pipeline.dev/waiver/v1"]  # noqa: N815  # in-toto's spelling
    gate: str = Field(min_length=1)


class AcceptedWaiver(Waiver):
    """A waiver that holds, and whose it is."""

    person: str


def sign_waiver(signer: Signer, *, gate: str, **said: Any) -> dict[str, Any]:
    """The envelope of a word about one gate; other arguments and errors as of `signed.sign`."""
    return signed.sign(Waiver, signer, gate=gate, **said)


def waiver_files(folder: Path, model: str, digest: str) -> list[Path]:
    """Where the waivers of this digest lie. Raises InputError: no model's name, or no digest."""
    return signed.files(Waiver, folder, model, digest)


def waived_digests(folder: Path, model: str) -> set[str]:
    """Of which bundles any waiver is filed, valid or not; one look at one folder."""
    return {f"sha256:{path.name[:64]}" for path in signed.place(Waiver, folder, model).glob("*.dsse.json")}


def verify_waiver(
    envelope: Mapping[str, Any] | Refusal, asked: Asked, blocked: Sequence[str]
) -> AcceptedWaiver | Refusal:
    """The waiver if it holds for exactly this, and is of a gate that blocks; a refusal stays one.

    Args:
        blocked: the candidate's gates that did not pass.
    """
    found = signed.judge(Waiver, envelope, asked, {})
    if isinstance(found, Refusal):
        return found
    if found[0].gate not in blocked:
        return Refusal(f"it waives the gate {found[0].gate}, which does not keep this version back")
    return AcceptedWaiver(**found[0].model_dump(), person=found[1])


def blocking(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of the gates that did not pass."""
    return [str(gate["name"]) for gate in results if gate["outcome"] != "pass"]


def unwaived(
    blocked: Sequence[str], outcomes: Iterable[AcceptedWaiver | Refusal], wanted: Mapping[str, int]
) -> dict[str, int]:
    """How many of the waivers that it wants each gate has that has too few of them."""
    held = [outcome for outcome in outcomes if isinstance(outcome, AcceptedWaiver)]
    counts = {gate: filled([waiver for waiver in held if waiver.gate == gate], wanted) for gate in blocked}
    return {gate: count for gate, count in counts.items() if count < sum(wanted.values())}


def told_unwaived(lacking: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    """In words; "" where nothing is lacking."""
    of = sum(wanted.values())
    return "; ".join(f"gate {gate} did not pass and has {count} of {of} waivers" for gate, count in lacking.items())
