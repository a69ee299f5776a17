# The rules that matter most, as cases: `drift policy test` reads them by the embedded engine, and drift_test.rego for
# `opa test`. The whole table is drift_pipeline_tests/contracts/decision_table.py and comes out the same on every engine.
# No `with` here: regopy crashes on it over rules that use rules.
package drift_cases

import rego.v1

kpis := {"psi": "OK", "range_z": "OK", "auroc": "OK", "latency_p95_ms": "OK", "demographic_parity": "OK"}

retrain := {
	"running": false,
	"cooldown_left_hours": 0,
	"this_month": 1,
	"max_per_month": 6,
	"rejected_in_a_row": 0,
	"gpu_hours_this_month": 3.5,
	"max_gpu_hours": 40,
	"candidate": null,
}

calm := {
	"trigger": "drift",
	"incident": {"fresh_rows": 2000, "fresh_rows_needed": 1000},
	"kpis": kpis,
	"drifting_features": [],
	"performance": "auroc",
	"fall": 0.2,
	"fall_allowed": 0.05,
	"retrain": retrain,
	"rollout_active": false,
	"paused": false,
}

# regopy's object.union replaces what is nested, where OPA's unites it
retraining(changed) := {"retrain": object.union(retrain, changed)}

fallen := object.union(calm, {"kpis": object.union(kpis, {"auroc": "BREACH"})})

cooling := object.union(fallen, retraining({"cooldown_left_hours": 12}))

canary := {
	"model": "fraud",
	"step": "canary",
	"weekday": "Monday",
	"gates_passed": true,
	"approvals": 1,
	"approvals_wanted": 1,
}

# Each: `input`, and `expect`, which the answer of the rule (`rule`, else decision) has to have; null = undefined.
cases := {
	"calm is ignored": {"input": calm, "expect": {"action": "ignore"}},
	"fallen performance retrains, on what is cheap": {
		"input": fallen,
		"expect": {"action": "retrain", "capacity": "spot"},
	},
	"no incident is ignored": {
		"input": object.union(fallen, {"incident": null}),
		"expect": {"action": "ignore", "reasons": ["no open incident"]},
	},
	"shift alone is suggested": {
		"input": object.union(calm, {"kpis": object.union(kpis, {"psi": "BREACH"})}),
		"expect": {"action": "suggest"},
	},
	"labels are waited for": {
		"input": object.union(fallen, {"incident": {"fresh_rows": 7, "fresh_rows_needed": 1000}}),
		"expect": {"action": "ignore", "reasons": ["waits for labels: 7 of 1000 rows"]},
	},
	"a crash goes past the cooldown, on what nobody takes away": {
		"input": cooling,
		"expect": {"action": "hotfix_retrain", "capacity": "on_demand"},
	},
	"a crash after a rejection does not": {
		"input": object.union(cooling, retraining({"cooldown_left_hours": 12, "rejected_in_a_row": 1})),
		"expect": {"action": "ignore"},
	},
	"the schedule keeps to the month's retrains": {
		"input": object.union(object.union(calm, retraining({"this_month": 6})), {"trigger": "schedule"}),
		"expect": {"action": "ignore", "reasons": ["monthly budget used: 6 of 6"]},
	},
	"drift keeps to the month's GPU hours": {
		"input": object.union(fallen, retraining({"gpu_hours_this_month": 40.2})),
		"expect": {"action": "ignore", "reasons": ["GPU budget used: 40 of 40 h"]},
	},
	"what is trained and not yet rolled out is not trained again": {
		"input": object.union(fallen, retraining({"candidate": "v2"})),
		"expect": {"action": "ignore", "reasons": ["v2 waits for its rollout"]},
	},
	"an operator gets a retrain, paused or not": {
		"input": object.union(calm, {"trigger": "operator", "paused": true}),
		"expect": {"action": "retrain"},
	},
	"an operator's hotfix waits for a rollout": {
		"input": object.union(calm, {"trigger": "hotfix", "rollout_active": true}),
		"expect": {"action": "ignore", "reasons": ["a rollout is active"]},
	},
	"facts that are missing leave it undefined": {"input": object.remove(fallen, ["kpis"]), "expect": null},
	"a step that gates and people allow": {"rule": "release", "input": canary, "expect": {"allow": true}},
	"no canary without approvals": {
		"rule": "release",
		"input": object.union(canary, {"approvals": 0}),
		"expect": {"allow": false, "reasons": ["0 of 1 approvals"]},
	},
	"back is allowed, whatever else is so": {
		"rule": "release",
		"input": {"step": "rollback"},
		"expect": {"allow": true},
	},
	"a step that nobody knows is no step": {
		"rule": "release",
		"input": object.union(canary, {"step": "sideways"}),
		"expect": null,
	},
}
