"""Dashboards are what Grafana's own types say: `tsc` reads each as a `Dashboard` of @grafana/schema."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from drift_pipeline.observability.dashboards import dashboards
from drift_pipeline_tests.parts.cache import cache

pytestmark = pytest.mark.slow

PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9.3")
CHECK = ("--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext")
UNTYPED = ("expr", "titleFormat", "textFormat", "step")  # of an annotation: Prometheus' part of Grafana reads them


@pytest.fixture(scope="module")
def tsc() -> Path:
    if shutil.which("npm") is None:
        pytest.skip("no npm on the PATH")
    folder = cache() / "grafana-types"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    got = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--ignore-scripts", *PACKAGES], cwd=folder, check=False
    )
    if got.returncode != 0:
        pytest.skip("npm has not what is wanted")
    return folder / "node_modules" / ".bin" / "tsc"


def checked(tsc: Path, made: dict[str, str]) -> str:
    """What tsc says of them."""
    folder = tsc.parents[2]
    for name, text in made.items():
        typed = text.replace('"type": "value"', '"type": MappingType.ValueToText')  # no text is of an enum, for tsc
        imports = 'import {MappingType, type Dashboard} from "@grafana/schema";'
        source = f"{imports}\nexport const made: Dashboard = {typed};\n"
        (folder / f"{Path(name).stem}.ts").write_text(source)
    names = [f"{Path(name).stem}.ts" for name in made]
    ran = subprocess.run([tsc, *CHECK, *names], cwd=folder, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr


def without_untyped() -> dict[str, str]:
    found = {}
    for name, text in dashboards().items():
        made = json.loads(text)
        for annotation in made.get("annotations", {}).get("list", []):
            for key in UNTYPED:
                del annotation[key]
        found[name] = json.dumps(made)
    return found


def test_the_dashboards_are_what_grafanas_types_say(tsc: Path) -> None:
    assert checked(tsc, without_untyped()) == ""


def test_the_types_find_what_is_none(tsc: Path) -> None:
    (name, text), *_ = without_untyped().items()
    assert "TS2322" in checked(tsc, {"wrong.ts": text.replace('"schemaVersion": 41', '"schemaVersion": "x"')}), name
