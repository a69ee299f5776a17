"""Graph: the steps of a model that is several pipelines. A step's output is a named input of later ones."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from pydantic import Field

from drift_pipeline.spec.parts import Part
from drift_pipeline.spec.values import OWN_TRAINER, STEP_TRAINERS, TRAINERS, ColumnType, Task

Problem = tuple[tuple[str, ...], str]  # where in the spec, and what
STEP_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
MOST_STEPS = 16


class Step(Part):
    """One pipeline: `inputs` are features, and steps whose output it takes.

    `threshold`: rows that it scores below have the model's score 0, and no later step scores them. None = all go on.
    """

    inputs: tuple[str, ...] = Field(min_length=1)
    trainer: str = "gradient_boosting"
    threshold: float | None = Field(default=None, gt=0, lt=1)


def problems(
    graph: Mapping[str, Step], task: Task, features: Mapping[str, ColumnType], columns: Collection[str]
) -> Iterator[Problem]:
    """Why the steps that a spec declares are no graph; `columns` are all that the spec names."""
    for name, step in graph.items():
        known = (*TRAINERS[task], *STEP_TRAINERS)
        if step.trainer not in known and not OWN_TRAINER.fullmatch(step.trainer):
            told = (
                f"there is no trainer {step.trainer!r}; there are: {', '.join(known)}, or ./train.py beside this file"
            )
            yield ("graph", name, "trainer"), told
        one_number = [features.get(one, "numeric") for one in step.inputs] == ["numeric"]
        if step.trainer in STEP_TRAINERS and not one_number:
            told = f"{step.trainer} calibrates one number: let it take one step, and nothing else"
            yield ("graph", name, "inputs"), told
        if step.threshold is not None and task == "regression":
            told = "there is no threshold in a regression: it belongs to the task binary_classification"
            yield ("graph", name, "threshold"), told
    if clash := [name for name in graph if name in columns]:
        yield ("graph", clash[0]), f"the step {clash[0]} has the name of a column; rename one of them"
        return
    try:
        ordered(graph, features)
    except ValueError as error:
        yield ("graph",), str(error)


def ordered(steps: Mapping[str, Step], features: Collection[str]) -> dict[str, Step]:
    """The steps so that each comes after those that it takes, otherwise as they are given; the last is the output.

    Raises:
        ValueError: they are no graph with one output, in one sentence.
    """
    for problem in (_odd_name(steps, features), _odd_input(steps, features)):
        if problem:
            raise ValueError(problem)
    left, found = dict(steps), dict[str, Step]()
    while left:
        ready = next((name for name, step in left.items() if not left.keys() & {*step.inputs}), None)
        if ready is None:
            circle = " -> ".join(_circle(left))
            raise ValueError(f"the steps {circle} are a cycle; a step takes only what is computed before it")
        found[ready] = left.pop(ready)
    if problem := _odd_output(found, features):
        raise ValueError(problem)
    return found


def _odd_name(steps: Mapping[str, Step], features: Collection[str]) -> str:
    if not 0 < len(steps) <= MOST_STEPS:
        return f"{len(steps)} steps are no graph; it has 1 to {MOST_STEPS}"
    if odd := [name for name in steps if not STEP_NAME.fullmatch(name)]:
        return f"{odd[0]!r:.80} cannot name a step: a letter, then letters, digits and _, all lower case, 64 at most"
    if odd := [name for name in steps if name in features]:
        return f"the step {odd[0]} has the name of a column; rename one of them"
    return ""


def _odd_input(steps: Mapping[str, Step], features: Collection[str]) -> str:
    for name, step in steps.items():
        if odd := [one for one in step.inputs if one not in features and one not in steps]:
            return f"the step {name} takes {odd[0]!r:.80}, which is no feature and no step"
        if odd := [one for one in step.inputs if step.inputs.count(one) > 1]:
            return f"the step {name} takes {odd[0]} twice; keep one"
    return ""


def _odd_output(steps: Mapping[str, Step], features: Collection[str]) -> str:
    taken = {one for step in steps.values() for one in step.inputs}
    if len(outputs := [name for name in steps if name not in taken]) > 1:
        return (
            f"no step takes {' or '.join(outputs)}: one step is the output, and each other one is taken by a later one"
        )
    if steps[outputs[0]].threshold is not None:
        return f"the step {outputs[0]} is the output, whose threshold is prediction.threshold"
    if odd := [name for name in features if name not in taken]:
        return f"no step takes the feature {odd[0]}; let one take it, or leave it out"
    return ""


def _circle(steps: Mapping[str, Step]) -> Sequence[str]:
    """Steps each of which takes the next; the first is the last again."""
    path = [next(iter(steps))]
    while path[-1] not in path[:-1]:
        path.append(next(one for one in steps[path[-1]].inputs if one in steps))
    return path[path.index(path[-1]) :]
