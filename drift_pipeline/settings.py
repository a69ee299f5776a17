"""Where things live: everything of one installation (or one replay) below one folder."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from drift_pipeline.errors import InputError


class Settings(BaseSettings):
    """Read from the environment with the prefix DRIFT_ (`DRIFT_HOME`, `DRIFT_DATABASE`, ...)."""

    model_config = SettingsConfigDict(env_prefix="DRIFT_", frozen=True)

    def __init__(self, **given: Any) -> None:
        """Raises InputError, which names the variable."""
        try:
            super().__init__(**given)
        except (ValidationError, SettingsError) as error:
            raise InputError(_told(error)) from error

    home: Path = Path("drift_home")
    database: str = Field(default="", description="SQLAlchemy url of the control store; empty = SQLite below home")
    models: Path | None = Field(default=None, description="folder with one folder a model; None = the packaged ones")
    tick_seconds: int = Field(default=30, ge=1, description="between two ticks in Dagster")
    environment: str = Field(default="production", min_length=1, description="where approvals have to be for")
    pages_url: str = Field(default="", description="where drift pages answers, for links in Dagster; empty = no links")
    longest_approval_days: int = Field(default=90, ge=1, description="an approval that lasts longer does not count")
    pages_key: SecretStr = Field(default=SecretStr(""), description="what the live page asks of who looks at it")
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

    @property
    def database_url(self) -> str:
        """Raises InputError for a home that a url cannot spell: what follows the `?` would be options."""
        if not self.database and "?" in str(self.home):
            raise InputError(f"{self.home}: a home's path cannot hold ?; choose another folder")
        return self.database or f"sqlite:///{self.home / 'control.db'}"

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def dead_letters(self) -> Path:
        """The lake of what was no event; no model's name begins with an underscore."""
        return self.lake / "_dead_letters"

    @property
    def registry(self) -> Path:
        return self.home / "registry"

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
    def pages(self) -> str:
        """The address of the live pages, without a slash at its end; empty where none is known."""
        return self.pages_url.rstrip("/")

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

    @property
    def checkpoint_age(self) -> timedelta:
        return timedelta(seconds=self.checkpoint_seconds)

    @property
    def longest_approval(self) -> timedelta:
        return timedelta(days=self.longest_approval_days)


def _told(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return f"a DRIFT_ variable cannot be read: {error}"
    wrong = [(f"DRIFT_{'.'.join(map(str, one['loc'])).upper()}", one) for one in error.errors(include_url=False)]
    return "; ".join(f"{name}: {one['msg']}, not {str(one['input'])[:100]!r}" for name, one in wrong)
