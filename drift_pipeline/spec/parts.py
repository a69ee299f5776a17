"""The parts of a spec: each a mapping of the YAML, with the defaults of what is left out."""

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from drift_pipeline.clock import DAY, HOUR
from drift_pipeline.spec.values import APPROVER, Approvals, Duration


class Part(BaseModel):
    """Frozen, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(Part):
    """Where the standard facts stand in the user's data; None = the data does not have it."""

    timestamp: str | None = None
    prediction_id: str | None = None
    entity: str | None = None
    latency_ms: str | None = None
    version: str | None = None


class Prediction(Part):
    """The column of what was predicted, which may be absent in replay.

    A classification has `score`, a probability, and the score from which the decision is positive; a regression has
    `value`.
    """

    score: str | None = None
    threshold: float = Field(default=0.5, ge=0, le=1)
    value: str | None = None

    @property
    def column(self) -> str | None:
        return self.score or self.value


class Outcome(Part):
    """The label's column, how long after a prediction it is known, and of a classification its positive value.

    `negative`: the other one; None = what the history of its adoption holds beside the positive. `unknown`: values that
    stand for a label that is not known yet, such as -1.
    """

    column: str
    positive: bool | int | str = 1
    negative: bool | int | str | None = None
    unknown: tuple[bool | int | float | str, ...] = ()
    delay: Duration = timedelta()


class Psi(Part):
    threshold: float = Field(default=0.2, gt=0)
    window: Duration = Field(default=30 * DAY, gt=timedelta())


class RangeZ(Part):
    threshold: float = Field(default=4, gt=0)


class Drop(Part):
    drop: float = Field(gt=0, lt=1)


class Rise(Part):
    rise: float = Field(gt=0)


class Ceiling(Part):
    threshold: float = Field(gt=0)


class PromQl(Part):
    """An instant query whose answer is one number, asked of the server of DRIFT_PROMETHEUS_URL at each tick."""

    promql: str = Field(min_length=1, max_length=4096)


class Latency(Ceiling):
    """`source`: where the 95th percentile, in milliseconds, is measured of a model that another system serves; None =
    the rows tell."""

    source: PromQl | None = Field(default=None, exclude_if=lambda source: source is None)


class Level(Part):
    level: float = Field(default=0.01, gt=0, lt=0.5)


class Kpis(Part):
    """The KPI matrix; null switches a KPI off, which makes it NOT_CONFIGURED.

    `auroc` and `demographic_parity` are of classifications, `mae` and `residuals` of regressions.
    `estimated_auroc` and `multivariate` are hints beside the matrix: they may warn, and are off unless given.
    """

    psi: Psi | None = Psi()
    range_z: RangeZ | None = RangeZ()
    auroc: Drop | None = Drop(drop=0.05)
    latency_p95_ms: Latency | None = Latency(threshold=150)
    demographic_parity: Drop | None = Drop(drop=0.03)
    mae: Rise | None = Rise(rise=0.1)
    residuals: Ceiling | None = Ceiling(threshold=0.05)
    estimated_auroc: Drop | None = None
    multivariate: Level | None = None


class Span(Part):
    """A span of event time that training leaves out, such as an outage: [start, end), ISO times in UTC."""

    start: str
    end: str

    @field_validator("start", "end", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value  # YAML reads an unquoted time as a time

    @model_validator(mode="after")
    def _readable(self) -> "Span":
        start, end = (datetime.fromisoformat(text) for text in (self.start, self.end))
        if start.year < 2 or end.year > 9998:
            raise ValueError(f"a span lies in the years 2 to 9998, whatever the zone: {self.start} .. {self.end}")
        if (start.tzinfo is None) != (end.tzinfo is None) or end <= start:
            raise ValueError(f"a span ends after it starts, in one time zone: {self.start} .. {self.end}")
        return self


class Feast(Part):
    """A feature service of a Feast repository, which is a folder with `feature_store.yaml`; a path that is not absolute
    begins at the spec's folder. `server`: where `feast serve` answers, for `drift features check --online`."""

    repo: str = Field(min_length=1)
    feature_service: str = Field(min_length=1)
    server: str = Field(default="", pattern=r"^(https?://[^@\s]+)?$")


class Databricks(Part):
    """A Delta table of labelled rows, with the columns that the spec names: `catalog.schema.table` of Unity Catalog, or
    the URI of a table, without a credential in it."""

    table: str = Field(pattern=r"^([^./:@\s]+\.[^./:@\s]+\.[^./:@\s]+|[a-z][a-z0-9+]*://[^\s]+|/[^\s]*)$")

    @field_validator("table")
    @classmethod
    def _without_credentials(cls, table: str) -> str:
        if re.match(r"[a-z0-9+]+://[^/]*:[^/]*@", table) or "?" in table:
            raise ValueError("no credential stands in a spec; they come from the environment")
        return table


class RowSource(Part):
    """Where the labelled rows of a retrain come from; neither of the two = the lake, which is written `lake`."""

    feast: Feast | None = None
    databricks: Databricks | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: object) -> object:
        return {} if given == "lake" else given

    @model_validator(mode="after")
    def _one(self) -> "RowSource":
        if self.feast and self.databricks:
            raise ValueError("one source, feast or databricks, is named; without either it is the lake")
        return self

    @property
    def kind(self) -> str:
        return "feast" if self.feast else "databricks" if self.databricks else "lake"

    @model_serializer(mode="plain")
    def _written(self) -> str | dict[str, Any]:
        part = self.feast or self.databricks
        return {self.kind: part.model_dump()} if part else "lake"


class Retrain(Part):
    """When and on what a model is retrained.

    min_rows counts labelled rows: a training set below it is refused, and a drift-caused retrain waits
    until as many labels of the changed world have come. Half of them train, half prove. `steps` are those of the
    graph that are trained; the champion's others are taken as they are. None named = all. `gpus` is how many a
    training takes; `max_gpu_hours` is what thirty days may cost: past it the policy lets only people retrain.
    """

    cron: str = "0 3 1 * *"
    cooldown: Duration = 14 * DAY
    max_per_month: int = Field(default=6, ge=0)
    gpus: int = Field(default=0, ge=0)
    max_gpu_hours: float | None = Field(default=None, ge=0)
    window: Duration = Field(default=365 * DAY, gt=timedelta())
    min_rows: int = Field(default=1000, ge=100)
    exclude: tuple[Span, ...] = ()
    trainer: str = "gradient_boosting"
    trials: int = Field(default=12, ge=1)
    steps: tuple[str, ...] = ()
    source: RowSource = RowSource()

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        if document.get("source") == "lake":  # such a spec stays the document that it was before there were others
            document.pop("source")
        return document

    @field_validator("cron")
    @classmethod
    def _cron(cls, cron: str) -> str:
        from croniter import croniter

        if not croniter.is_valid(cron) or len(cron.split()) != 5:
            raise ValueError(f"{cron!r} is not a cron line of five fields, such as '0 3 1 * *'")
        return cron


class Invariance(Part):
    """Another value of the column changes at most this share of the decisions; a regression's values by this many
    standard deviations, on average."""

    column: str
    at_most: float = Field(default=0, ge=0)


class Gates(Part):
    """Behavioural tests that a candidate has to pass beside the gates that every one has.

    `direction`: raising a numeric feature never lowers (up), or raises (down), the mean score. `minimum_slice`: the
    least AUROC, or the largest MAE, of each level of a categorical column.
    """

    invariance: tuple[Invariance, ...] = ()
    direction: dict[str, Literal["up", "down"]] = Field(default_factory=dict)
    minimum_slice: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    @field_validator("invariance", mode="before")
    @classmethod
    def _by_name(cls, tests: object) -> object:
        """A column's name alone is an invariance that allows no change."""
        tests = tests if isinstance(tests, list | tuple) else [tests]
        return [{"column": test} if isinstance(test, str) else test for test in tests]


class Rollout(Part):
    """How a new version is shipped; durations are the shortest time in a phase, `deadline` the longest.

    A phase also wants `min_samples` served by the new version; without them at the deadline it is rolled back.
    `approvals` is how many distinct people have to approve, or how many of each role: {approver: 1, risk: 1}.
    """

    shadow: Duration = HOUR
    canary_weight: int = Field(default=10, ge=1, le=50)
    canary: Duration = HOUR
    approvals: Approvals = 1
    min_samples: int = Field(default=20, ge=1)
    deadline: Duration = 14 * DAY

    @property
    def wanted(self) -> dict[str, int]:
        """How many people have to approve, by role; a plain number is of approvers."""
        return self.approvals if isinstance(self.approvals, dict) else {APPROVER: self.approvals}


class Retention(Part):
    """How long telemetry is kept, six months at least. Documents, approvals and the audit are never deleted."""

    telemetry: Duration = Field(default=400 * DAY, ge=183 * DAY)
