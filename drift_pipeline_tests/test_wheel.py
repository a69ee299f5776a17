"""What is in the wheel works without the checkout: the package, its files, its Dagster component."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed: it builds the wheel"),
    pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed: it installs the wheel"),
    pytest.mark.skipif(find_spec("dagster_dg_cli") is None, reason="dagster-dg-cli is not installed"),
]

PROJECT = """\
[project]
name = "my-models"
version = "0"

[tool.dg]
directory_type = "project"

[tool.dg.cli]
suppress_warnings = ["project_and_activated_venv_mismatch"]

[tool.dg.project]
root_module = "my_models"
defs_module = "my_models.defs"
code_location_target_module = "my_models.definitions"
"""
DEFINITIONS = """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
LOADED = """
import json, sys
import drift_pipeline
from drift_pipeline.definitions import defs
assets = [key.to_user_string() for key in defs().resolve_asset_graph().get_all_asset_keys()]
print(json.dumps({"from": drift_pipeline.__file__, "assets": assets}))
"""


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, and all else from this one."""

    wheel: Path
    folder: Path

    @property
    def scripts(self) -> Path:
        return self.folder / "bin"

    def run(self, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("DRIFT_", "DAGSTER_", "PYTHON"))
        }
        told = {
            "PATH": f"{self.scripts}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.folder),
            "DAGSTER_DG_CLI_CONFIG": os.devnull,
        }
        return subprocess.run(command, cwd=cwd, env={**kept, **told}, capture_output=True, text=True, check=False)

    def python(self, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        return self.run(str(self.scripts / "python"), *arguments, cwd=cwd)

    def dg(self, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        return self.python("-m", "dagster_dg_cli.cli", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    build = (*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder))
    built = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("drift_pipeline-*.whl")
    made = Installed(wheel, folder / "venv")
    venv.create(made.folder, with_pip=False)
    site = next(made.folder.glob("lib/python*/site-packages"))
    (site / "others.pth").write_text(f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n")
    put = subprocess.run(
        (*pip, "install", "--no-deps", "--target", str(site), str(wheel)), capture_output=True, text=True, check=False
    )
    assert put.returncode == 0, put.stderr
    return made


@pytest.fixture(scope="module")
def project(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new dg project with one model, as `dg scaffold` wrote it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "my_models" / "defs").mkdir(parents=True)
    for name in ("__init__.py", "defs/__init__.py"):
        (folder / "my_models" / name).touch()
    (folder / "my_models" / "definitions.py").write_text(DEFINITIONS)
    (next(installed.folder.glob("lib/python*/site-packages")) / "my_models.pth").write_text(f"{folder}\n")
    done = installed.dg("scaffold", "defs", "drift_pipeline.components.MonitoredModel", "fraud", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def packaged(*patterns: str) -> Iterator[str]:
    """The files of the package that are no Python, as their names in a wheel."""
    for pattern in patterns:
        for path in (ROOT / "drift_pipeline").rglob(pattern):
            yield path.relative_to(ROOT).as_posix()


def test_the_wheel_has_the_templates_the_rules_and_the_packaged_model(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    wanted = set(packaged("*.j2", "*.rego", "defs.yaml", "defs.yaml.template", "workspace.yaml", "py.typed"))
    assert {Path(name).suffix for name in wanted} >= {".j2", ".rego", ".yaml", ".template"}
    assert wanted - names == set()


def test_the_wheel_has_no_tests_and_nothing_beside_the_package(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"drift_pipeline"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_code_location_loads_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    found = installed.python("-c", LOADED, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert Path(told["from"]).is_relative_to(installed.folder)
    assert "recommendation_v3/registered_model" in told["assets"]
    assert len(told["assets"]) == 8


def test_the_command_runs_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    found = installed.python("-c", "from drift_pipeline.cli import main; main(['--help'])", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "replay" in found.stdout


def test_scaffolding_writes_the_commented_template_with_the_models_name(project: Path) -> None:
    text = (project / "my_models" / "defs" / "fraud" / "defs.yaml").read_text()
    template = (ROOT / "drift_pipeline" / "components" / "defs.yaml.template").read_text()
    assert text == template.replace("NAME", "fraud")
    assert "  name: fraud " in text
    assert "  # kpis: " in text


@pytest.mark.parametrize("what", ["yaml", "defs"])
def test_what_was_scaffolded_passes_dg_check(installed: Installed, project: Path, what: str) -> None:
    found = installed.dg("check", what, cwd=project)
    assert found.returncode == 0, found.stdout + found.stderr


def test_dg_check_names_the_line_of_an_unknown_key(installed: Installed, project: Path) -> None:
    path = project / "my_models" / "defs" / "fraud" / "defs.yaml"
    before = path.read_text()
    path.write_text(before.replace("  owner: ", "  ownr: "))
    try:
        found = installed.dg("check", "yaml", cwd=project)
    finally:
        path.write_text(before)
    line = 1 + next(number for number, row in enumerate(before.splitlines()) if "  owner: " in row)
    assert found.returncode == 1
    assert f"defs.yaml:{line}" in found.stdout + found.stderr
    assert "ownr" in found.stdout + found.stderr
