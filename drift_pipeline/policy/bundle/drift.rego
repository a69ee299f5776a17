# What should be done about it: retrain | hotfix_retrain | suggest | ignore, with reasons, and what is retrained on:
# capacity that may be taken away (spot), or that may not (on_demand).
#
# The KPI matrix is data: data.json says what a BREACH of each KPI is (shift: retrain unless the performance is
# conclusively OK; retrain; suggest, which one that is not named is), besides the performance that the task is judged by.
#
# Read it as a table: what is wanted, then what stands in its way. Facts that are missing or of another
# type leave `decision` undefined, which every engine reports as a refusal: nothing here has a default.
#
# It has to come out the same on OPA and on rego-cpp. Hence whole numbers are written by %v (OPA prints %d of
# 5.0 as an error), fractions by share() (rego-cpp prints 9.78 as 9.779999999999999), strings of the input by
# %s (rego-cpp quotes them in %v), strings that were put together by concat (rego-cpp breaks its answer on them
# in sprintf), and shares are rounded before they are compared.
package drift

import rego.v1

decision := {"action": wanted, "reasons": sort(why), "capacity": data.policy.capacity[wanted]} if {
	facts_usable
	trains
	not held
}

decision := {"action": wanted, "reasons": sort(why)} if {
	facts_usable
	not trains
}

decision := {"action": "ignore", "reasons": sort(blocks)} if {
	facts_usable
	held
}

trains if wanted in {"retrain", "hotfix_retrain"}

held if {
	trains
	count(blocks) > 0
}

# --- What is wanted ------------------------------------------------------------------------------

wanted := "retrain" if input.trigger == "schedule"

wanted := "retrain" if input.trigger == "operator"

wanted := "hotfix_retrain" if input.trigger == "hotfix"

wanted := "ignore" if {
	input.trigger == "drift"
	not incident_open
}

wanted := "hotfix_retrain" if {
	drift_in_incident
	count(causes) > 0
	past_cooldown
}

wanted := "retrain" if {
	drift_in_incident
	count(causes) > 0
	not past_cooldown
}

wanted := "suggest" if {
	drift_in_incident
	count(causes) == 0
	count(suggestions) > 0
}

wanted := "ignore" if {
	drift_in_incident
	count(causes) == 0
	count(suggestions) == 0
}

why contains "the scheduled retrain is due" if input.trigger == "schedule"

why contains "an operator asked for a retrain" if input.trigger == "operator"

why contains "an operator asked for a hotfix" if input.trigger == "hotfix"

why contains "no open incident" if {
	input.trigger == "drift"
	not incident_open
}

why contains reason if {
	drift_in_incident
	some reason in causes
}

why contains reason if {
	wanted == "suggest"
	some reason in suggestions
}

why contains sprintf("past the cooldown of %v h: %s %s at least %v times what is allowed", [hours_left, input.performance, moved, times]) if {
	wanted == "hotfix_retrain"
	input.trigger == "drift"
}

why contains "nothing drifts any more" if {
	drift_in_incident
	wanted == "ignore"
}

# INCONCLUSIVE is not OK: what is undecided is said.
why contains sprintf("undecided: %s is INCONCLUSIVE", [kpi]) if {
	drift_in_incident
	wanted == "ignore"
	some kpi, "INCONCLUSIVE" in input.kpis
}

# --- Causes to retrain: the performance that counts has fallen, or may have ---------------------

causes contains concat("", [input.performance, " BREACH: ", moved, " ", share(input.fall), ", allowed are ", allowed]) if {
	allowed := share(input.fall_allowed)
	performance == "BREACH"
	fall_known
}

causes contains sprintf("%s BREACH", [input.performance]) if {
	performance == "BREACH"
	not fall_known
}

causes contains sprintf("%s BREACH", [kpi]) if {
	some kpi, "BREACH" in input.kpis
	breach_of(kpi) == "retrain"
	kpi != input.performance
}

causes contains sprintf("%s BREACH while %s is %s", [kpi, input.performance, performance]) if {
	some kpi, "BREACH" in input.kpis
	breach_of(kpi) == "shift"
	performance != "OK"
}

# --- What is worth a person's look, and no training ----------------------------------------------

suggestions contains sprintf("%s BREACH, but observed performance is conclusively OK", [kpi]) if {
	some kpi, "BREACH" in input.kpis
	breach_of(kpi) == "shift"
	performance == "OK"
}

suggestions contains sprintf("%s BREACH: retraining does not mend it", [kpi]) if {
	some kpi, "BREACH" in input.kpis
	breach_of(kpi) == "suggest"
	kpi != input.performance
}

suggestions contains sprintf("%s WARN", [kpi]) if some kpi, "WARN" in input.kpis

suggestions contains concat("", ["drifting features: ", concat(", ", input.drifting_features)]) if {
	count(input.drifting_features) > 0
}

# --- What stands in the way of a retrain ---------------------------------------------------------

blocks contains "a retrain is running" if input.retrain.running

blocks contains sprintf("%s waits for its rollout", [input.retrain.candidate]) if {
	is_string(input.retrain.candidate)
	not by_operator
}

blocks contains "a rollout is active" if {
	input.rollout_active
	input.trigger != "drift"
}

blocks contains "a rollout is active: new drift during a canary is queued" if {
	input.rollout_active
	input.trigger == "drift"
}

blocks contains "paused by an operator" if {
	input.paused
	not by_operator
}

blocks contains sprintf("monthly budget used: %v of %v", [input.retrain.this_month, input.retrain.max_per_month]) if {
	input.retrain.this_month >= input.retrain.max_per_month
	not by_operator
}

blocks contains sprintf("GPU budget used: %v of %v h", [round(input.retrain.gpu_hours_this_month), input.retrain.max_gpu_hours]) if {
	is_number(input.retrain.max_gpu_hours)
	input.retrain.gpu_hours_this_month >= input.retrain.max_gpu_hours
	not by_operator
}

blocks contains sprintf("waits for labels: %v of %v rows", [input.incident.fresh_rows, input.incident.fresh_rows_needed]) if {
	drift_in_incident
	input.incident.fresh_rows < input.incident.fresh_rows_needed
}

blocks contains sprintf("cooldown: %v h left", [hours_left]) if {
	drift_in_incident
	cooling
	not past_cooldown
}

blocks contains sprintf("no hotfix past the cooldown: %v rejected in a row", [input.retrain.rejected_in_a_row]) if {
	drift_in_incident
	cooling
	severe
	input.retrain.rejected_in_a_row > 0
}

# --- A hotfix may pass the cooldown, and nothing else --------------------------------------------

past_cooldown if {
	severe
	cooling
	input.retrain.rejected_in_a_row == 0
}

cooling if input.retrain.cooldown_left_hours > 0

severe if {
	performance == "BREACH"
	fall_known
	basis_points(input.fall) >= times * basis_points(input.fall_allowed)
}

fall_known if {
	is_number(input.fall)
	is_number(input.fall_allowed)
	input.fall > 0
}

# The verdict of the KPI that the task is judged by; an AUROC falls by points, an MAE rises by a share of what it was.
performance := input.kpis[input.performance]

moved := data.policy.measures[input.performance].moved

unit := data.policy.measures[input.performance].unit

breach_of(kpi) := object.get(data.policy.breach_of, kpi, "suggest")

times := data.policy.hotfix_from_times_allowed

# Whole hundredths of a percentage point: what is compared is what is printed.
basis_points(part) := round(part * 10000)

share(part) := concat("", [sprintf("%v", [whole]), ".", substring(sprintf("%v", [100 + rest]), 1, 2), unit]) if {
	rest := basis_points(part) % 100
	whole := round((basis_points(part) - rest) / 100)
}

# Rounded up: a cooldown that holds never reads as 0 h.
hours_left := ceil(input.retrain.cooldown_left_hours)

# --- Facts that can be decided on ----------------------------------------------------------------

incident_open if is_object(input.incident)

by_operator if input.trigger in {"operator", "hotfix"}

drift_in_incident if {
	input.trigger == "drift"
	incident_open
}

verdicts := {"OK", "WARN", "BREACH", "INCONCLUSIVE", "NOT_CONFIGURED"}

facts_usable if {
	input.trigger in {"drift", "schedule", "operator", "hotfix"}
	incident_usable
	every kpi in data.policy.required { input.kpis[kpi] in verdicts }
	is_string(moved)
	performance in verdicts
	every verdict in input.kpis { verdict in verdicts }
	is_array(input.drifting_features)
	every feature in input.drifting_features { is_string(feature) }
	number_or_null(input.fall)
	number_or_null(input.fall_allowed)
	is_boolean(input.rollout_active)
	is_boolean(input.paused)
	is_boolean(input.retrain.running)
	is_number(input.retrain.cooldown_left_hours)
	is_number(input.retrain.this_month)
	is_number(input.retrain.max_per_month)
	is_number(input.retrain.rejected_in_a_row)
	is_number(input.retrain.gpu_hours_this_month)
	number_or_null(input.retrain.max_gpu_hours)
	string_or_null(input.retrain.candidate)
}

incident_usable if is_null(input.incident)

incident_usable if {
	is_number(input.incident.fresh_rows)
	is_number(input.incident.fresh_rows_needed)
}

number_or_null(value) if is_number(value)

number_or_null(value) if is_null(value)

string_or_null(value) if is_string(value)

string_or_null(value) if is_null(value)
