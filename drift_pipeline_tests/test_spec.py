"""A spec is read whole or refused by line and key; what is left out is the KPI matrix of the specification."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.errors import SpecError
from drift_pipeline.spec import Ceiling, Drop, Kpis, Latency, ModelSpec, Psi, RangeZ, Rise, read_spec

MINIMAL = """\
name: fraud
owner: ml@example.com
task: binary_classification
features:
  amount: numeric
  device: categorical
outcome:
  column: label
"""


def spec(tmp_path: Path, text: str, *overrides: str) -> ModelSpec:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return read_spec(path, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    """The message, with the file's path written as F."""
    with pytest.raises(SpecError) as refused:
        spec(tmp_path, text, *overrides)
    return str(refused.value).replace(str(tmp_path / "spec.yaml"), "F")


def component(text: str) -> str:
    """The same attributes as a whole defs.yaml, two lines lower."""
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    return f"type: drift_pipeline.components.MonitoredModel\nattributes:\n{lines}"


def test_what_is_left_out_is_the_kpi_matrix(tmp_path: Path) -> None:
    kpis = spec(tmp_path, MINIMAL).kpis
    assert kpis == Kpis(
        psi=Psi(threshold=0.2, window=30 * DAY),
        range_z=RangeZ(threshold=4),
        auroc=Drop(drop=0.05),
        latency_p95_ms=Latency(threshold=150),
        demographic_parity=Drop(drop=0.03),
        mae=None,
        residuals=None,
    )


def test_other_defaults(tmp_path: Path) -> None:
    found = spec(tmp_path, MINIMAL)
    assert found.retrain.model_dump(mode="json") == {
        "cron": "0 3 1 * *",
        "cooldown": "14d",
        "max_per_month": 6,
        "window": "365d",
        "min_rows": 1000,
        "exclude": [],
        "trainer": "gradient_boosting",
        "trials": 12,
        "gpus": 0,
        "max_gpu_hours": None,
        "steps": [],
    }
    assert found.outcome.positive == 1
    assert found.outcome.delay == timedelta()
    assert found.prediction.threshold == 0.5
    assert (found.rollout.shadow, found.rollout.canary_weight, found.rollout.approvals) == (HOUR, 10, 1)
    assert found.declarations.risk.in_force == "limited_risk"


def test_a_whole_defs_yaml_equals_the_flat_attributes(tmp_path: Path) -> None:
    assert spec(tmp_path, component(MINIMAL)) == spec(tmp_path, MINIMAL)


def test_a_kpi_that_is_null_is_switched_off(tmp_path: Path) -> None:
    kpis = spec(tmp_path, MINIMAL + "kpis: {auroc: null, psi: {window: 7d}}\n").kpis
    assert kpis.auroc is None
    assert kpis.psi == Psi(threshold=0.2, window=7 * DAY)
    assert kpis.range_z == RangeZ(threshold=4)


def test_watched_are_the_features_then_the_protected(tmp_path: Path) -> None:
    found = spec(tmp_path, MINIMAL + "protected: {age: categorical, device: categorical}\n")
    assert list(found.watched.items()) == [("amount", "numeric"), ("device", "categorical"), ("age", "categorical")]


def test_a_spec_written_as_json_reads_back(tmp_path: Path) -> None:
    """JSON is YAML: the form in which a spec is recorded can be read again."""
    found = spec(tmp_path, MINIMAL + "retrain: {cooldown: 1d12h, exclude: [{start: 2026-01-01, end: 2026-01-02}]}\n")
    assert spec(tmp_path, found.model_dump_json()) == found


def test_a_spec_is_frozen(tmp_path: Path) -> None:
    found = spec(tmp_path, MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        found.name = "other"


@pytest.mark.parametrize(
    ("positive", "value"), [("1", 1), ("true", True), ("'1'", "1"), ("yes", True), ("'yes'", "yes"), ("bad", "bad")]
)
def test_the_positive_value_keeps_its_type(tmp_path: Path, positive: str, value: object) -> None:
    found = spec(tmp_path, MINIMAL + f"  positive: {positive}\n").outcome.positive
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("quoted", ["", "'"])
def test_a_span_may_stand_without_quotes(tmp_path: Path, quoted: str) -> None:
    start, end = (f"{quoted}2026-01-{day}T00:00:00Z{quoted}" for day in ("01", "02"))
    found = spec(tmp_path, MINIMAL + f"retrain: {{exclude: [{{start: {start}, end: {end}}}]}}\n")
    assert found.retrain.exclude[0].start.startswith("2026-01-01T00:00:00")


# refused, with the line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kpis: {auroc: {dorp: 0.1, drop: 0.1}}", "F:9: kpis.auroc.dorp: unknown key; did you mean 'drop'?"),
        ("retrain: {crno: x}", "F:9: retrain.crno: unknown key; did you mean 'cron'?"),
        ("protectd: {}", "F:9: protectd: unknown key; did you mean 'protected'?"),
        ("declarations: {risk: {zzz: 1}}", "F:9: declarations.risk.zzz: unknown key; known here: profile, annex_iii"),
        ("risk: {profile: limited_risk}", "F:1: spec: risk moved out of the spec: write what stands there"),
        ("card: {}\nrisk: {}", "F:1: spec: card and risk moved out of the spec"),
        (
            "retrain: {exclude: [{start: '2026-01-01', end: '2026-01-02', why: x}]}",
            "F:9: retrain.exclude.0.why: unknown key; known here: start, end",
        ),
        ("kpis: {auroc: {}}", "F:9: kpis.auroc.drop: required, and missing"),
        ("protected: {age: numeric}", "F:9: protected.age: 'numeric' is not supported; what works: 'categorical'"),
        (
            "retrain: {cron: every day}",
            "F:9: retrain.cron: 'every day' is not a cron line of five fields, such as '0 3 1 * *'",
        ),
        (
            "retrain: {cron: '0 0 3 1 * *'}",
            "F:9: retrain.cron: '0 0 3 1 * *' is not a cron line of five fields, such as '0 3 1 * *'",
        ),
        (
            "retrain: {trainer: ./a/train.py}",
            "F:9: retrain.trainer: there is no trainer './a/train.py'; there are: gradient_boosting, logistic_",
        ),
        (
            "retrain: {cooldown: a week}",
            "F:9: retrain.cooldown: 'a week' is not a duration: write a number and a unit of s, m, h, d, w, such as 6h",
        ),
        (
            "retrain: {cooldown: 14}",
            "F:9: retrain.cooldown: 14 has no unit: write a number and a unit of s, m, h, d, w, such as 6h",
        ),
        ("kpis: {psi: {window: 0s}}", "F:9: kpis.psi.window: Input should be greater than 0"),
        ("kpis: {psi: {threshold: .nan}}", "F:9: kpis.psi.threshold: Input should be greater than 0"),
        ("rollout: {canary_weight: 60}", "F:9: rollout.canary_weight: Input should be less than or equal to 50"),
        (
            "retrain: {exclude: [{start: '2026-01-02', end: '2026-01-01'}]}",
            "F:9: retrain.exclude.0: a span ends after it starts, in one time zone: 2026-01-02 .. 2026-01-01",
        ),
        (
            "protected: {amount: categorical}",
            "F:1: spec: a protected column is categorical, also as a feature: amount",
        ),
        (
            "protected: {_age: categorical}",
            "F:1: spec: columns that start with an underscore are the lake's own; rename _age",
        ),
        (
            "protected: {label: categorical}",
            "F:1: spec: the outcome 'label' cannot be a feature: the model would see its label",
        ),
    ],
)
def test_a_bad_value_is_told_with_line_and_key(tmp_path: Path, line: str, message: str) -> None:
    assert refusal(tmp_path, MINIMAL + line + "\n").startswith(message)


@pytest.mark.parametrize("value", ["0", "true", "{}", "{approver: 0}", "{Risk!: 1}", "{a: yes}", "two", "[1]"])
def test_what_is_no_number_of_approvals_is_told_with_what_is_one(tmp_path: Path, value: str) -> None:
    told = refusal(tmp_path, f"{MINIMAL}rollout: {{approvals: {value}}}\n")
    assert told.startswith("F:9: rollout.approvals: ")
    assert "is no number of people from 1 on, such as 2, and not how many of each role" in told


def test_a_plain_number_of_approvals_is_of_approvers(tmp_path: Path) -> None:
    assert spec(tmp_path, MINIMAL).rollout.wanted == {"approver": 1}
    found = spec(tmp_path, f"{MINIMAL}rollout: {{approvals: {{approver: 2, risk: 1}}}}\n")
    assert found.rollout.wanted == {"approver": 2, "risk": 1}
    assert ModelSpec.model_validate(found.model_dump(mode="json")) == found


def test_the_line_is_right_in_nested_blocks_and_in_a_defs_yaml(tmp_path: Path) -> None:
    text = MINIMAL + "retrain:\n  trials: 5\n  exclude:\n    - start: '2026-01-01'\n      end: never\n"
    assert refusal(tmp_path, text).startswith("F:12: retrain.exclude.0: ")
    text = MINIMAL + "kpis:\n  # a comment\n  auroc:\n    drop: 2\n"
    assert refusal(tmp_path, text).startswith("F:12: kpis.auroc.drop: Input should be less than 1")
    assert refusal(tmp_path, component(text)).startswith("F:14: kpis.auroc.drop: Input should be less than 1")


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = "name: Fraud Model\nowner: ''\ntask: multiclass\nfeatures: {}\noutcome: {}\n"
    lines = refusal(tmp_path, text).splitlines()
    assert [line.split(": ")[0:2] for line in lines] == [
        ["F:1", "name"],
        ["F:2", "owner"],
        ["F:3", "task"],
        ["F:4", "features"],
        ["F:5", "outcome.column"],
    ]
    assert lines[2] == (
        "F:3: task: 'multiclass' is not supported; what works: 'binary_classification' or 'regression'; "
        "several scores are several MonitoredModels: one a class, that class against the rest"
    )


def test_a_required_key_that_is_missing_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path, "name: fraud\n").splitlines() == [
        f"F:1: {key}: required, and missing" for key in ("owner", "task", "features", "outcome")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- name: fraud\n", "F: a spec is a YAML mapping with name, owner, task, features and outcome"),
        ("", "F: a spec is a YAML mapping with name, owner, task, features and outcome"),
        ("attributes: [1]\n", "F: 'attributes' must be a mapping"),
        ("name: fraud\nowner: [a\ntask: b\n", "F:3: not valid YAML: "),
        ("name: fraud\n\towner: a\n", "F:2: not valid YAML: "),
        ("name: !!python/object:os.system x\n", "F:1: not valid YAML: could not determine a constructor"),
        ("name: 2026-02-31\n", "F: not valid YAML: day "),
        ("name: a\n---\nname: b\n", "F:2: not valid YAML: but found another document"),
        ("name: a\x00b\n", "F: not valid YAML: "),
        (MINIMAL + "name: other\n", "F:9: the key 'name' stands twice; keep one"),
        (MINIMAL + "kpis:\n  auroc: {drop: 0.1}\n  auroc: null\n", "F:11: the key 'auroc' stands twice; keep one"),
        (MINIMAL + "x: &x\n  - *x\n", "F:9: x: unknown key"),
    ],
)
def test_what_is_no_spec_at_all_says_so(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone\.yaml: cannot be read: "):
        read_spec(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"owner: \xe9\n")
    with pytest.raises(SpecError, match=r"latin\.yaml: cannot be read: "):
        read_spec(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    "value", ["{{ env.OWNER }}", "'{{ env.OWNER }}'", "a{{ env.OWNER }}", "'#{{ env.OWNER }}'", "{{x}}"]
)
def test_templates_are_refused_wherever_they_stand(tmp_path: Path, value: str) -> None:
    text = MINIMAL.replace("ml@example.com", value)
    message = "'{{' found; a spec holds no template and no secret: write the value itself"
    assert refusal(tmp_path, text) == f"F:2: {message}"
    assert refusal(tmp_path, component(text)) == f"F:4: {message}"


def test_a_template_may_stand_in_a_comment(tmp_path: Path) -> None:
    assert spec(tmp_path, MINIMAL + "# no {{ templates }} here\n") == spec(tmp_path, MINIMAL)


# regression

REGRESSION = (
    "name: minutes\nowner: ml@example.com\ntask: regression\nfeatures: {km: numeric}\n"
    "outcome: {column: took, delay: 2h}\n"
)


def test_a_regression_has_kpis_of_its_own(tmp_path: Path) -> None:
    found = spec(tmp_path, REGRESSION + "prediction: {value: promised}\nkpis: {mae: {rise: 0.2}}\n")
    assert (found.kpis.mae, found.kpis.residuals) == (Rise(rise=0.2), Ceiling(threshold=0.05))
    assert (found.kpis.auroc, found.kpis.demographic_parity) == (None, None)
    assert (found.prediction.column, found.retrain.trainer) == ("promised", "gradient_boosting")
    assert spec(tmp_path, REGRESSION).kpis.mae == Rise(rise=0.1)


def test_neither_task_writes_the_other_s_keys(tmp_path: Path) -> None:
    """So that what is recorded of a classification is what it was, and reads back."""
    for text, own, foreign in ((REGRESSION, "mae", "auroc"), (MINIMAL, "auroc", "mae")):
        found = spec(tmp_path, text)
        document = found.model_dump(mode="json")
        assert own in document["kpis"]
        assert foreign not in document["kpis"]
        assert spec(tmp_path, found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("base", "line", "message"),
    [
        (
            REGRESSION,
            "prediction: {score: s}",
            "F:6: prediction.score: there is no score in a regression: it belongs to",
        ),
        (
            REGRESSION,
            "prediction: {threshold: 0.5}",
            "F:6: prediction.threshold: there is no threshold in a regression",
        ),
        (REGRESSION, "kpis:\n  auroc: {drop: 0.1}", "F:7: kpis.auroc: there is no auroc in a regression"),
        (REGRESSION, "kpis: {demographic_parity: {drop: 0.1}}", "F:6: kpis.demographic_parity: there is no"),
        (REGRESSION, "kpis: {mae: {rise: 0.1, drop: 0.1}}", "F:6: kpis.mae.drop: unknown key; known here: rise"),
        (
            REGRESSION,
            "retrain: {trainer: logistic_regression}",
            "F:6: retrain.trainer: there is no trainer 'logistic_regression'; there are: gradient_boosting, ridge",
        ),
        (MINIMAL, "prediction: {value: v}", "F:9: prediction.value: there is no value in a binary_classification"),
        (MINIMAL, "kpis: {mae: {rise: 0.1}}", "F:9: kpis.mae: there is no mae in a binary_classification"),
        (MINIMAL, "kpis: {residuals: {threshold: 0.1}}", "F:9: kpis.residuals: there is no residuals in a binary"),
        (MINIMAL, "retrain: {trainer: ridge}", "F:9: retrain.trainer: there is no trainer 'ridge'; there are: grad"),
    ],
)
def test_keys_of_another_task_are_refused(tmp_path: Path, base: str, line: str, message: str) -> None:
    assert refusal(tmp_path, base + line + "\n").startswith(message)


def test_a_positive_value_is_refused_where_labels_are_numbers(tmp_path: Path) -> None:
    text = REGRESSION.replace("delay: 2h", "positive: 1")
    assert refusal(tmp_path, text).startswith("F:5: outcome.positive: there is no positive in a regression")


@pytest.mark.parametrize("task", ["multiclass", "multi_class_classification"])
def test_several_scores_are_several_models(tmp_path: Path, task: str) -> None:
    assert refusal(tmp_path, REGRESSION.replace("task: regression", f"task: {task}")) == (
        f"F:3: task: '{task}' is not supported; what works: 'binary_classification' or 'regression'; "
        "several scores are several MonitoredModels: one a class, that class against the rest"
    )


# --set


def test_overrides_replace_and_add(tmp_path: Path) -> None:
    found = spec(tmp_path, MINIMAL, "kpis.auroc.drop=0.1", "owner=me", "features.extra=numeric", "kpis.psi=null")
    assert found.kpis.auroc == Drop(drop=0.1)
    assert found.kpis.psi is None
    assert found.owner == "me"
    assert found.features["extra"] == "numeric"
    assert found.features["amount"] == "numeric"


def test_overrides_reach_into_a_defs_yaml(tmp_path: Path) -> None:
    assert spec(tmp_path, component(MINIMAL), "retrain.trials=3").retrain.trials == 3


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("kpis.auroc.drop=2", "--set: kpis.auroc.drop: Input should be less than 1"),
        ("kpis.auroc.dorp=0.1", "--set: kpis.auroc.dorp: unknown key; did you mean 'drop'?"),
        ("owner", "--set owner: write dotted.key=value, such as kpis.auroc.drop=0.03"),
        ("a..b=1", "--set a..b=1: write dotted.key=value"),
        ("=1", "--set =1: write dotted.key=value"),
        ("owner=[a", "--set owner=[a: the value is not valid YAML"),
        ("name=2026-02-31", "--set name=2026-02-31: the value is not valid YAML"),
    ],
)
def test_a_bad_override_is_blamed_on_set(tmp_path: Path, pair: str, message: str) -> None:
    assert message in refusal(tmp_path, MINIMAL, pair)
