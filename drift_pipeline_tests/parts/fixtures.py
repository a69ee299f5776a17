"""A fixture a part: a module's tests share one server; where it cannot be had they are skipped, and say why."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from drift_pipeline.bucket import Bucket
from drift_pipeline_tests.parts.cache import MissingError, module_of
from drift_pipeline_tests.parts.kafka import Kafka
from drift_pipeline_tests.parts.s3 import S3

REQUIRED = "DRIFT_PARTS_REQUIRED"


def lacking(part: str, error: MissingError) -> NoReturn:
    """Skip, or fail where the part was installed for this very run."""
    if part in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"{part} is required here ({REQUIRED}): {error}")
    pytest.skip(str(error))


def needed(part: str) -> ModuleType:
    """Its module, where the part can be had."""
    module = module_of(part)
    try:
        module.find()
    except MissingError as error:
        lacking(part, error)
    return module


def feast_python() -> Path:
    """The interpreter of an environment with Feast."""
    python: Path = needed("feast").find()
    return python


def _installed(part: str) -> Any:
    """That there is the part; each test runs its own, with its own file."""

    @pytest.fixture(scope="module")
    def there() -> None:
        needed(part)

    return there


def _server(part: str) -> Any:
    """The running part."""

    @pytest.fixture(scope="module")
    def server() -> Iterator[Any]:
        with needed(part).running() as at:
            yield at

    return server


otel_collector, promtool, amtool = map(_installed, ("otel", "prometheus", "alertmanager"))
opa_server, postgres_server, s3_server = map(_server, ("opa", "postgres", "s3"))
kafka_broker, pubsub_server, victorialogs_server = map(_server, ("kafka", "pubsub", "victorialogs"))
kubernetes_cluster = _server("kubernetes")


@pytest.fixture(scope="module")
def helm_program() -> Path:
    """Helm itself."""
    program: Path = needed("helm").find()
    return program


@pytest.fixture(scope="module")
def product_image(kubernetes_cluster: Any) -> str:
    """The name of the image of this checkout, which the cluster's node has."""
    return str(needed("product").imported(kubernetes_cluster.containerd))


def _beside(part: str) -> Any:
    """The part's controller beside the module's cluster, with its kinds."""

    @pytest.fixture(scope="module")
    def controller(kubernetes_cluster: Any) -> Any:
        return needed(part).start(kubernetes_cluster)

    return controller


rollouts_controller, workflows_controller, istiod = map(_beside, ("rollouts", "workflows", "istio"))


@pytest.fixture
def topic(kafka_broker: Kafka) -> Any:
    """A new one, of one partition."""
    from drift_pipeline_tests.telemetry.topics import Topic

    return Topic(kafka_broker.brokers)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes sites of one home that read topics, and lets their captures leave the group."""
    from drift_pipeline_tests.telemetry.topics import KafkaSite

    with ExitStack() as stack:

        def make(url: str, **more: Any) -> KafkaSite:
            site = KafkaSite(tmp_path, url, **more)
            stack.callback(site.close)
            return site

        yield make


@pytest.fixture
def s3_place(s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """A place in a new bucket, which this process and its children reach."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(f"s3://{s3_server.bucket()}/a/home", tmp_path / "machine")
