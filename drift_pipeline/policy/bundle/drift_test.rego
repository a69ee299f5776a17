# Every case of drift_cases_test.rego, for `opa test`.
package drift_test

import rego.v1

import data.drift
import data.drift_cases.cases
import data.drift_cases.fallen

answers[name] := answer if {
	some name, case in cases
	object.get(case, "rule", "decision") == "decision"
	answer := drift.decision with input as case.input
}

answers[name] := answer if {
	some name, case in cases
	object.get(case, "rule", "decision") == "release"
	answer := drift.release with input as case.input
}

failed contains name if {
	some name, case in cases
	case.expect == null
	answers[name]
}

failed contains name if {
	some name, case in cases
	some key, value in case.expect
	not answers[name][key] == value
}

test_every_case if count(failed) == 0

test_each_fact_is_needed if {
	every key in object.keys(fallen) {
		not drift.decision with input as object.remove(fallen, [key])
	}
}
