"""Who may call whom: the contracts stand in pyproject.toml, [tool.importlinter]."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and report of import-linter over the package in the folder."""
    script = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", script, "--no-cache", "--no-logo", *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return found.returncode, found.stdout + found.stderr


def test_every_contract_holds() -> None:
    code, report = lint(ROOT)
    assert code == 0, report
    assert " 0 broken" in report


@pytest.mark.parametrize(
    ("contract", "module", "line", "said"),
    [
        (
            "layers",
            "detection/new.py",
            "import drift_pipeline.policy",
            "drift_pipeline.detection.new -> drift_pipeline.policy",
        ),
        ("layers", "clock2.py", "", "clock2"),
        (
            "stages",
            "loop/releasing/new.py",
            "import drift_pipeline.loop.queue",
            "drift_pipeline.loop.releasing.new -> drift_pipeline.loop.queue",
        ),
        ("dagster", "detection/new.py", "import dagster", "drift_pipeline.detection.new -> dagster"),
        ("learning", "policy/new.py", "from sklearn import metrics", "drift_pipeline.policy.new -> sklearn"),
        ("owners", "telemetry/new.py", "import deltalake", "drift_pipeline.telemetry.new -> deltalake"),
        ("owners", "telemetry/new.py", "import evidently", "drift_pipeline.telemetry.new -> evidently"),
        ("sdks", "registry/new.py", "import wandb", "drift_pipeline.registry.new -> wandb"),
        ("pickles", "training/new.py", "import joblib", "drift_pipeline.training.new -> joblib"),
        (
            "statistics",
            "detection/statistics/new.py",
            "import logging",
            "drift_pipeline.detection.statistics.new -> logging",
        ),
        ("tests", "control/new.py", "import pytest", "drift_pipeline.control.new -> pytest"),
    ],
)
def test_a_contract_catches_what_it_is_for(tmp_path: Path, contract: str, module: str, line: str, said: str) -> None:
    package = tmp_path / "drift_pipeline"
    shutil.copytree(ROOT / "drift_pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (package / module).write_text(f"{line}\n")
    code, report = lint(tmp_path, "--contract", contract)
    assert code == 1, report
    assert said in " ".join(report.split()), report
