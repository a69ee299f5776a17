"""A graph is declared whole: one output, no cycle, no name that is missing or there twice; else one sentence."""

from pathlib import Path

import pytest

from drift_pipeline.errors import SpecError
from drift_pipeline.spec import ModelSpec, read_spec, spec_of

BASE = """\
name: shop
owner: ml@example.com
task: binary_classification
features: {amount: numeric, age: numeric, device: categorical}
outcome: {column: bought}
protected: {region: categorical}
"""


def read(folder: Path, graph: str, base: str = BASE) -> ModelSpec:
    path = folder / "spec.yaml"
    path.write_text(base + graph)
    return read_spec(path)


def steps(*lines: str) -> str:
    return "graph:\n" + "".join(f"  {line}\n" for line in lines)


RANKING = steps(
    "ranking: {inputs: [retrieval, age, device]}", "retrieval: {inputs: [amount, age], trainer: logistic_regression}"
)
CALIBRATED = steps(
    "prefilter: {inputs: [amount, device], trainer: logistic_regression, threshold: 0.05}",
    "model: {inputs: [amount, age, device, prefilter], trainer: ./model.py}",
    "calibration: {inputs: [model], trainer: isotonic}",
)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        (RANKING, ["retrieval", "ranking"]),
        (CALIBRATED, ["prefilter", "model", "calibration"]),
        (steps("model: {inputs: [amount, age, device]}"), ["model"]),
        (
            steps(
                "last: {inputs: [left, right]}",
                "right: {inputs: [first]}",
                "left: {inputs: [first]}",
                "first: {inputs: [amount, age, device]}",
            ),
            ["first", "right", "left", "last"],
        ),
    ],
    ids=["retrieval and ranking", "filter, model, calibration", "one step", "a diamond"],
)
def test_the_steps_are_computed_after_what_they_take_and_the_spec_reads_back(
    tmp_path: Path, text: str, order: list[str]
) -> None:
    found = read(tmp_path, text)
    assert [*found.steps] == order
    assert spec_of(found.model_dump(mode="json")) == found


def test_a_spec_without_a_graph_is_the_document_that_it_was(tmp_path: Path) -> None:
    written = read(tmp_path, "").model_dump(mode="json")
    assert "graph" not in written
    assert "steps" not in written["retrain"]


def test_a_step_is_trained_by_a_spec_of_its_own(tmp_path: Path) -> None:
    found = read(tmp_path, RANKING).of_step("ranking")
    assert found.features == {"retrieval": "numeric", "age": "numeric", "device": "categorical"}
    assert (found.retrain.trainer, found.graph, found.folder) == ("gradient_boosting", {}, tmp_path)


REST = "x: {inputs: [amount, age, device]}"
WRONG = {
    "a cycle of two": (steps("a: {inputs: [b, amount]}", "b: {inputs: [a]}"), "the steps a -> b -> a are a cycle"),
    "a step that takes itself": (steps("a: {inputs: [a]}"), "the steps a -> a are a cycle"),
    "a cycle beside a way through": (
        steps(REST, "a: {inputs: [b]}", "b: {inputs: [a]}", "z: {inputs: [x]}"),
        "the steps a -> b -> a are a cycle",
    ),
    "an input that there is not": (
        steps("a: {inputs: [amont]}"),
        "the step a takes 'amont', which is no feature and no step",
    ),
    "the label": (steps("a: {inputs: [bought]}"), "the step a takes 'bought', which is no feature and no step"),
    "a protected column": (steps("a: {inputs: [region]}"), "takes 'region', which is no feature and no step"),
    "a column of the lake": (steps("a: {inputs: [_label]}"), "takes '_label', which is no feature and no step"),
    "an input twice": (steps("a: {inputs: [amount, amount]}"), "the step a takes amount twice"),
    "two steps of one name": (steps(REST, "y: {inputs: [x]}", REST), ":10: the key 'x' stands twice"),
    "the name of a feature": (steps(REST, "age: {inputs: [x]}"), "graph.age: the step age has the name of a column"),
    "the name of the label": (steps("bought: {inputs: [amount]}"), "the step bought has the name of a column"),
    "the name of a protected column": (steps("region: {inputs: [age]}"), "the step region has the name of a column"),
    "a name that is a path": (steps("../x: {inputs: [amount]}"), "'../x' cannot name a step"),
    "a name of the lake's": (steps("_label: {inputs: [amount]}"), "'_label' cannot name a step"),
    "a name that is no text": (steps("1: {inputs: [amount]}"), "graph.1: Input should be a valid string"),
    "two outputs": (steps(REST, "y: {inputs: [age]}"), "no step takes x or y: one step is the output"),
    "a step that nobody takes": (
        steps(REST, "dead: {inputs: [x]}", "z: {inputs: [x]}"),
        "no step takes dead or z: one step is the output",
    ),
    "a feature that no step takes": (steps("a: {inputs: [amount, age]}"), "no step takes the feature device"),
    "no input": (steps("a: {inputs: []}"), "graph.a.inputs: Tuple should have at least 1 item"),
    "inputs left out": (steps("a: {trainer: isotonic}"), "graph.a.inputs: required, and missing"),
    "an unknown key": (
        steps("a: {inputs: [amount], trainr: x}"),
        "graph.a.trainr: unknown key; did you mean 'trainer'?",
    ),
    "an unknown trainer": (steps("a: {inputs: [amount], trainer: xgb}"), "graph.a.trainer: there is no trainer 'xgb'"),
    "a trainer that is elsewhere": (steps("a: {inputs: [amount], trainer: ../a.py}"), "there is no trainer '../a.py'"),
    "isotonic of two": (steps("a: {inputs: [amount, age], trainer: isotonic}"), "isotonic calibrates one number"),
    "isotonic of levels": (steps("a: {inputs: [device], trainer: isotonic}"), "isotonic calibrates one number"),
    "a threshold of the output": (
        steps("x: {inputs: [amount, age, device], threshold: 0.2}"),
        "the step x is the output, whose threshold is prediction.threshold",
    ),
    "a threshold of 1": (
        steps("x: {inputs: [amount], threshold: 1}"),
        "graph.x.threshold: Input should be less than 1",
    ),
    "seventeen steps": (
        steps("s0: {inputs: [amount, age, device]}", *(f"s{n}: {{inputs: [s{n - 1}]}}" for n in range(1, 17))),
        "17 steps are no graph; it has 1 to 16",
    ),
    "no mapping": ("graph: [a]\n", "graph: Input should be a valid dictionary"),
    "a trainer of the whole": (
        steps(REST) + "retrain: {trainer: logistic_regression}\n",
        "retrain.trainer: the steps of a graph have trainers of their own",
    ),
    "a retrain of a step that there is not": (
        RANKING + "retrain: {steps: [rank]}\n",
        "retrain.steps: 'rank' is no step of the graph; there are: ranking, retrieval",
    ),
    "a retrain of steps without a graph": (
        "retrain: {steps: [rank]}\n",
        "'rank' is no step of the graph; there are: none, since the spec declares no graph",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_graph_is_told_with_its_line_in_one_sentence(tmp_path: Path, what: str) -> None:
    text, said = WRONG[what]
    with pytest.raises(SpecError) as refused:
        read(tmp_path, text)
    told = str(refused.value).splitlines()[0]
    assert said in told
    assert told.startswith(f"{tmp_path / 'spec.yaml'}:")


def test_a_regression_has_no_threshold_and_the_score_trainers_of_its_task(tmp_path: Path) -> None:
    base = BASE.replace("binary_classification", "regression")
    text = steps("x: {inputs: [amount, age, device], threshold: 0.5, trainer: logistic_regression}", "y: {inputs: [x]}")
    with pytest.raises(SpecError) as refused:
        read(tmp_path, text, base)
    assert "graph.x.trainer: there is no trainer 'logistic_regression'" in str(refused.value)
    assert "graph.x.threshold: there is no threshold in a regression" in str(refused.value)
