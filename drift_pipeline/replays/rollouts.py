"""The rollouts of a page: each step with what it rested on, and the candidate beside the champion at each."""

import re
from collections.abc import Mapping
from typing import Any

from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.performance import Performance
from drift_pipeline.evidence.timeline import plain
from drift_pipeline.replays import charts
from drift_pipeline.replays.folder import at
from drift_pipeline.replays.told import Told
from drift_pipeline.rollout.plan import version_of

_WEIGHT = re.compile(r"SetWeight (\d+)")
_STEPS = {"awaiting_approval": "shadow", "canary": "approval", "full": "canary"}  # what the evidence of a step is of


def rollout_facts(told: Told) -> list[dict[str, Any]]:
    """Those with a step in the span, newest first; `drawn` is the chart of both sides, or empty."""
    grouped: dict[str, list[AuditRecord]] = {}
    for record in told.records:
        if record.event.startswith("rollout."):
            grouped.setdefault(str(record.details["rollout_id"]), []).append(record)
    recent = [steps for steps in grouped.values() if at(steps[-1]) >= told.start or _active(steps[-1])]
    return [_rollout(told, name_of(steps[0]), steps) for steps in reversed(recent)]


def name_of(record: AuditRecord) -> str:
    """The candidate's version."""
    return plain(version_of(record.subject, str(record.details["rollout_id"])))


def _active(record: AuditRecord) -> bool:
    return record.details["phase"] not in ("full", "rolled_back")


def _rollout(told: Told, version: str, records: list[AuditRecord]) -> dict[str, Any]:
    last, candidate = records[-1], told.candidates.get(str(records[0].details["candidate"]), {})
    names = {digest: str(body.get("version")) for digest, body in told.candidates.items()}
    champion = names.get(str(records[0].details["champion"])) or _before(told, records[0])
    steps = [_step(told.performance, record) for record in records]
    sides = candidate.get(told.performance.kpi) or {}
    proven = (candidate.get("proven_on") or {}).get("rows")
    gate = {"of": "gate", "candidate": sides.get("after"), "champion": sides.get("before"), "on": _rows(proven)}
    compared = [one for one in (gate, *steps) if one["candidate"] is not None and one["champion"] is not None]
    weights = [found[1] for effect in last.details["effects"] if (found := _WEIGHT.match(str(effect)))]
    told_weight = {"canary": int(weights[-1]) if weights else None, "full": 100}
    return {
        "id": str(last.details["rollout_id"]),
        "version": version,
        "champion": champion,
        "phase": str(last.details["phase"]),
        "active": _active(last),
        "weight": told_weight.get(str(last.details["phase"]), 0),
        "since": at(last).isoformat(),
        "gate": gate,
        "steps": steps,
        "drawn": charts.sides(compared, told.performance.name, version, champion) if compared else "",
    }


def _rows(count: int | None) -> str:
    return "" if count is None else f"{count:,} unseen rows"


def _before(told: Told, record: AuditRecord) -> str:
    """Who was champion when a rollout began."""
    return next((reign.name for reign in reversed(told.reigns) if reign.start <= at(record)), "the champion")


def _step(performance: Performance, record: AuditRecord) -> dict[str, Any]:
    said, reason = record.details, str(record.details["reason"])
    phase = str(said["phase"])
    of = _STEPS.get(phase, reason.partition(":")[0].replace(" ", "_") if phase == "rolled_back" else phase)
    return {
        "phase": phase,
        "at": at(record).isoformat(),
        "actor": record.actor,
        "rests": plain_whole(reason).split("; "),
        "of": of,
        **both_sides(reason, performance),
    }


def plain_whole(text: str) -> str:
    """Text of others on one line, with nothing left out."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def both_sides(reason: str, performance: Performance) -> Mapping[str, Any]:
    """The numbers of `rollout.verdict`'s sentence about labels; None where it has none.

    >>> from drift_pipeline.detection.judging.performance import PERFORMANCE
    >>> both_sides("AUROC 0.72 against 0.61 on 9 labels: at best +0.1", PERFORMANCE["binary_classification"])
    {'candidate': 0.72, 'champion': 0.61, 'on': '9 labels'}
    """
    name = re.escape(performance.name)
    found = re.search(rf"\b{name} (-?[\d.e+-]+) against (-?[\d.e+-]+) on ([^:;]+)", reason)
    if found is None:
        return {"candidate": None, "champion": None, "on": ""}
    return {"candidate": float(found[1]), "champion": float(found[2]), "on": found[3]}
