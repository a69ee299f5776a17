"""The spec: what a user declares about one monitored model, one YAML a model.

Every value that is left out has a default; the defaults of `kpis` are the specification's KPI matrix. `values.py` has
what a key may hold, `parts.py` the mappings, `graph.py` the steps of a model of several pipelines, `declarations.py`
what only people can say, `model.py` the whole, `reading.py` the way from a file, with its errors.
"""

from drift_pipeline.spec.declarations import ChangeEnvelope, Declarations, Profile, Statement
from drift_pipeline.spec.graph import Step, ordered
from drift_pipeline.spec.model import ModelSpec
from drift_pipeline.spec.parts import (
    Ceiling,
    Columns,
    Databricks,
    Drop,
    Feast,
    Gates,
    Invariance,
    Kpis,
    Latency,
    Level,
    Outcome,
    Part,
    Prediction,
    PromQl,
    Psi,
    RangeZ,
    Retention,
    Retrain,
    Rise,
    Rollout,
    RowSource,
    Span,
)
from drift_pipeline.spec.reading import DECLARATIONS, parse_spec, read_spec, spec_of, with_declarations
from drift_pipeline.spec.values import APPROVER, ROLE, TRAINERS, ColumnType, Duration, Form, Task

__all__ = [
    "APPROVER",
    "DECLARATIONS",
    "ROLE",
    "TRAINERS",
    "Ceiling",
    "ChangeEnvelope",
    "ColumnType",
    "Columns",
    "Databricks",
    "Declarations",
    "Drop",
    "Duration",
    "Feast",
    "Form",
    "Gates",
    "Invariance",
    "Kpis",
    "Latency",
    "Level",
    "ModelSpec",
    "Outcome",
    "Part",
    "Prediction",
    "Profile",
    "PromQl",
    "Psi",
    "RangeZ",
    "Retention",
    "Retrain",
    "Rise",
    "Rollout",
    "RowSource",
    "Span",
    "Statement",
    "Step",
    "Task",
    "ordered",
    "parse_spec",
    "read_spec",
    "spec_of",
    "with_declarations",
]
