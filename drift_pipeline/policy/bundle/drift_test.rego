# The rules that matter most, for `opa test`. The whole table is
# drift_pipeline_tests/contracts/decision_table.py and comes out the same on every engine.
# Not for regopy, which crashes on `with` over rules that use rules.
package drift_test

import rego.v1

import data.drift

calm := {
	"trigger": "drift",
	"incident": {"fresh_rows": 2000, "fresh_rows_needed": 1000},
	"kpis": {"psi": "OK", "range_z": "OK", "auroc": "OK", "latency_p95_ms": "OK", "demographic_parity": "OK"},
	"drifting_features": [],
	"performance": "auroc",
	"fall": 0.2,
	"fall_allowed": 0.05,
	"retrain": {
		"running": false,
		"cooldown_left_hours": 0,
		"this_month": 1,
		"max_per_month": 6,
		"rejected_in_a_row": 0,
	},
	"rollout_active": false,
	"paused": false,
}

fallen := object.union(calm, {"kpis": {"auroc": "BREACH"}})

cooling := object.union(fallen, {"retrain": {"cooldown_left_hours": 12}})

test_calm_is_ignored if drift.decision.action == "ignore" with input as calm

test_fallen_performance_retrains if drift.decision.action == "retrain" with input as fallen

test_no_incident_is_ignored if {
	drift.decision.action == "ignore" with input as object.union(fallen, {"incident": null})
}

test_shift_alone_is_suggested if {
	drift.decision.action == "suggest" with input as object.union(calm, {"kpis": {"psi": "BREACH"}})
}

test_labels_are_waited_for if {
	waiting := object.union(fallen, {"incident": {"fresh_rows": 7}})
	drift.decision == {"action": "ignore", "reasons": ["waits for labels: 7 of 1000 rows"]} with input as waiting
}

test_a_crash_goes_past_the_cooldown if drift.decision.action == "hotfix_retrain" with input as cooling

test_a_crash_after_a_rejection_does_not if {
	drift.decision.action == "ignore" with input as object.union(cooling, {"retrain": {"rejected_in_a_row": 1}})
}

test_the_schedule_keeps_to_the_budget if {
	used := object.union(calm, {"trigger": "schedule", "retrain": {"this_month": 6}})
	drift.decision == {"action": "ignore", "reasons": ["monthly budget used: 6 of 6"]} with input as used
}

test_an_operator_waits_for_a_rollout_only if {
	asked := object.union(calm, {"trigger": "operator", "paused": true})
	drift.decision.action == "hotfix_retrain" with input as asked
	drift.decision.action == "ignore" with input as object.union(asked, {"rollout_active": true})
}

test_facts_that_are_missing_leave_it_undefined if {
	every key in object.keys(fallen) {
		not drift.decision with input as object.remove(fallen, [key])
	}
}
