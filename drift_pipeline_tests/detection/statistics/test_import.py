"""The room is light to enter."""

import subprocess
import sys


def test_importing_every_statistic_loads_no_scipy() -> None:
    script = """
import importlib, pkgutil, sys
import drift_pipeline.detection.statistics as room
names = [module.name for module in pkgutil.iter_modules(room.__path__)]
for name in names:
    importlib.import_module(f"{room.__name__}.{name}")
print(len(names), "scipy" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    count, scipy_loaded = found.stdout.split()
    assert int(count) >= 9
    assert scipy_loaded == "False"
