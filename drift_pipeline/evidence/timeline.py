"""The audit chain as a story: one plain sentence for a person, from each record that has something to tell."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.performance import measured_by
from drift_pipeline.detection.judging.verdict import told_verdict, told_waiting
from drift_pipeline.rollout.plan import version_of

LONGEST = 240

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{12})[0-9a-f]{20,}")
_LONG_NUMBER = re.compile(r"\d+\.\d{4,}")
_WEIGHT = re.compile(r"SetWeight (\d+)")


class Kind(StrEnum):
    """What a sentence is about."""

    INCIDENT = "incident"
    DECISION = "decision"
    TRAINING = "training"
    ROLLOUT = "rollout"
    MODEL = "model"
    APPROVAL = "approval"
    ALERT = "alert"


class Tone(StrEnum):
    GOOD = "good"
    BAD = "bad"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Told:
    """`kind` is a Kind, `tone` a Tone; `key` names what it is about: the incident, the decision or the version."""

    at: datetime
    kind: str
    tone: str
    words: str
    key: str


class Story:
    """Tells records in their order, and remembers which version a digest is: an approval names only the digest."""

    def __init__(self) -> None:
        self._versions: dict[str, str] = {}

    def tell(self, record: AuditRecord) -> Told | None:
        if "bundle" in record.digests and "version" in record.details:
            self._versions[record.digests["bundle"]] = str(record.details["version"])
        return told(record, self._versions)


def story(records: Iterable[AuditRecord]) -> list[Told]:
    """The whole chain; records that have nothing to tell are left out."""
    teller = Story()
    return [said for record in records if (said := teller.tell(record)) is not None]


def told(record: AuditRecord, versions: Mapping[str, str] | None = None) -> Told | None:
    """One record as a sentence on one line of printable characters; None where there is no word for its event.

    Args:
        record: of one model's loop.
        versions: names of bundles by digest, where they are known; a bundle without one is told by 12 hex digits.
    """
    teller = _TELLERS.get(record.event)
    if teller is None:
        return None
    kind, tone, words, key = teller(record, versions or {})
    return Told(datetime.fromisoformat(record.at), str(kind), str(tone), plain(words), key)


def plain(text: object) -> str:
    r"""Text of others on one line: no control characters, short digests, numbers of three significant digits.

    >>> plain("AUROC 0.551234 of sha256:" + "0123456789ab" * 5 + "0123\n\x1b[31m")
    'AUROC 0.551 of 0123456789ab [31m'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = _LONG_NUMBER.sub(lambda found: _short(float(found[0])), _DIGEST.sub(r"\1", line))
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def failed_gates(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a candidate's gates those that did not pass; one that could not be answered blocks like one that failed."""
    return [gate for gate in results if gate["outcome"] != "pass"]


_Said = tuple[Kind, Tone, str, str]
_Versions = Mapping[str, str]


def _adopted(record: AuditRecord, _: _Versions) -> _Said:
    said, version = record.details, str(record.details["version"])
    on = f"trained on {said['rows']:,} rows" if "rows" in said else "only its scores are known"
    return Kind.MODEL, Tone.NEUTRAL, f"{version} is the first champion: {on}", version


def _frozen(record: AuditRecord, _: _Versions) -> _Said:
    said, version = record.details, str(record.details["version"])
    measure = measured_by(said)
    value = said[measure.kpi]
    held = f"no {measure.name} held out" if value is None else f"{measure.told(value)} held out"
    words = f"{version} is watched from here on, against {said['rows']:,} rows and {held}"
    closes = f"; this ends incident {said['closes']}" if said.get("closes") else ""
    return Kind.MODEL, Tone.NEUTRAL, words + closes, version


def _promoted(record: AuditRecord, _: _Versions) -> _Said:
    said = record.details
    return Kind.MODEL, Tone.GOOD, f"{said['version']} takes over from {said['from']}", str(said["version"])


def _registered(record: AuditRecord, _: _Versions) -> _Said:
    version = str(record.details["version"])
    return Kind.MODEL, Tone.NEUTRAL, f"{version} is registered: it may be shipped", version


def _incident(change: str, tone: Tone) -> Callable[[AuditRecord, _Versions], _Said]:
    def tell(record: AuditRecord, _: _Versions) -> _Said:
        found = record.details["kpis"].items()
        if tone is Tone.GOOD:
            why = ", ".join(f"{name} {kpi['verdict']}" for name, kpi in found)
        else:
            why = "; ".join(f"{name} {kpi['verdict']}, {kpi['reason']}" for name, kpi in found)
        features = ", ".join(map(str, record.details.get("features", [])[:3]))
        drifting = f"; drifting: {features}" if features and tone is not Tone.GOOD else ""
        return Kind.INCIDENT, tone, f"incident {change}: {why or 'no KPI is named'}{drifting}", record.details["key"]

    return tell


def _undecided(record: AuditRecord, _: _Versions) -> _Said:
    found = record.details.get("verdict")
    why = f": {'; '.join([told_verdict(found), *told_waiting(found['not_judged'])])}" if found else ""
    return Kind.ALERT, Tone.BAD, f"monitoring is undecided: there is too little evidence{why}", record.details["key"]


def _decision(record: AuditRecord, _: _Versions) -> _Said:
    action = str(record.details["action"])
    tone = Tone.BAD if action == "hotfix_retrain" else Tone.NEUTRAL
    why = "; ".join(map(str, record.details["reasons"])) or "no reason is given"
    return Kind.DECISION, tone, f"policy decides {action}: {why}", f"{record.subject}-{record.seq}"


def _started(record: AuditRecord, _: _Versions) -> _Said:
    said, version = record.details, str(record.details["version"])
    words = f"{version} gets {said['rows']:,} labelled rows, of which the newest {said['block']:,} prove it"
    return Kind.TRAINING, Tone.NEUTRAL, words, version


def _trained(record: AuditRecord, _: _Versions) -> _Said:
    version = str(record.details["version"])
    return Kind.TRAINING, Tone.NEUTRAL, f"{version} trained on {record.details['rows']:,} rows", version


def _proven(record: AuditRecord, _: _Versions) -> _Said:
    said, version = record.details, str(record.details["version"])
    measure = measured_by(said)
    before, after = (said[measure.kpi][side] for side in ("before", "after"))
    gain = f"{measure.moved(before, after)} on {said['proven_on']['rows']:,} unseen rows"
    return Kind.TRAINING, Tone.GOOD, f"{version} passed its gates: {gain}", version


def _rejected(record: AuditRecord, _: _Versions) -> _Said:
    version, failed = str(record.details["version"]), failed_gates(record.details["results"])
    why = "; ".join(f"{gate['name']}: {gate['reason']}" for gate in failed) or "no gate was asked"
    return Kind.TRAINING, Tone.BAD, f"{version} rejected: {why}", version


def _refused(record: AuditRecord, _: _Versions) -> _Said:
    said = record.details
    return Kind.TRAINING, Tone.BAD, f"no training: {said['because']}", str(said["decision"])


def _rollout(words: str, tone: Tone) -> Callable[[AuditRecord, _Versions], _Said]:
    def tell(record: AuditRecord, _: _Versions) -> _Said:
        said = record.details
        version = version_of(record.subject, str(said["rollout_id"]))
        weight = next((found[1] for effect in said["effects"] if (found := _WEIGHT.match(effect))), "part")
        told = words.format(version=version, weight=weight, reason=said["reason"])
        return Kind.ROLLOUT, tone, told, version

    return tell


def _held(record: AuditRecord, _: _Versions) -> _Said:
    said, version = record.details, version_of(record.subject, str(record.details["rollout"]))
    words = f"policy holds {version} before {said['step']}: {'; '.join(map(str, said['reasons']))}"
    return Kind.ROLLOUT, Tone.BAD, words, version


def _approval(record: AuditRecord, versions: _Versions) -> _Said:
    said, digest = record.details, record.digests.get("bundle", "")
    name = str(said.get("version") or versions.get(digest) or f"bundle {digest.removeprefix('sha256:')[:12]}")
    if record.event == "approval.refused":
        return Kind.APPROVAL, Tone.BAD, f"an approval of {name} does not count: {said['reason']}", name
    if record.event == "approval.given":  # it counts once the loop has accepted it
        return Kind.APPROVAL, Tone.NEUTRAL, f"{_signer(record)} files an approval of {name}", name
    return Kind.APPROVAL, Tone.GOOD, f"{name} approved by {_signer(record)}", name


def _waiver(record: AuditRecord, versions: _Versions) -> _Said:
    said, digest = record.details, record.digests.get("bundle", "")
    name = str(said.get("version") or versions.get(digest) or f"bundle {digest.removeprefix('sha256:')[:12]}")
    if record.event == "waiver.refused":
        return Kind.APPROVAL, Tone.BAD, f"a waiver for {name} does not count: {said['reason']}", name
    words = f"gate {said['gate']} of {name}"
    if record.event == "waiver.given":
        return Kind.APPROVAL, Tone.NEUTRAL, f"{_signer(record)} files a waiver of {words}: {said['reason']}", name
    return Kind.APPROVAL, Tone.NEUTRAL, f"{words} waived by {_signer(record)}: {said['reason']}", name


def _signer(record: AuditRecord) -> str:
    """Who signed what the record is about: who files it is its actor, who accepts it the loop."""
    label = record.actor if record.event.endswith(".given") else record.details.get("label")
    return f"{label or 'unlabelled'} key {str(record.details.get('approver', record.actor))[:6]}"


def _withdrawn(record: AuditRecord, versions: _Versions) -> _Said:
    digest, what = record.digests.get("bundle", ""), record.event.partition(".")[0]
    name = versions.get(digest) or f"bundle {digest.removeprefix('sha256:')[:12]}"
    return Kind.APPROVAL, Tone.BAD, f"{'an' if what == 'approval' else 'a'} {what} of {name} was withdrawn", name


_TELLERS: Mapping[str, Callable[[AuditRecord, _Versions], _Said]] = {
    "model.adopted": _adopted,
    "reference.frozen": _frozen,
    "model.registered": _registered,
    "model.promoted": _promoted,
    "incident.opened": _incident("opened", Tone.BAD),
    "incident.reopened": _incident("is back", Tone.BAD),
    "incident.joined": _incident("grows", Tone.BAD),
    "incident.closed": _incident("closed", Tone.GOOD),
    "monitoring.undecided": _undecided,
    "decision.made": _decision,
    "training.started": _started,
    "training.refused": _refused,
    "candidate.trained": _trained,
    "candidate.proven": _proven,
    "candidate.rejected": _rejected,
    "rollout.shadow": _rollout("{version} in the shadow: it scores a copy of the traffic", Tone.NEUTRAL),
    "rollout.awaiting_approval": _rollout("{version} waits for approval", Tone.NEUTRAL),
    "rollout.canary": _rollout("canary: {weight} % of traffic to {version}", Tone.NEUTRAL),
    "rollout.full": _rollout("{version} is champion (100 %)", Tone.GOOD),
    "rollout.rolled_back": _rollout("{version} rolled back: {reason}", Tone.BAD),
    "release.held": _held,
    "approval.accepted": _approval,
    "approval.refused": _approval,
    "approval.given": _approval,
    "approval.withdrawn": _withdrawn,
    "waiver.accepted": _waiver,
    "waiver.refused": _waiver,
    "waiver.given": _waiver,
    "waiver.withdrawn": _withdrawn,
}
