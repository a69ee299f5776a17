"""The spec: what a user declares about one monitored model, one YAML a model.

Every value that is left out has a default; the defaults of `kpis` are the specification's KPI matrix. `values.py` has
what a key may hold, `parts.py` the mappings, `model.py` the whole, `reading.py` the way from a file, with its errors.
"""

from drift_pipeline.spec.model import ModelSpec
from drift_pipeline.spec.parts import (
    Card,
    Ceiling,
    Columns,
    Drop,
    Gates,
    Invariance,
    Kpis,
    Level,
    Outcome,
    Part,
    Prediction,
    Psi,
    RangeZ,
    Retention,
    Retrain,
    Rise,
    Risk,
    Rollout,
    Span,
)
from drift_pipeline.spec.reading import parse_spec, read_spec, spec_of
from drift_pipeline.spec.values import APPROVER, ROLE, TRAINERS, ColumnType, Duration, Form, Task

__all__ = [
    "APPROVER",
    "ROLE",
    "TRAINERS",
    "Card",
    "Ceiling",
    "ColumnType",
    "Columns",
    "Drop",
    "Duration",
    "Form",
    "Gates",
    "Invariance",
    "Kpis",
    "Level",
    "ModelSpec",
    "Outcome",
    "Part",
    "Prediction",
    "Psi",
    "RangeZ",
    "Retention",
    "Retrain",
    "Rise",
    "Risk",
    "Rollout",
    "Span",
    "Task",
    "parse_spec",
    "read_spec",
    "spec_of",
]
