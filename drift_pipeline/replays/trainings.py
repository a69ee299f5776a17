"""What each retrain cost and gained, from the audit and the candidates' records: asked why, proven on what, shipped or
not, and what became of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.performance import Performance
from drift_pipeline.evidence.timeline import failed_gates, plain
from drift_pipeline.replays import charts
from drift_pipeline.replays.folder import Span, at
from drift_pipeline.replays.told import Told

_PROOFS = ("candidate.proven", "candidate.rejected")


def training_rows(told: Told) -> list[dict[str, Any]]:
    """One row a training of the span: why it was decided, cost, performance on the gate's block, failed gates, what
    became of it, and in a replay its reign against the first model."""
    decisions = {r.details["decision"]: r for r in told.records if r.event == "decision.made"}
    last = {phase.note: phase for phase in told.phases}
    proofs = [r for r in told.records if r.event in _PROOFS and at(r) >= told.start]
    rows = [_row(told, proof, decisions.get(proof.details.get("decision"))) for proof in proofs]
    return [row | {"outcome": _outcome(row, last.get(row["version"]))} for row in rows]


def _row(told: Told, proof: AuditRecord, decision: AuditRecord | None) -> dict[str, Any]:
    candidate, measure = told.candidates.get(proof.digests.get("bundle", ""), {}), told.performance
    sides = candidate.get(measure.kpi) or proof.details.get(measure.kpi) or {}
    before, after, cost = sides.get("before"), sides.get("after"), candidate.get("cost", {})
    asked, version = decision.details if decision else {}, str(proof.details["version"])
    action = str(asked.get("action", "retrain"))
    row = {
        "version": version,
        "at": at(proof).isoformat(),
        "cause": "hotfix" if action == "hotfix_retrain" else str(asked.get("trigger", "unknown")),
        "decision": proof.details.get("decision"),
        "accepted": proof.event == "candidate.proven",
        "cost": {name: cost.get(name) for name in ("rows", "trials", "cpu_seconds", "wall_seconds")},
        f"{measure.kpi}_before": before,
        f"{measure.kpi}_after": after,
        "gain": gained(measure, before, after),
        "action": action,
        "reasons": [plain(reason) for reason in asked.get("reasons", ())],
        "incident": asked.get("incident") or None,
        "proven_on": (proof.details.get("proven_on") or {}).get("rows"),
        "failed": [
            {"name": g["name"], "reason": plain(g["reason"])} for g in failed_gates(proof.details.get("results", ()))
        ],
    }
    return row | {"not_made_good": _not_made_good(told, row)} | _realised(told, row)


def gained(measure: Performance, before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else round(measure.gain(before, after), 6)


def _outcome(row: Mapping[str, Any], last: Span | None) -> str:
    if not row["accepted"]:
        return "rejected"
    if last is None:
        return "accepted, not shipped: a rollout was under way"
    if last.name == "full":
        return "champion"
    return "rolled back" if last.name == "rolled_back" else f"still {charts.PHASES[last.name]}"


def _not_made_good(told: Told, row: Mapping[str, Any]) -> str:
    """Why a fall is told that no KPI shows at that time: it is counted from before an incident that is over."""
    span = next((one for one in told.incidents if one.key == row["incident"]), None)
    if span is None or span.ended is None or span.ended > datetime.fromisoformat(row["at"]):
        return ""
    return (
        f"The fall is counted from before incident {span.number}, which {span.ending.partition(' ')[0]} ended without "
        "making it good; the KPI compares with what the present champion had held out."
    )


def _realised(told: Told, row: Mapping[str, Any]) -> dict[str, Any]:
    """What its time as champion came to beside the first model on the same rows; of a loss, why it was shipped."""
    reigns = told.summary["reigns"] if told.summary else ()
    reign = next((one for one in reigns if one["version"] == row["version"]), None)
    gain = gained(told.performance, reign["frozen"], reign["loop"]) if reign else None
    if reign is None or gain is None or gain >= 0:
        return {"reign": reign, "realised": gain, "lost": ""}
    measure, shown = told.performance, told.performance.shown_gain(row["gain"] or 0.0)
    since, until = (datetime.fromisoformat(reign[name]) for name in ("from", "to"))
    later = [one for one in told.incidents if since <= one.opened < until]
    opened = "; ".join(f"incident {one.number} opened on {one.opened:%Y-%m-%d} while it answered" for one in later)
    lost = (
        "worse than the first model left alone on the rows it answered. It was shipped because on "
        f"{row['proven_on']:,} rows that neither had seen it was {shown} {measure.name}, and neither shadow nor canary "
        "found it worse"
    )
    return {"reign": reign, "realised": gain, "lost": f"{lost}; {opened}" if opened else lost}
