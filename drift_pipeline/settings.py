"""Where things live: everything of one installation (or one replay) below one folder."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, create_model, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from drift_pipeline.bucket import Bucket, Place
from drift_pipeline.errors import InputError

FILES_ALONE = {"database": "", "store": ""}  # a home that is named is its folder: those are of DRIFT_HOME alone
STORE, ASIDE = "control.db", "control.db.moved"  # a home's control store, and what is left where it moved to a server


class HomeSettings(BaseSettings):
    """Where a home is, and what lies where in it."""

    home: Path = Path("drift_home")
    database: SecretStr = Field(
        default=SecretStr(""),
        description="postgresql://USER:PASSWORD@HOST/DATABASE of the control store; empty = SQLite below home",
    )
    store: str = Field(
        default="",
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*/?)?$",
        description="s3://BUCKET/PREFIX where lake, registry and reports lie, with AWS_* beside; empty = below home",
    )

    @property
    def database_url(self) -> str:
        """Raises InputError for a home whose store went to a server that nobody names, for a new one would be another
        chain; and for one that a url cannot spell: what follows the `?` would be options."""
        if self.database:
            return self.database.get_secret_value()
        if "?" in str(self.home):
            raise InputError(f"{self.home}: a home's path cannot hold ?; choose another folder")
        if (self.home / ASIDE).is_file() and not (self.home / STORE).is_file():
            raise InputError(f"{self.home.absolute()}: its control store was moved to a server; set DRIFT_DATABASE")
        return f"sqlite:///{self.home / STORE}"

    @property
    def on_postgres(self) -> bool:
        """Whether a server holds what would else be in files of the home."""
        return self.database.get_secret_value().startswith("postgresql")

    @property
    def bucket(self) -> Bucket | None:
        return Bucket(self.store.rstrip("/"), self.home) if self.store else None

    @property
    def lake(self) -> Place:
        return (self.bucket or self.home) / "lake"

    @property
    def dead_letters(self) -> Place:
        """The lake of what was no event; no model's name begins with an underscore."""
        return self.lake / "_dead_letters"

    @property
    def registry(self) -> Path:
        """Of a home in a bucket: copies of what was read from there."""
        return self.home / "registry"

    @property
    def registry_place(self) -> Place:
        return (self.bucket or self.home) / "registry"

    @property
    def wandb(self) -> Path:
        """`offline-run-*`: W&B runs that are not sent yet, each as `wandb sync` takes it."""
        return self.home / "wandb"

    @property
    def gitops(self) -> Path:
        return self.home / "gitops"

    @property
    def gitops_bare(self) -> Path:
        """The repository that `gitops` is pushed to where no other one is set."""
        return self.home / "gitops.git"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def trust(self) -> Path:
        """Public keys whose attestations count by themselves for `drift verify`: those of the home itself."""
        return self.home / "trust"

    @property
    def evidence(self) -> Path:
        """`<model>/<version>/`: documents about a model version, such as its card, signed; `manifest.dsse.json`."""
        return self.home / "evidence"

    @property
    def environments(self) -> Path:
        """`<digest>.cdx.json`: SBOMs of the environments that versions were trained in."""
        return self.home / "environments"

    @property
    def drift_reports(self) -> Path:
        """`<model>/<day>.html`, each rendered by Evidently."""
        return self.home / "drift_reports"

    @property
    def evidently(self) -> Path:
        """An Evidently workspace: `evidently ui --workspace` shows its history."""
        return self.home / "evidently"

    @property
    def alerts(self) -> Path:
        return self.home / "alerts.jsonl"

    @property
    def lineage_files(self) -> Path:
        """`<number>.jsonl`, OpenLineage events, one a line."""
        return self.home / "lineage"

    @property
    def checkpoints(self) -> Path:
        """`<records counted>.dsse.json`, signed tree heads of the audit chain; to be copied out of this house."""
        return self.gitops / "checkpoints"


_WANDB = {  # held to only where W&B is in use: its variables may be anybody's
    "wandb_entity": r"[^/\\#?%:\s]{0,128}",
    "wandb_project": r"[^/\\#?%:\s]{1,128}",
    "wandb_registry": r"[^/\\#?%:\s]{0,113}",
    "wandb_base_url": r"https?://[^@\s]+",
    "wandb_mode": r"|online|offline|dryrun|disabled",
}


def _wandb(name: str, default: Any, told: str) -> Any:
    """W&B's own variable, unless there is one with our prefix."""
    names = AliasChoices(f"DRIFT_WANDB_{name}", f"WANDB_{name}")
    return Field(default=default, validation_alias=names, description=told)


class WandbSettings(BaseSettings):
    """Whether versions are mirrored to Weights & Biases, and where to."""

    registry_kind: Literal["local", "wandb"] = Field(
        default="local",
        validation_alias="DRIFT_REGISTRY",
        description="wandb = versions are mirrored to Weights & Biases, and fetched there where they are lost here",
    )
    wandb_api_key: SecretStr = _wandb("API_KEY", SecretStr(""), "of Weights & Biases; empty = nothing is sent")
    wandb_entity: str = _wandb("ENTITY", "", "whose the project is; empty = who the key belongs to")
    wandb_project: str = _wandb("PROJECT", "drift", "where runs and artifacts go; one home, one project")
    wandb_base_url: str = _wandb("BASE_URL", "https://api.wandb.ai", "of the server")
    wandb_mode: str = _wandb("MODE", "", "offline = nothing is sent, with a key, too; disabled = nothing is written")
    wandb_registry: str = Field(default="model", description="whose collections versions are linked to; empty = none")

    @model_validator(mode="after")
    def _usable_wandb(self) -> Self:
        for name, pattern in _WANDB.items() if self.registry_kind == "wandb" else ():
            if not re.fullmatch(pattern, getattr(self, name)):
                raise ValueError(f"{name.upper()} cannot be used with DRIFT_REGISTRY=wandb; it has to match {pattern}")
        return self

    @property
    def wandb_sends(self) -> bool:
        return bool(self.wandb_api_key.get_secret_value()) and self.wandb_mode in ("", "online")


class KafkaSettings(BaseSettings):
    """Of whom Kafka is read from and written to."""

    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        default="plaintext", description="how a Kafka broker is spoken to"
    )
    kafka_ca: Path | None = Field(default=None, description="certificates (PEM) that a broker's is held against")
    kafka_certificate: Path | None = Field(default=None, description="ours for a broker that asks for one (PEM)")
    kafka_key: Path | None = Field(default=None, description="the private key of that certificate (PEM)")
    kafka_key_password: SecretStr = Field(default=SecretStr(""), description="of that key")
    kafka_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="of SASL"
    )
    kafka_username: str = Field(default="", description="of SASL")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="of SASL")
    kafka_group: str = Field(default="", description="the consumer group; empty = drift- and the home's own number")
    kafka_dead_letters: str = Field(
        default="", pattern=r"^[a-zA-Z0-9._-]{0,249}$", description="the topic of what is no event; empty = none"
    )
    kafka_schemas: str = Field(
        default="",
        pattern=r"^((https?|mock)://[^@\s]+)?$",
        description="a schema registry (Confluent's API) for events in Avro; empty = all are JSON",
    )
    kafka_schemas_token: SecretStr = Field(
        default=SecretStr(""), description="USER:PASSWORD that the schema registry asks for"
    )


class Settings(HomeSettings, WandbSettings, KafkaSettings):
    """Read from the environment with the prefix DRIFT_ (`DRIFT_HOME`, `DRIFT_DATABASE`, ...)."""

    model_config = SettingsConfigDict(env_prefix="DRIFT_", frozen=True, populate_by_name=True)

    def __init__(self, **given: Any) -> None:
        """Raises InputError, which names the variable.

        What the environment does not name is looked for in the folder of DRIFT_SECRETS_DIR, in a file of that name.
        """
        try:
            super().__init__(**{"_secrets_dir": secrets_folder(), **given})
        except (ValidationError, SettingsError) as error:
            raise InputError(_told(error)) from error

    models: Path | None = Field(default=None, description="folder with one folder a model; None = the packaged ones")
    tick_seconds: int = Field(default=30, ge=1, description="between two ticks in Dagster")
    metrics_columns: int = Field(default=5, ge=0, le=20, description="columns of a model, the worst, in its metrics")
    environment: str = Field(default="production", min_length=1, description="where approvals have to be for")
    pages_url: str = Field(default="", description="where drift pages answers, for links in Dagster; empty = no links")
    longest_approval_days: int = Field(default=90, ge=1, description="an approval that lasts longer does not count")
    pages_key: SecretStr = Field(default=SecretStr(""), description="what the live page asks of who looks at it")
    alerts_file: Path | None = Field(
        default=None,
        validation_alias="DRIFT_ALERTS",
        description="YAML of the channels that alerts go to; None = alerts.jsonl alone, which has all of them anyhow",
    )
    pagerduty_webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="of PagerDuty's webhook (v3), whose acknowledgements count; empty = none do"
    )
    prometheus_url: str = Field(
        default="",
        pattern=r"^(https?://[^@\s]+)?$",
        description="a Prometheus server that kpis.latency_p95_ms.source is asked of",
    )
    prometheus_token: SecretStr = Field(
        default=SecretStr(""), description="what that server asks for, as a bearer token"
    )
    prometheus_timeout_seconds: float = Field(default=5, gt=0, le=60, description="for one answer of that server")
    policy: Path | None = Field(default=None, description="folder of Rego rules that decide; None = the packaged ones")
    opa_url: str = Field(
        default="",
        pattern=r"^(https?://[^@\s]+)?$",
        description="an OPA server that decides; empty = the rules here do",
    )
    opa_token: SecretStr = Field(default=SecretStr(""), description="what that server asks for, as a bearer token")
    opa_timeout_seconds: float = Field(default=2, gt=0, le=60, description="for one decision of that server")
    opa_stale_seconds: int = Field(
        default=600, ge=1, description="it heard from its bundle's source longer ago: it decides nothing"
    )
    scan: Literal["off", "osv"] = Field(
        default="off", description="whether vulnerabilities of the environment are a gate"
    )
    scan_url: str = Field(default="", description="an OSV mirror's query address; empty = the public database")
    scan_stale_days: int = Field(default=7, ge=1, description="a mirror's copy that is older is no answer")
    checkpoint_records: int = Field(default=100, ge=1, description="audit records that wait at most for a checkpoint")
    checkpoint_seconds: int = Field(default=600, ge=1, description="for so long they wait at most, while others come")
    git: str = Field(
        default="git", description="the program that commits to the GitOps repository; empty = nobody does"
    )
    gitops_remote: SecretStr = Field(
        default=SecretStr(""), description="where it is pushed to, a URL or a path; empty = gitops.git below home"
    )
    log: Literal["", "json", "text"] = Field(
        default="", description="how long-lived processes write their lines; empty = json, and text on a terminal"
    )
    log_otlp: str = Field(
        default="",
        pattern=r"^(https?://[^@\s]+)?$",
        description="where those lines go as well, over OTLP/HTTP: a Collector's address; empty = nowhere",
    )
    lineage: bool = Field(default=True, description="whether lineage events are told; DRIFT_LINEAGE=off tells none")
    lineage_url: str = Field(
        default="", pattern=r"^(https?://[^@\s]+)?$", description="an OpenLineage backend; empty = files below the home"
    )
    lineage_key: SecretStr = Field(default=SecretStr(""), description="what that backend asks for, as a bearer token")
    lineage_namespace: str = Field(default="drift", min_length=1, description="of the jobs and datasets in lineage")
    feast_python: Path | None = Field(
        default=None, description="the interpreter of an environment with Feast, which cannot be in this one"
    )
    feast_seconds: int = Field(default=600, ge=1, description="for so long an answer of Feast is waited for")
    feast_token: SecretStr = Field(default=SecretStr(""), description="what its feature server asks for, as a bearer")
    databricks_host: str = Field(
        default="",
        pattern=r"^(https://[^@\s]+|http://(localhost|127\.0\.0\.1)(:\d+)?/?)?$",
        description="the workspace whose Unity Catalog has the tables; a token goes over TLS, or stays on this machine",
    )
    databricks_token: SecretStr = Field(default=SecretStr(""), description="what that workspace asks for")
    databricks_seconds: int = Field(default=600, ge=1, description="for so long a Delta table's rows are waited for")
    runner: Literal["inline", "kubernetes", "argo", "kubeflow"] = Field(
        default="inline", description="who runs the steps of a retrain; inline = Dagster's run, or the tick"
    )
    runner_file: Path | None = Field(default=None, description="YAML of an outside runner: image, namespace, limits")
    executor: Literal["in_process", "k8s_job"] = Field(
        default="in_process", description="of Dagster's job retrain; k8s_job = each of its steps in a pod of its own"
    )
    controller: Literal["gateway", "argo"] = Field(
        default="gateway", description="who moves a rollout's traffic; gateway = each one by the routes that it reads"
    )
    controller_file: Path | None = Field(
        default=None, description="YAML of the pods, hosts and limits of what is served; another controller wants one"
    )

    @property
    def pages(self) -> str:
        """The address of the live pages, without a slash at its end; empty where none is known."""
        return self.pages_url.rstrip("/")

    @property
    def checkpoint_age(self) -> timedelta:
        return timedelta(seconds=self.checkpoint_seconds)

    @property
    def longest_approval(self) -> timedelta:
        return timedelta(days=self.longest_approval_days)


def secret(name: str) -> SecretStr:
    """What the environment has under the name, or the file of that name in the folder of DRIFT_SECRETS_DIR.

    Raises InputError, which tells the name alone, where neither does, or it is empty.
    """
    kept = secrets_folder()
    kind = create_model("Secret", __base__=BaseSettings, value=(SecretStr, Field(default="", validation_alias=name)))
    found = kind(_secrets_dir=kept).model_dump()["value"]
    if not (plain := SecretStr(found.get_secret_value().strip() if found else "")):
        raise InputError(f"{name}: is not set; set it in the environment, or as a file in DRIFT_SECRETS_DIR")
    return plain


def secrets_folder() -> Path | None:
    """DRIFT_SECRETS_DIR. Raises InputError where the folder is none."""
    named = os.environ.get("DRIFT_SECRETS_DIR", "")
    if named and not Path(named).is_dir():
        raise InputError(f"DRIFT_SECRETS_DIR: {named} is no folder; name one with a file a secret")
    return Path(named) if named else None


def _told(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return f"a DRIFT_ variable cannot be read: {error}"
    return "; ".join(map(_wrong, error.errors(include_url=False)))


def _wrong(one: Any) -> str:
    if not one["loc"]:  # of several variables together; its input is all of them, with their secrets
        return str(one["msg"])
    name = ".".join(map(str, one["loc"])).upper()
    return f"DRIFT_{name.removeprefix('DRIFT_')}: {one['msg']}, not {str(one['input'])[:100]!r}"
