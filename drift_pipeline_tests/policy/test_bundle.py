"""The bundle: its digest, and what the real OPA makes of it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.policy.engines import PACKAGED_BUNDLE, Bundle, read_bundle
from drift_pipeline_tests.parts.cache import MissingError
from drift_pipeline_tests.parts.fixtures import lacking
from drift_pipeline_tests.parts.opa import find


@pytest.fixture(scope="module")
def opa() -> Callable[..., str]:
    try:
        program = find()
    except MissingError as error:
        lacking("opa", error)

    def run(*arguments: str) -> str:
        ran = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


@pytest.mark.live
def test_opa_finds_the_bundle_valid_and_formatted(opa: Callable[..., str]) -> None:
    opa("check", "--strict", str(PACKAGED_BUNDLE))
    assert opa("fmt", "--list", str(PACKAGED_BUNDLE)) == ""


@pytest.mark.live
def test_the_bundles_own_tests_pass_on_opa(opa: Callable[..., str]) -> None:
    assert "PASS: 2/2" in opa("test", str(PACKAGED_BUNDLE))


def test_the_digest_leaves_tests_out_and_names_every_rule(tmp_path: Path) -> None:
    (tmp_path / "b.rego").write_text("package drift")
    (tmp_path / "drift_test.rego").write_text("package drift_test")
    digest = read_bundle(tmp_path).digest
    assert digest == Bundle({"b.rego": "package drift"}).digest
    (tmp_path / "drift_test.rego").write_text("package changed")
    assert read_bundle(tmp_path).digest == digest
    (tmp_path / "a.rego").write_text("")
    assert read_bundle(tmp_path).digest != digest


def test_the_digest_keeps_names_and_texts_apart() -> None:
    assert Bundle({"ab": "c"}).digest != Bundle({"a": "bc"}).digest
    assert Bundle({"a": "b", "c": "d"}).digest == Bundle({"c": "d", "a": "b"}).digest


def test_the_digest_is_a_sha256() -> None:
    kind, _, digits = read_bundle().digest.partition(":")
    assert (kind, len(bytes.fromhex(digits))) == ("sha256", 32)


def test_the_digest_is_of_the_data_and_not_of_how_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text("package drift")
    (tmp_path / "data.json").write_text('{"policy": {"b": 1, "a": 2}}')
    digest = read_bundle(tmp_path).digest
    (tmp_path / "data.json").write_text('{"policy":\n{"a": 2.0, "b": 1}}')
    assert read_bundle(tmp_path).digest == digest
    (tmp_path / "data.json").write_text('{"policy": {"b": 1, "a": 3}}')
    assert read_bundle(tmp_path).digest != digest


@pytest.mark.parametrize("data", ["", "[]", "{}", '{"drift": {}}', '{"policy": {}, "drift": {}}', "[" * 100_000])
def test_data_that_is_no_bundles_is_refused(tmp_path: Path, data: str) -> None:
    (tmp_path / "a.rego").write_text("package drift")
    (tmp_path / "data.json").write_text(data)
    with pytest.raises(InputError, match="the policy cannot be read"):
        read_bundle(tmp_path)
