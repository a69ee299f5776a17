"""An OpenLineage run event as JSON: its job, run, parent, datasets and facets, each with the schema that it follows.

The same home tells the same event of the same thing: a run's id is made of the home's first audit record, the model,
the stage and what it was about, so that who gets an event twice knows it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from drift_pipeline import __version__
from drift_pipeline.bucket import Bucket, Place
from drift_pipeline.spec import ModelSpec

Event = dict[str, Any]
Facet = dict[str, Any]
JUDGED = ("OK", "WARN", "BREACH")
START, RUNNING, COMPLETE, FAIL = "START", "RUNNING", "COMPLETE", "FAIL"
PRODUCER = f"https://pypi.org/project/drift-pipeline/{__version__}/"
_SPEC = "https://openlineage.io/spec"
_CORE = f"{_SPEC}/2-0-2/OpenLineage.json#/$defs"
FACETS = {
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "dataQualityAssertions": "1-1-0/DataQualityAssertionsDatasetFacet",
    "dataQualityMetrics": "1-0-3/DataQualityMetricsInputDatasetFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "nominalTime": "1-0-1/NominalTimeRunFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "ownership": "1-0-1/OwnershipJobFacet",
    "parent": "1-2-0/ParentRunFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "symlinks": "1-0-1/SymlinksDatasetFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}


def facet(name: str, /, **values: Any) -> Facet:
    """A facet of the standard by its name, without values that are None; of another name it is our own."""
    version, _, title = FACETS.get(name, "").partition("/")
    url = f"{_SPEC}/facets/{version}/{title}.json#/$defs/{title}" if title else f"{_CORE}/RunFacet"
    return {"_producer": PRODUCER, "_schemaURL": url, **{k: v for k, v in values.items() if v is not None}}


@dataclass(frozen=True)
class Run:
    """A run of a job of one model; `subject` is what it was about, such as a decision."""

    model: str
    stage: str
    subject: str

    @property
    def job(self) -> str:
        return f"{self.model}.{self.stage}"

    @property
    def key(self) -> str:
        return f"{self.job}|{self.subject}"


@dataclass(frozen=True)
class Naming:
    """How one home's jobs, runs and datasets are named.

    home: the hash of its first audit record, which a copy of it has, too. lake: where its Delta tables lie.
    """

    home: str
    namespace: str
    lake: Place

    def run_id(self, run: Run) -> str:
        return str(uuid5(NAMESPACE_URL, f"drift-pipeline:{self.home}:{run.model}:{run.stage}:{run.subject}"))

    def event(
        self,
        kind: str,
        at: str,
        run: Run,
        *,
        parent: Run | None = None,
        owner: str = "",
        facets: Mapping[str, Facet] | None = None,
        inputs: Sequence[Mapping[str, Any]] = (),
        outputs: Sequence[Mapping[str, Any]] = (),
    ) -> Event:
        """
        Args:
            at: ISO 8601, with a zone.
            owner: of the model; "" = nobody is named.
        """
        engine = facet("processing_engine", version=__version__, name="drift_pipeline")
        above = {} if parent is None else {"parent": self._parent(parent)}
        job = {"jobType": facet("jobType", processingType="BATCH", integration="DRIFT_PIPELINE", jobType="STAGE")}
        if owner:
            job["ownership"] = facet("ownership", owners=[{"name": owner}])
        return {
            "eventType": kind,
            "eventTime": at,
            "producer": PRODUCER,
            "schemaURL": f"{_CORE}/RunEvent",
            "run": {"runId": self.run_id(run), "facets": {"processing_engine": engine, **above, **(facets or {})}},
            "job": {"namespace": self.namespace, "name": run.job, "facets": job},
            "inputs": [{"inputFacets": {}, **dataset} for dataset in inputs],
            "outputs": [{"outputFacets": {}, **dataset} for dataset in outputs],
        }

    def _parent(self, run: Run) -> Facet:
        return facet("parent", run={"runId": self.run_id(run)}, job={"namespace": self.namespace, "name": run.job})

    def dataset(
        self,
        model: str,
        name: str,
        *,
        version: object = None,
        facets: Mapping[str, Facet] | None = None,
        **more: Mapping[str, Facet],
    ) -> dict[str, Any]:
        """One of a model's datasets.

        Args:
            version: of a Delta table, or a digest; None = it is not known.
            more: `inputFacets` or `outputFacets`.
        """
        found = dict(facets or {})
        if version is not None:
            found["version"] = facet("version", datasetVersion=str(version))
        return {"namespace": self.namespace, "name": f"{model}.{name}", "facets": found, **more}

    def elsewhere(self, dataset: Mapping[str, str]) -> dict[str, Any]:
        """One that is not the home's, as its source names it: namespace, name, version."""
        told = {"version": facet("version", datasetVersion=dataset["version"])}
        return {"namespace": dataset["namespace"], "name": dataset["name"], "facets": told}

    def table(self, model: str, name: str, *, version: object = None, **more: Any) -> dict[str, Any]:
        """A Delta table of the model's lake, told with where it lies."""
        lies = self.lake / model / name
        namespace, path = lies.split() if isinstance(lies, Bucket) else ("file", lies.resolve().as_posix())
        where = {"namespace": namespace, "name": path, "type": "TABLE"}
        facets = {"symlinks": facet("symlinks", identifiers=[where]), **more.pop("facets", {})}
        return self.dataset(model, name, version=version, facets=facets, **more)

    def scored(self, model: str, spec: ModelSpec | None, of: str, by: str = "") -> dict[str, Facet]:
        """That the score comes of every feature of the dataset `of`; nothing where no spec names them."""
        if spec is None or not spec.features:
            return {}
        how = {"type": "DIRECT", "subtype": "TRANSFORMATION", "description": f"scored by {by or 'the model'}"}
        fields = [
            {"namespace": self.namespace, "name": f"{model}.{of}", "field": name, "transformations": [how]}
            for name in spec.features
        ]
        return {"columnLineage": facet("columnLineage", fields={"score": {"inputFields": fields}})}


def schema(spec: ModelSpec | None, *more: str) -> dict[str, Facet]:
    """The columns of a model's rows: its features with their kinds, and `more`; nothing where no spec names them."""
    if spec is None:
        return {}
    fields = [{"name": name, "type": str(kind)} for name, kind in spec.features.items()]
    return {"schema": facet("schema", fields=[*fields, *({"name": name, "type": "numeric"} for name in more)])}


def asserted(found: Iterable[tuple[str, bool, str]]) -> dict[str, Facet]:
    """(name, whether it held, why) of gates or KPIs; nothing where none was judged."""
    told = [{"assertion": name, "success": held, "description": why} for name, held, why in found]
    return {"dataQualityAssertions": facet("dataQualityAssertions", assertions=told)} if told else {}


def judged(kpis: Iterable[tuple[str, str, str]]) -> dict[str, Facet]:
    """(name, verdict, reason) of KPIs; what was not judged was not asserted."""
    return asserted(
        (name, verdict != "BREACH", f"{verdict}: {why}") for name, verdict, why in kpis if verdict in JUDGED
    )


def metrics(rows: int, nulls: Mapping[str, int] | None = None) -> dict[str, Facet]:
    """How many rows there are, and how many lack a value of a column; values are nobody's business."""
    columns = {name: {"nullCount": count} for name, count in (nulls or {}).items()}
    return {"dataQualityMetrics": facet("dataQualityMetrics", rowCount=rows, columnMetrics=columns)}


def written(rows: int) -> dict[str, Facet]:
    return {"outputStatistics": facet("outputStatistics", rowCount=rows)}
