"""The tests of a model's own trainer are run as they are, apart from ours, and told as what they came to."""

import os
import time
from pathlib import Path
from textwrap import dedent

import pytest

from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.own import source_of
from drift_pipeline.training.results import GateResult, Outcome
from drift_pipeline.training.trainer_tests import folder_of_tests, trainer_tests_gate
from drift_pipeline_tests.training.test_own import with_trainer
from drift_pipeline_tests.training.worlds import spec

PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN
TRAINER = "def build(trial, spec): return None\n"


def asked(folder: Path, tests: str, deadline_s: float = 60.0) -> GateResult:
    own = with_tests(folder, tests)
    source = source_of(own)
    assert source is not None
    found = trainer_tests_gate(own, source.digest, deadline_s)
    assert found is not None
    return found


def with_tests(folder: Path, tests: str) -> ModelSpec:
    (folder / "tests").mkdir()
    (folder / "tests" / "test_train.py").write_text(dedent(tests))
    return with_trainer(folder, TRAINER)


CASES: dict[str, tuple[str, Outcome, str]] = {
    "they pass, and import the trainer": (
        "from train import build\ndef test_it(): assert build(None, None) is None",
        PASS,
        "1 passed",
    ),
    "one fails": ("def test_one(): pass\ndef test_two(): assert 1 == 2", FAIL, "assert 1 == 2"),
    "they cannot be collected": ("import a_package_that_is_not_there", FAIL, "a_package_that_is_not_there"),
    "a typo": ("def test_(: pass", FAIL, "SyntaxError"),
    "there is no test": ("x = 1", UNKNOWN, "no test was run"),
    "the process dies": ("import os\ndef test_it(): os.kill(os.getpid(), 9)", UNKNOWN, "pytest ended with -9"),
    "they end pytest": (
        "import pytest\ndef test_it(): pytest.exit('no', returncode=7)",
        UNKNOWN,
        "pytest ended with 7",
    ),
    "they end pytest well": (
        "import pytest\ndef test_it(): pytest.exit('fine', returncode=0)",
        UNKNOWN,
        "no test was run",
    ),
    "all are skipped": ("import pytest\n@pytest.mark.skip\ndef test_it(): pass", UNKNOWN, "no test was run"),
    "settings are kept from them": (
        "import os\ndef test_it(): assert not [name for name in os.environ if name.startswith('DRIFT_')]",
        PASS,
        "1 passed",
    ),
    "our plugins and settings are kept from them": (
        "import warnings\ndef test_it(request):\n  warnings.warn('w')\n"
        "  assert not request.config.pluginmanager.hasplugin('xdist')",
        PASS,
        "1 passed",
    ),
}


@pytest.mark.parametrize(("tests", "outcome", "said"), CASES.values(), ids=CASES)
def test_what_they_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tests: str, outcome: Outcome, said: str
) -> None:
    monkeypatch.setenv("DRIFT_PAGES_KEY", "secret")
    found = asked(tmp_path, tests)
    assert (found.name, found.outcome) == ("trainer_tests", outcome), found
    assert said in found.reason
    assert str(tmp_path) not in found.reason
    assert found.facts["tool"].startswith("pytest ")


def test_what_does_not_end_is_ended_with_what_it_started(tmp_path: Path) -> None:
    tests = f"""
        import subprocess, time
        def test_it():
            child = subprocess.Popen(["sleep", "600"])
            open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
            time.sleep(600)
    """
    found = asked(tmp_path, tests, deadline_s=4.0)
    assert found.outcome is UNKNOWN
    assert "did not end in 4 s" in found.reason
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _lives(pid):
            break
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_tests_of_another_trainer_than_the_one_that_trained_tell_nothing(tmp_path: Path) -> None:
    own = with_tests(tmp_path, "def test_it(): pass")
    found = trainer_tests_gate(own, "sha256:" + "0" * 64)
    assert found is not None
    assert (found.outcome, "another one by now" in found.reason) == (UNKNOWN, True)
    (tmp_path / "train.py").unlink()
    found = trainer_tests_gate(own, "sha256:" + "0" * 64)
    assert found is not None
    assert (found.outcome, "cannot be read" in found.reason) == (UNKNOWN, True)


def test_where_there_is_nothing_to_ask_there_is_no_such_gate(tmp_path: Path) -> None:
    assert trainer_tests_gate(with_trainer(tmp_path, TRAINER), None) is None
    (tmp_path / "tests").mkdir()
    assert folder_of_tests(spec().placed(tmp_path)) is None
    assert trainer_tests_gate(spec().placed(tmp_path), None) is None
    assert "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in os.environ
