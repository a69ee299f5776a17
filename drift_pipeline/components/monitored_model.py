"""MonitoredModel: one YAML, one model, its whole asset graph."""

from pathlib import Path
from typing import Any

import dagster as dg

from drift_pipeline.components.monitoring import monitoring_assets
from drift_pipeline.components.partitions import first_day
from drift_pipeline.components.training import training_assets
from drift_pipeline.files import write_whole
from drift_pipeline.spec import DECLARATIONS, ModelSpec, with_declarations
from drift_pipeline.spec.drafted import drafted_declarations

TEMPLATE = Path(__file__).with_name("defs.yaml.template")


class MonitoredModelScaffolder(dg.Scaffolder[Any]):
    """Writes a commented `defs.yaml` and `declarations.yaml` to fill in."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        name = request.target_path.name
        text = TEMPLATE.read_text(encoding="utf-8").replace("NAME", name)
        (request.target_path / "defs.yaml").write_text(text, encoding="utf-8")
        write_whole(request.target_path / DECLARATIONS, drafted_declarations())


@dg.scaffold_with(MonitoredModelScaffolder)
class MonitoredModel(dg.Component):
    """A model in production that is watched for drift, retrained, proven and documented."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[ModelSpec]:
        return ModelSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> "MonitoredModel":
        return cls(with_declarations(attributes.placed(context.path), context.path))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        first = first_day(self.spec)
        return dg.Definitions(assets=[*monitoring_assets(self.spec, first), *training_assets(self.spec)])
