"""The drift report: the monitor's own numbers, rendered by Evidently. Nothing is computed anew here.

`tables.py` is what is told, `numbers.py` what is plotted, `drawing.py` which rows are drawn, `evidently_blocks.py` the
one door to Evidently, `evidently_workspace.py` what `evidently ui` opens, and `writing.py` puts the page together.
"""

from drift_pipeline.detection.report.drawing import DRAWN_ROWS
from drift_pipeline.detection.report.evidently_workspace import run_file, write_point
from drift_pipeline.detection.report.numbers import numbers_of, without_limits
from drift_pipeline.detection.report.writing import DriftFiles, write_drift_report

__all__ = [
    "DRAWN_ROWS",
    "DriftFiles",
    "numbers_of",
    "run_file",
    "without_limits",
    "write_drift_report",
    "write_point",
]
