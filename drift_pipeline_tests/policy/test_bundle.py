"""The bundle: its digest, and what the real OPA makes of it (skipped where no `opa` is on the PATH)."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from drift_pipeline.policy.engines import PACKAGED_BUNDLE, Bundle, read_bundle
from drift_pipeline_tests.contracts.decision_table import ROWS

OPA = shutil.which("opa")
needs_opa = pytest.mark.skipif(OPA is None, reason="no `opa` on the PATH: the bundle is not tried on the real OPA")


def opa(*arguments: str, question: str | None = None) -> str:
    ran = subprocess.run([str(OPA), *arguments], input=question, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_opa
def test_opa_finds_the_bundle_valid_and_formatted() -> None:
    opa("check", "--strict", str(PACKAGED_BUNDLE))
    assert opa("fmt", "--list", str(PACKAGED_BUNDLE)) == ""


@needs_opa
def test_the_bundles_own_tests_pass_on_opa() -> None:
    opa("test", str(PACKAGED_BUNDLE))


@needs_opa
def test_the_decision_table_comes_out_the_same_on_opa(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"documents": [row.document for row in ROWS]}))
    query = "[decisions | some d in data.documents; decisions := [x | x := data.drift.decision with input as d]]"
    data = ("--data", str(PACKAGED_BUNDLE / "drift.rego"), "--data", str(tmp_path / "data.json"))
    result = json.loads(opa("eval", "--format=json", *data, query))
    decisions = result["result"][0]["expressions"][0]["value"]
    wanted = [[{"action": row.action, "reasons": row.reasons}] if row.action else [] for row in ROWS]
    assert dict(zip((row.claim for row in ROWS), decisions, strict=True)) == dict(
        zip((row.claim for row in ROWS), wanted, strict=True)
    )


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
