"""deploy/helm without Helm: its values are held by the schema, and what is ours in it is no copy."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from drift_pipeline import __version__
from drift_pipeline.settings import Settings
from drift_pipeline_tests.deploy.charts import CASES, CHART, case

TOP = CHART.parents[2]
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As Helm merges values."""
    both = {
        name: merged(below[name], value) if isinstance(value, dict) and isinstance(below.get(name), dict) else value
        for name, value in above.items()
    }
    return {**below, **both}


def errors(values: dict[str, Any]) -> list[str]:
    found = jsonschema.Draft7Validator(SCHEMA).iter_errors(merged(VALUES, values))
    return [".".join(map(str, one.absolute_path)) + ": " + one.message for one in found]


@pytest.mark.parametrize("name", CASES)
def test_values_of_a_case_are_valid(name: str) -> None:
    assert errors(case(name)) == []


def test_what_has_no_default_is_asked_for() -> None:
    assert [error.partition(":")[0] for error in errors({})] == ["store.url"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"gatewy": {}},
        {"image": {"tag": "latest"}},
        {"image": {"digest": "sha256:12"}},
        {"store": {"url": "/var/lib/drift"}},
        {"gateway": {"kind": "StatefulSet"}},
        {"gateway": {"replicas": 0}},
        {"dagster": {"executor": "celery_k8s"}},
        {"environment": {"DRIFT_EXECUTOR": "k8s_job"}},
        {"home": {"accessMode": "ReadOnlyMany"}},
        {"home": {"size": "20"}},
        {"capture": {"sources": ["otlp://0.0.0.0:9999"]}},
        {"environment": {"DRIFT_DATABASE": "postgresql://"}},
        {"environment": {"DRIFT_TICK_SECONDS": 30}},
        {"models": {"inline": {"Fraud": {"defs.yaml": "x"}}}},
        {"models": {"inline": {"fraud": {"train.py": "x"}}}},
        {"models": {"git": {"repository": "https://user:password@git/x"}}},
        {"dagster": {"runs": {"pods": {"lanes": {"urgent": {}}}}}},
        {"routing": {"pod": {}}},
        {"dagster": {"runs": {"pods": {"capacities": {"spot": {"nodeSelector": {}}}}}}},
    ],
    ids=str,
)
def test_a_value_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    assert len(errors(merged(case("least"), wrong))) == 1


def test_every_value_is_in_the_schema_with_its_default() -> None:
    def compare(given: dict[str, Any], schema: dict[str, Any], at: str) -> None:
        known = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if known.get("additionalProperties") is not False:
            return
        assert given.keys() <= known["properties"].keys(), at
        for name, value in given.items():
            if isinstance(value, dict):
                compare(value, known["properties"][name], f"{at}.{name}")

    compare(VALUES, SCHEMA, "values")
    assert SCHEMA["properties"].keys() - VALUES.keys() == {"global"}  # Helm's own


def test_every_value_is_used() -> None:
    """By its whole path, or by its own name where a template took what is above it."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir())

    def used(path: tuple[str, ...]) -> bool:
        ways = [rf"\.Values\.{re.escape('.'.join(path[:upto]))}(?![\w.])" for upto in range(1, len(path) + 1)]
        taken = any(re.search(way, text) for way in ways[:-1])
        return bool(re.search(ways[-1], text)) or (taken and bool(re.search(rf"\.{path[-1]}\b", text)))

    def leaves(schema: dict[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if schema.get("additionalProperties") is False and "$ref" not in schema and at[-1:] != ("pods",):
            for name, below in schema["properties"].items():
                yield from leaves(below, (*at, name))
        else:
            yield at

    assert [".".join(path) for path in leaves(SCHEMA, ()) if not used(path)] == ["global"]


def test_rules_and_instance_are_the_files_themselves() -> None:
    ours = {
        "alerts.yaml": TOP / "deploy" / "prometheus" / "alerts.yaml",
        "recording.yaml": TOP / "deploy" / "prometheus" / "recording.yaml",
        "dagster.yaml": TOP / "drift_pipeline" / "dagster.yaml",
    }
    linked = {path.name: path for path in (CHART / "files").iterdir()}
    assert linked.keys() == ours.keys()
    for name, path in linked.items():
        assert path.is_symlink()
        assert path.resolve() == ours[name].resolve()


def test_the_chart_is_of_the_packages_version_and_its_cases_set_what_is_read() -> None:
    told = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert told["appVersion"] == __version__
    read = {f"DRIFT_{name.upper()}" for name in Settings.model_fields}
    for name in CASES:
        assert {key for key in case(name).get("environment", {}) if key.startswith("DRIFT_")} <= read


def test_values_that_the_readme_shows_are_some() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", Path(CHART / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert {key for block in shown for key in yaml.safe_load(block)} >= {"image", "store", "routing", "dagster"}
    for block in shown:
        assert errors(merged(case("least"), yaml.safe_load(block))) == []


def test_the_readme_tells_every_value_that_has_to_be_given() -> None:
    text = Path(CHART / "README.md").read_text(encoding="utf-8")
    for value in ("store.url", "models.inline", "models.git.repository", "database.secret", "store.secret"):
        assert re.search(rf"`{re.escape(value)}`", text), value
