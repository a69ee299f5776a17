"""The cases of a folder of rules: what its `*_cases_test.rego` files say that the rules answer, tried as they are.

Such a file has a package of its own and a rule `cases`: by name, `{"input": ..., "expect": ...}`, with `"rule"` where
that is not `decision`. `expect` has the keys that the answer has to have so, or is null where nothing may be answered.
They are data and need no `with`, on which regopy crashes, so that `opa test` may go through the same cases.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.policy.engines import DECISION, RELEASE, PolicyEngine, read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine, UndefinedError

_ENDING = "_cases_test.rego"
_PACKAGE = re.compile(r"^package\s+([A-Za-z_][\w.]*)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Tried:
    """A case, and why it does not hold; "" where it does."""

    file: str
    name: str
    failed: str


def try_cases(folder: Path) -> list[Tried]:
    """Every case of the folder, in order of file and name.

    Raises:
        InputError: the folder holds no rules or no cases, or one that cannot be read or evaluated.
    """
    read_bundle(folder)
    files = sorted(folder.glob(f"*{_ENDING}"))
    if not files:
        raise InputError(f"{folder}: no *{_ENDING} here, so there is nothing to try; opa test runs other tests")
    return [tried for path in files for tried in _of_file(folder, path)]


def _of_file(folder: Path, path: Path) -> Iterator[Tried]:
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    package = _PACKAGE.search(text)
    if package is None:
        raise InputError(f"{path}: names no package")
    rule = f"{package[1].replace('.', '/')}/cases"
    with closing(EmbeddedEngine(folder, also={rule: text})) as engine:
        try:
            cases = engine.ask(rule, {})
        except UndefinedError as error:
            raise InputError(f"{path}: has no rule `cases` with a value; it is an object of cases by name") from error
        except UnavailableError as error:
            raise InputError(f"{path}: cannot be evaluated with the rules of {folder}: {error}") from error
        for name, case in sorted(cases.items()):
            yield Tried(path.name, name, _failed(engine, _checked(path, name, case)))


def _checked(path: Path, name: str, case: Any) -> Mapping[str, Any]:
    whole = isinstance(case, dict) and {"input", "expect"} <= case.keys() <= {"input", "expect", "rule"}
    if not whole or not isinstance(case["input"], dict) or not isinstance(case["expect"], dict | None):
        raise InputError(f"{path}: case {name!r} is not an object with input, expect and perhaps rule")
    if case.get("rule", DECISION) not in (DECISION, RELEASE):
        raise InputError(f"{path}: case {name!r} is of no rule that is asked; there are: {DECISION}, {RELEASE}")
    return dict(case)


def _failed(engine: PolicyEngine, case: Mapping[str, Any]) -> str:
    """Why the rules do not answer as the case expects."""
    try:
        answer = engine.evaluate(case["input"], case.get("rule", DECISION)).value
    except UndefinedError:
        return "" if case["expect"] is None else "it is undefined"
    except UnavailableError as error:
        return str(error)
    if case["expect"] is None:
        return f"it answers {answer}, and nothing was expected"
    other = {key: answer.get(key) for key, value in case["expect"].items() if answer.get(key) != value}
    return "; ".join(f"{key} is {value!r}, not {case['expect'][key]!r}" for key, value in other.items())
