"""Give a waiver: one gate that did not pass stands aside for one version; all that could make it not count is found
out before it is filed."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.trust import open_store, require_store
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.statements import (
    advice,
    approvals_wanted,
    asked_of,
    audit_refusal,
    candidate_of,
    file_signed,
    signed_from_now,
    unfit,
    waivers_filed,
)
from drift_pipeline.rollout.signed import Asked, Refusal
from drift_pipeline.rollout.waiver import AcceptedWaiver, Waiver, blocking, unwaived, verify_waiver
from drift_pipeline.settings import Settings
from drift_pipeline.spec import APPROVER


@dataclass(frozen=True)
class Waived:
    """A waiver that is filed. `lacking` are the gates that still keep the version back, each with the waivers it has of
    the `wanted` ones; `refused` are those that do not count."""

    path: Path
    version: str
    digest: str
    gate: str
    approver: str
    role: str
    expires: datetime
    wanted: int
    lacking: dict[str, int]
    refused: tuple[str, ...]


def waive(
    settings: Settings,
    signer: Signer,
    model: str,
    version: str,
    gate: str,
    reason: str,
    lasting: timedelta,
    clock: Clock,
    role: str | None = None,
) -> Waived | Refusal:
    """File the signer's waiver of one gate of one version for `settings.environment`; a refusal is audited, and files
    nothing. Arguments and errors as of `approve`; also InputError where the version has no such gate."""
    require_store(settings)
    with closing(open_store(settings, clock)) as store:
        body = candidate_of(store, model, version)
        _require_gate(body, gate, version)
        asked = asked_of(settings, store, body, model, clock.now())
        found = _signed_waiver(settings, signer, asked, body, gate, reason, lasting, role)
        told = {"version": body["version"], "gate": gate}
        if isinstance(found, Refusal):
            audit_refusal(store, "waiver", signer, asked, told, found)
            return found
        envelope, outcome = found
        path = file_signed(settings, store, clock, signer, asked, Waiver, envelope, told)
    wanted = approvals_wanted(settings, model) or {APPROVER: 1}
    outcomes = waivers_filed(settings, asked, body)
    return Waived(
        path=path,
        version=body["version"],
        digest=asked.digest,
        gate=gate,
        approver=str(signer.public),
        role=outcome.role,
        expires=outcome.expires,
        wanted=sum(wanted.values()),
        lacking=unwaived(blocking(body["results"]), outcomes, wanted),
        refused=tuple(other.reason for other in outcomes if isinstance(other, Refusal)),
    )


def _require_gate(body: Any, gate: str, version: str) -> None:
    names = [str(result["name"]) for result in body.get("results", ())]
    if body.get("passed") is not None and gate not in names:
        raise InputError(f"--gate {gate}: {version} has no such gate; there are: {', '.join(names) or 'none'}")


def _signed_waiver(
    settings: Settings,
    signer: Signer,
    asked: Asked,
    body: Any,
    gate: str,
    reason: str,
    lasting: timedelta,
    role: str | None,
) -> tuple[dict[str, Any], AcceptedWaiver] | Refusal:
    """The envelope, which holds, and what it says; or why it would not."""
    if body.get("passed") is None:
        return Refusal("its gates were not asked yet; wait until it is proven")
    blocked = blocking(body.get("results", ()))
    if gate not in blocked:
        return Refusal(f"its gate {gate} passed; there is nothing to waive")
    if fault := unfit(settings, signer, asked, body, "waive"):
        return Refusal(fault)
    envelope = signed_from_now(Waiver, signer, asked, reason, lasting, role, gate=gate)
    outcome = verify_waiver(envelope, asked, blocked)
    return (
        Refusal(outcome.reason + advice(settings, signer, asked))
        if isinstance(outcome, Refusal)
        else (envelope, outcome)
    )
