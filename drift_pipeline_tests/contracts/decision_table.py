"""The policy as a table: it comes out the same, reasons included, on every engine."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

# An open incident with labels enough, in which nothing drifts any more.
PLAIN: dict[str, Any] = {
    "model": "fraud",
    "now": "2026-03-02T12:00:00+00:00",
    "trigger": "drift",
    "incident": {
        "key": "fraud|sha256:ab",
        "opened_at": "2026-03-01T12:00:00+00:00",
        "age_hours": 24.0,
        "fresh_rows": 2000,
        "fresh_rows_needed": 1000,
    },
    "kpis": dict.fromkeys(("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"), "OK"),
    "drifting_features": [],
    "performance": "auroc",
    "fall": 0.01,
    "fall_allowed": 0.05,
    "retrain": {
        "running": False,
        "cooldown_left_hours": 0.0,
        "this_month": 1,
        "max_per_month": 6,
        "rejected_in_a_row": 0,
        "gpu_hours_this_month": 0.0,
        "max_gpu_hours": None,
        "candidate": None,
    },
    "rollout_active": False,
    "paused": False,
}

SCHEDULE = {"trigger": "schedule"}
OPERATOR = {"trigger": "operator"}
HOTFIX = {"trigger": "hotfix"}
FALLEN = {"kpis.auroc": "BREACH", "fall": 0.062}
CRASHED = {"kpis.auroc": "BREACH", "fall": 0.1834}
REGRESSION = {
    **dict.fromkeys(("kpis.auroc", "kpis.demographic_parity"), "NOT_CONFIGURED"),
    **{"performance": "mae", "fall_allowed": 0.1, "kpis.mae": "OK", "kpis.residuals": "OK"},
}
RISEN = {**REGRESSION, "kpis.mae": "BREACH", "fall": 0.134}
COOLING = {"retrain.cooldown_left_hours": 14.61}
ALL_BLOCKS = {
    "incident.fresh_rows": 40,
    "retrain.running": True,
    "retrain.cooldown_left_hours": 30.0,
    "retrain.this_month": 6,
    "rollout_active": True,
    "paused": True,
}
FELL = "auroc BREACH: fell 6.20 pp, allowed are 5.00 pp"
CRASH = "auroc BREACH: fell 18.34 pp, allowed are 5.00 pp"


@dataclass(frozen=True)
class Row:
    """What differs from PLAIN by dotted key, and what is decided; action None = undefined, hence refused."""

    claim: str
    given: dict[str, Any]
    action: str | None
    reasons: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        return changed(PLAIN, self.given)

    @property
    def decision(self) -> dict[str, Any] | None:
        """The whole answer; what is retrained says on what."""
        capacity = {"retrain": "spot", "hotfix_retrain": "on_demand"}.get(self.action or "")
        told = {"action": self.action, "reasons": self.reasons, **({"capacity": capacity} if capacity else {})}
        return told if self.action else None


def changed(plain: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Another document: values by dotted key, `...` for one that is left out."""
    document = deepcopy(plain)
    for key, value in given.items():
        *path, last = key.split(".")
        node = document
        for part in path:
            node = node[part]
        if value is Ellipsis:
            node.pop(last, None)
        else:
            node[last] = value
    return document


ROWS = [
    # --- the schedule
    Row("the schedule retrains", SCHEDULE, "retrain", ["the scheduled retrain is due"]),
    Row("the schedule needs no incident", {**SCHEDULE, "incident": None}, "retrain", ["the scheduled retrain is due"]),
    Row("a cooldown does not block the schedule", {**SCHEDULE, **COOLING}, "retrain", ["the scheduled retrain is due"]),
    Row(
        "labels do not block the schedule",
        {**SCHEDULE, "incident.fresh_rows": 0},
        "retrain",
        ["the scheduled retrain is due"],
    ),
    Row("a pause blocks the schedule", {**SCHEDULE, "paused": True}, "ignore", ["paused by an operator"]),
    Row("a retrain blocks the schedule", {**SCHEDULE, "retrain.running": True}, "ignore", ["a retrain is running"]),
    Row("a rollout blocks the schedule", {**SCHEDULE, "rollout_active": True}, "ignore", ["a rollout is active"]),
    Row(
        "what waits for its rollout blocks the schedule",
        {**SCHEDULE, "retrain.candidate": "v2"},
        "ignore",
        ["v2 waits for its rollout"],
    ),
    Row(
        "a used budget blocks the schedule",
        {**SCHEDULE, "retrain.this_month": 6},
        "ignore",
        ["monthly budget used: 6 of 6"],
    ),
    Row(
        "the schedule names all that blocks it",
        {**SCHEDULE, **ALL_BLOCKS},
        "ignore",
        ["a retrain is running", "a rollout is active", "monthly budget used: 6 of 6", "paused by an operator"],
    ),
    Row(
        "what drifts does not change a scheduled retrain",
        {**SCHEDULE, **CRASHED, **COOLING, "kpis.psi": "WARN", "retrain.rejected_in_a_row": 2},
        "retrain",
        ["the scheduled retrain is due"],
    ),
    Row(
        "a crash does not make the schedule a hotfix",
        {**SCHEDULE, **CRASHED, **COOLING},
        "retrain",
        ["the scheduled retrain is due"],
    ),
    Row(
        "a warning does not stop the schedule",
        {**SCHEDULE, "kpis.psi": "WARN"},
        "retrain",
        ["the scheduled retrain is due"],
    ),
    # --- an operator
    Row("an operator gets a retrain", OPERATOR, "retrain", ["an operator asked for a retrain"]),
    Row("an operator gets a hotfix", HOTFIX, "hotfix_retrain", ["an operator asked for a hotfix"]),
    Row(
        "pause, budget, cooldown and labels do not stop an operator",
        {**HOTFIX, **ALL_BLOCKS, "retrain.running": False, "rollout_active": False},
        "hotfix_retrain",
        ["an operator asked for a hotfix"],
    ),
    Row(
        "an operator may want another candidate than the one that waits",
        {**OPERATOR, "retrain.candidate": "v2"},
        "retrain",
        ["an operator asked for a retrain"],
    ),
    Row("one retrain at a time", {**OPERATOR, "retrain.running": True}, "ignore", ["a retrain is running"]),
    Row("no hotfix into a rollout", {**HOTFIX, "rollout_active": True}, "ignore", ["a rollout is active"]),
    # --- drift: causes
    Row("no incident, no retrain", {**FALLEN, "incident": None}, "ignore", ["no open incident"]),
    Row(
        "no incident is the whole reason",
        {"incident": None, "kpis.auroc": "INCONCLUSIVE"},
        "ignore",
        ["no open incident"],
    ),
    Row("a fall of auroc retrains", FALLEN, "retrain", [FELL]),
    Row(
        "a fall of unknown size retrains too",
        {**FALLEN, "fall": None, "fall_allowed": None},
        "retrain",
        ["auroc BREACH"],
    ),
    Row(
        "numbers are written alike: 9.779999999999999 is 9.78, 0.004 pp is 0.00",
        {**FALLEN, "fall": 0.09783437167497736, "fall_allowed": 0.00004},
        "retrain",
        ["auroc BREACH: fell 9.78 pp, allowed are 0.00 pp"],
    ),
    Row(
        "a breach without a fall is not explained by one",
        {**FALLEN, "fall": -0.0937},
        "retrain",
        ["auroc BREACH"],
    ),
    Row(
        "unfairness retrains",
        {"kpis.demographic_parity": "BREACH"},
        "retrain",
        ["demographic_parity BREACH"],
    ),
    Row(
        "covariate shift retrains while performance is undecided",
        {"kpis.psi": "BREACH", "kpis.auroc": "INCONCLUSIVE", "fall": None},
        "retrain",
        ["psi BREACH while auroc is INCONCLUSIVE"],
    ),
    Row(
        "covariate shift retrains while performance is unwatched",
        {"kpis.range_z": "BREACH", "kpis.auroc": "NOT_CONFIGURED", "fall": None, "fall_allowed": None},
        "retrain",
        ["range_z BREACH while auroc is NOT_CONFIGURED"],
    ),
    Row(
        "covariate shift retrains while performance is in doubt",
        {"kpis.psi": "BREACH", "kpis.auroc": "WARN"},
        "retrain",
        ["psi BREACH while auroc is WARN"],
    ),
    Row(
        "every cause is named",
        {**FALLEN, "kpis.psi": "BREACH", "kpis.demographic_parity": "BREACH", "kpis.latency_p95_ms": "BREACH"},
        "retrain",
        [FELL, "demographic_parity BREACH", "psi BREACH while auroc is BREACH"],
    ),
    # --- drift: suggestions
    Row(
        "covariate shift with healthy performance is suggested",
        {"kpis.psi": "BREACH", "kpis.range_z": "BREACH"},
        "suggest",
        [
            "psi BREACH, but observed performance is conclusively OK",
            "range_z BREACH, but observed performance is conclusively OK",
        ],
    ),
    Row(
        "retraining does not make a model faster",
        {"kpis.latency_p95_ms": "BREACH"},
        "suggest",
        ["latency_p95_ms BREACH: retraining does not mend it"],
    ),
    Row(
        "drifting features are named as they are",
        {"drifting_features": ["amount", 'é "q" \\ 100%s\n😀']},
        "suggest",
        ['drifting features: amount, é "q" \\ 100%s\n😀'],
    ),
    Row(
        "warnings are suggested, auroc's with feature drift too",
        {"kpis.auroc": "WARN", "kpis.psi": "WARN", "drifting_features": ["amount"]},
        "suggest",
        ["auroc WARN", "drifting features: amount", "psi WARN"],
    ),
    Row("suggestions are not blocked", {**ALL_BLOCKS, "kpis.psi": "WARN"}, "suggest", ["psi WARN"]),
    Row("a calm world is ignored", {}, "ignore", ["nothing drifts any more"]),
    Row(
        "a calm world says what is undecided",
        {"kpis.auroc": "INCONCLUSIVE", "kpis.latency_p95_ms": "NOT_CONFIGURED", "fall": None},
        "ignore",
        ["nothing drifts any more", "undecided: auroc is INCONCLUSIVE"],
    ),
    # --- drift: what stands in the way
    Row(
        "labels are waited for",
        {**FALLEN, "incident.fresh_rows": 999},
        "ignore",
        ["waits for labels: 999 of 1000 rows"],
    ),
    Row("labels just enough will do", {**FALLEN, "incident.fresh_rows": 1000}, "retrain", [FELL]),
    Row("one retrain of a model", {**FALLEN, "retrain.running": True}, "ignore", ["a retrain is running"]),
    Row(
        "what is trained and not yet rolled out is not trained again",
        {**FALLEN, "retrain.candidate": "v2"},
        "ignore",
        ["v2 waits for its rollout"],
    ),
    Row(
        "not even past the cooldown",
        {**CRASHED, **COOLING, "retrain.candidate": "v2"},
        "ignore",
        ["v2 waits for its rollout"],
    ),
    Row(
        "drift in a canary is queued",
        {**FALLEN, "rollout_active": True},
        "ignore",
        ["a rollout is active: new drift during a canary is queued"],
    ),
    Row("a cooldown holds", {**FALLEN, **COOLING}, "ignore", ["cooldown: 15 h left"]),
    Row(
        "a cooldown's last seconds hold",
        {**FALLEN, "retrain.cooldown_left_hours": 0.001},
        "ignore",
        ["cooldown: 1 h left"],
    ),
    Row(
        "whole hours are written as such",
        {**FALLEN, "retrain.cooldown_left_hours": 336.0},
        "ignore",
        ["cooldown: 336 h left"],
    ),
    Row("the budget's last is free", {**FALLEN, "retrain.this_month": 5}, "retrain", [FELL]),
    Row("the budget holds", {**FALLEN, "retrain.this_month": 7}, "ignore", ["monthly budget used: 7 of 6"]),
    Row(
        "a budget of none holds",
        {**FALLEN, "retrain.this_month": 0, "retrain.max_per_month": 0},
        "ignore",
        ["monthly budget used: 0 of 0"],
    ),
    Row(
        "the GPU budget holds",
        {**FALLEN, "retrain.gpu_hours_this_month": 12.4, "retrain.max_gpu_hours": 12},
        "ignore",
        ["GPU budget used: 12 of 12 h"],
    ),
    Row(
        "the GPU budget's last hour is free",
        {**FALLEN, "retrain.gpu_hours_this_month": 11.9, "retrain.max_gpu_hours": 12},
        "retrain",
        [FELL],
    ),
    Row(
        "an operator may spend more GPU hours",
        {**OPERATOR, "retrain.gpu_hours_this_month": 99, "retrain.max_gpu_hours": 12},
        "retrain",
        ["an operator asked for a retrain"],
    ),
    Row("a pause holds", {**FALLEN, "paused": True}, "ignore", ["paused by an operator"]),
    Row(
        "every block is named",
        {**FALLEN, **ALL_BLOCKS},
        "ignore",
        [
            "a retrain is running",
            "a rollout is active: new drift during a canary is queued",
            "cooldown: 30 h left",
            "monthly budget used: 6 of 6",
            "paused by an operator",
            "waits for labels: 40 of 1000 rows",
        ],
    ),
    # --- drift: a hotfix past the cooldown
    Row(
        "a crash goes past the cooldown",
        {**CRASHED, **COOLING},
        "hotfix_retrain",
        [CRASH, "past the cooldown of 15 h: auroc fell at least 3 times what is allowed"],
    ),
    Row(
        "three times is enough",
        {**CRASHED, **COOLING, "fall": 0.15},
        "hotfix_retrain",
        [
            "auroc BREACH: fell 15.00 pp, allowed are 5.00 pp",
            "past the cooldown of 15 h: auroc fell at least 3 times what is allowed",
        ],
    ),
    Row(
        "less than three times is not",
        {**CRASHED, **COOLING, "fall": 0.1499},
        "ignore",
        ["cooldown: 15 h left"],
    ),
    Row("a crash without a cooldown is an ordinary retrain", CRASHED, "retrain", [CRASH]),
    Row(
        "a crash of unknown size is none",
        {**CRASHED, **COOLING, "fall": None},
        "ignore",
        ["cooldown: 15 h left"],
    ),
    Row(
        "no crash without a breach",
        {**COOLING, "fall": 0.3, "kpis.auroc": "INCONCLUSIVE", "kpis.demographic_parity": "BREACH"},
        "ignore",
        ["cooldown: 15 h left"],
    ),
    Row(
        "no second hotfix after a rejected candidate",
        {**CRASHED, **COOLING, "retrain.rejected_in_a_row": 2},
        "ignore",
        ["cooldown: 15 h left", "no hotfix past the cooldown: 2 rejected in a row"],
    ),
    Row(
        "rejected candidates block nothing once the cooldown is over",
        {**CRASHED, "retrain.rejected_in_a_row": 2},
        "retrain",
        [CRASH],
    ),
    Row(
        "rejected candidates are no news without a crash",
        {**FALLEN, **COOLING, "retrain.rejected_in_a_row": 2},
        "ignore",
        ["cooldown: 15 h left"],
    ),
    Row(
        "all other blocks hold a hotfix",
        {**CRASHED, **ALL_BLOCKS},
        "ignore",
        [
            "a retrain is running",
            "a rollout is active: new drift during a canary is queued",
            "monthly budget used: 6 of 6",
            "paused by an operator",
            "waits for labels: 40 of 1000 rows",
        ],
    ),
    # --- a regression is judged by its MAE, which rises by a share of what it was
    Row("a MAE that rose retrains", RISEN, "retrain", ["mae BREACH: rose 13.40 %, allowed are 10.00 %"]),
    Row(
        "a MAE that rose by three times what is allowed passes the cooldown",
        {**RISEN, **COOLING, "fall": 0.3},
        "hotfix_retrain",
        [
            "mae BREACH: rose 30.00 %, allowed are 10.00 %",
            "past the cooldown of 15 h: mae rose at least 3 times what is allowed",
        ],
    ),
    Row(
        "PSI retrains while MAE is not conclusively OK",
        {**REGRESSION, "kpis.psi": "BREACH", "kpis.mae": "INCONCLUSIVE", "fall": None},
        "retrain",
        ["psi BREACH while mae is INCONCLUSIVE"],
    ),
    Row(
        "PSI is suggested while MAE is OK",
        {**REGRESSION, "kpis.psi": "BREACH"},
        "suggest",
        ["psi BREACH, but observed performance is conclusively OK"],
    ),
    Row("residuals that drift are suggested", {**REGRESSION, "kpis.residuals": "WARN"}, "suggest", ["residuals WARN"]),
    Row("a performance without a verdict is undefined", {**REGRESSION, "kpis.mae": ...}, None),
    # --- facts that cannot be decided on
    *(
        Row(f"{key} missing is undefined", {**FALLEN, key: ...}, None)
        for key in (
            "trigger",
            "incident",
            "incident.fresh_rows",
            "incident.fresh_rows_needed",
            "kpis",
            "kpis.auroc",
            "drifting_features",
            "performance",
            "fall",
            "fall_allowed",
            "retrain",
            "retrain.running",
            "retrain.cooldown_left_hours",
            "retrain.this_month",
            "retrain.max_per_month",
            "retrain.rejected_in_a_row",
            "rollout_active",
            "paused",
        )
    ),
    *(
        Row(f"{key} {value!r} is undefined", {**FALLEN, key: value}, None)
        for key, value in (
            ("trigger", "cron"),
            ("kpis.psi", "breach"),
            ("kpis.psi", None),
            ("kpis.more", "maybe"),
            ("paused", None),
            ("paused", "no"),
            ("retrain.running", 0),
            ("retrain.this_month", "0"),
            ("incident", "open"),
            ("incident.fresh_rows", None),
            ("drifting_features", "amount"),
            ("drifting_features", [1]),
            ("drifting_features", {"0": "amount"}),
            ("fall", "0.06"),
            ("performance", "accuracy"),
            ("performance", "psi"),
            ("performance", None),
        )
    ),
]

# A canary that gates and people allow.
STEP: dict[str, Any] = {
    "model": "fraud",
    "now": "2026-03-02T12:00:00+00:00",
    "step": "canary",
    "environment": "production",
    "risk_profile": None,
    "gates_passed": True,
    "approvals": 1,
    "approvals_wanted": 1,
    "weekday": "Monday",
}
ALLOWED = ["gates and people allow canary"]


@dataclass(frozen=True)
class StepRow:
    """What differs from STEP by dotted key, and whether it may; allow None = undefined, hence refused."""

    claim: str
    given: dict[str, Any]
    allow: bool | None
    reasons: list[str] = field(default_factory=list)

    @property
    def document(self) -> dict[str, Any]:
        return changed(STEP, self.given)


STEPS = [
    StepRow("what gates and people allow may go on", {}, True, ALLOWED),
    StepRow("more approvals than wanted will do", {"approvals": 3}, True, ALLOWED),
    StepRow("where none is wanted none is", {"approvals": 0, "approvals_wanted": 0}, True, ALLOWED),
    StepRow("a canary wants its approvals", {"approvals": 0}, False, ["0 of 1 approvals"]),
    StepRow(
        "so does a promotion", {"step": "full", "approvals": 1, "approvals_wanted": 2}, False, ["1 of 2 approvals"]
    ),
    StepRow(
        "to ask for approvals wants none",
        {"step": "awaiting_approval", "approvals": 0},
        True,
        ["gates and people allow awaiting_approval"],
    ),
    StepRow("gates hold", {"gates_passed": False}, False, ["its gates did not pass, and are not waived"]),
    StepRow(
        "all that holds is named",
        {"gates_passed": False, "approvals": 0},
        False,
        ["0 of 1 approvals", "its gates did not pass, and are not waived"],
    ),
    StepRow("back is allowed", {"step": "rollback"}, True, ["back to what answered before"]),
    StepRow(
        "back is allowed whatever else is so",
        {"step": "rollback", "gates_passed": "no", "approvals": None, "weekday": ...},
        True,
        ["back to what answered before"],
    ),
    StepRow("no step is none", {"step": ...}, None),
    StepRow("a step that nobody knows is none", {"step": "sideways"}, None),
    *(StepRow(f"{key} is needed", {key: ...}, None) for key in ("gates_passed", "approvals", "approvals_wanted")),
    *(StepRow(f"{key} of another type is none", {key: "1"}, None) for key in ("gates_passed", "approvals")),
]
