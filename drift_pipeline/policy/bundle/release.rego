# May a rollout take its next step: awaiting_approval | canary | full, or back (rollback), with reasons.
#
# The loop asks before each step forward, besides its own evidence, gates and approvals, and holds where the answer is
# no, or none. Back is always allowed: the loop does not ask, and what it does without asking is this rule.
# It has to come out the same on OPA and on rego-cpp: drift.rego says how.
package drift

import rego.v1

release := {"allow": true, "reasons": ["back to what answered before"]} if input.step == "rollback"

release := {"allow": true, "reasons": [concat("", ["gates and people allow ", input.step])]} if {
	release_usable
	count(holds) == 0
}

release := {"allow": false, "reasons": sort(holds)} if {
	release_usable
	count(holds) > 0
}

holds contains "its gates did not pass, and are not waived" if not input.gates_passed

holds contains sprintf("%v of %v approvals", [input.approvals, input.approvals_wanted]) if {
	input.step in {"canary", "full"}
	input.approvals < input.approvals_wanted
}

holds contains concat("", ["no promotion on a ", input.weekday]) if {
	input.step == "full"
	input.weekday in data.policy.no_promotion_on
}

release_usable if {
	input.step in {"awaiting_approval", "canary", "full"}
	is_string(input.model)
	is_string(input.weekday)
	is_boolean(input.gates_passed)
	is_number(input.approvals)
	is_number(input.approvals_wanted)
}
