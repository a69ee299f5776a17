"""The drift report: the monitor's own numbers, rendered by Evidently. Nothing is computed anew here.

`tables.py` is what is told, `drawing.py` which rows are drawn, `evidently_blocks.py` the one door to Evidently, and
`writing.py` puts the page together.
"""

from drift_pipeline.detection.report.drawing import DRAWN_ROWS
from drift_pipeline.detection.report.writing import DriftFiles, run_file, write_drift_report

__all__ = ["DRAWN_ROWS", "DriftFiles", "run_file", "write_drift_report"]
