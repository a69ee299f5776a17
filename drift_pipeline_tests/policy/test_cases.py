"""`drift policy test FOLDER`: 0 every case holds, 1 one does not, 2 there is nothing that can be tried."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from drift_pipeline.cli import drift
from drift_pipeline.errors import InputError
from drift_pipeline.policy.cases import try_cases
from drift_pipeline.policy.engines import PACKAGED_BUNDLE, read_bundle

CASE = '"c": {"input": {"trigger": "schedule"}, "expect": null}'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED_BUNDLE, tmp_path / "rules"))


def cases(folder: Path, text: str) -> None:
    (folder / "own_cases_test.rego").write_text(text)


def test_the_packaged_cases_hold() -> None:
    tried = try_cases(PACKAGED_BUNDLE)
    assert len(tried) == 17
    assert [one for one in tried if one.failed] == []
    ran = CliRunner().invoke(drift, ["policy", "test", str(PACKAGED_BUNDLE)], standalone_mode=False)
    assert ran.return_value == 0
    assert f"17 of 17 cases hold; the rules are {read_bundle().digest}" in ran.output


def test_a_case_that_does_not_hold_says_what_came_instead(rules: Path) -> None:
    text = (rules / "data.json").read_text()
    (rules / "data.json").write_text(text.replace('"retrain": "spot"', '"retrain": "on_demand"'))
    ran = CliRunner().invoke(drift, ["policy", "test", str(rules), "--json"], standalone_mode=False)
    assert ran.return_value == 1
    (failed,) = (one for one in json.loads(ran.output)["cases"] if one["failed"])
    assert failed["name"] == "fallen performance retrains, on what is cheap"
    assert failed["failed"] == "capacity is 'on_demand', not 'spot'"


@pytest.mark.parametrize(
    ("expect", "failed"),
    [
        ("null", ""),
        ('{"action": "ignore"}', "it is undefined"),
    ],
)
def test_what_is_undefined_is_a_case_too(rules: Path, expect: str, failed: str) -> None:
    cases(rules, f"package own\ncases := {{{CASE.replace('null', expect)}}}\n")
    assert [one.failed for one in try_cases(rules) if one.file == "own_cases_test.rego"] == [failed]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cases := {}", "names no package"),
        ("package own", "has no rule `cases`"),
        ("package own\ncases := 1", "cannot be evaluated"),
        ("package own\ncases := {", "cannot be evaluated"),
        ('package own\ncases := {"c": 1}', "case 'c' is not an object"),
        ('package own\ncases := {"c": {"input": {}}}', "case 'c' is not an object"),
        ('package own\ncases := {"c": {"input": 1, "expect": null}}', "case 'c' is not an object"),
        ('package own\ncases := {"c": {"input": {}, "expect": null, "rule": "x"}}', "of no rule that is asked"),
        ('package own\ncases := {"c": {"input": {}, "expect": null, "why": "x"}}', "case 'c' is not an object"),
    ],
)
def test_cases_that_are_none_are_named(rules: Path, text: str, why: str) -> None:
    cases(rules, text)
    with pytest.raises(InputError, match=why):
        try_cases(rules)


def test_a_folder_without_cases_or_rules_is_none(rules: Path, tmp_path: Path) -> None:
    for path in rules.glob("*_cases_test.rego"):
        path.unlink()
    with pytest.raises(InputError, match="nothing to try"):
        try_cases(rules)
    with pytest.raises(InputError, match="no policy here"):
        try_cases(tmp_path)


def test_rules_that_cannot_be_read_are_the_folders_fault(rules: Path) -> None:
    (rules / "drift.rego").write_text("package drift\ndecision := {")
    with pytest.raises(InputError, match="cannot be evaluated"):
        try_cases(rules)
