"""Lineage: which data a version came from, as OpenLineage events; buffered in the outbox, so none blocks or is lost."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from drift_pipeline import __version__
from drift_pipeline.control.store import Message
from drift_pipeline.errors import UnavailableError

TOPIC = "lineage"
PRODUCER = f"https://pypi.org/project/drift-pipeline/{__version__}"


def training_events(
    model: str, version: str, digest: str, at: datetime, delta_versions: Mapping[str, int], columns: Mapping[str, str]
) -> tuple[Message, ...]:
    """START and COMPLETE of one training: Delta tables at their version in, the bundle at its digest out.

    The run's id follows from model, version and digest: the same training told twice is one run.
    """
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset
    from openlineage.client.serde import Serde

    run = Run(str(uuid5(NAMESPACE_URL, f"drift:{model}:{version}:{digest}")))
    schema = schema_dataset.SchemaDatasetFacet(
        fields=[schema_dataset.SchemaDatasetFacetFields(name, kind) for name, kind in columns.items()]
    )
    inputs = [
        InputDataset(
            f"drift/{model}",
            table,
            facets={
                "version": dataset_version_dataset.DatasetVersionDatasetFacet(str(number)),
                **({"schema": schema} if table == "predictions" else {}),
            },
        )
        for table, number in sorted(delta_versions.items())
    ]
    bundle = dataset_version_dataset.DatasetVersionDatasetFacet(digest)
    outputs = [OutputDataset(f"drift/{model}", version, facets={"version": bundle})]
    messages = []
    for state in (RunState.START, RunState.COMPLETE):
        done = state is RunState.COMPLETE
        event = RunEvent(
            eventType=state,
            eventTime=at.isoformat(),
            run=run,
            job=Job("drift", f"{model}.train"),
            producer=PRODUCER,
            inputs=inputs,
            outputs=outputs if done else [],
        )
        messages.append(Message(f"{model}:{version}:{state.value.lower()}", TOPIC, Serde.to_dict(event)))
    return tuple(messages)


class LineageFile:
    """The embedded default: OpenLineage's own file transport, one JSON line an event."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, message: Message) -> None:
        from openlineage.client.transport.file import FileConfig, FileTransport

        event: Any = dict(message.body)  # the transport writes what its Serde makes of it, and that takes a dict as is
        try:
            FileTransport(FileConfig(log_file_path=str(self._path), append=True)).emit(event)
        except RuntimeError as error:
            raise UnavailableError(f"{self._path}: lineage cannot be written: {error}") from error
