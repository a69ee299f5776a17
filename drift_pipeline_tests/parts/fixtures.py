"""A fixture a part: a module's tests share one server; where it cannot be had they are skipped, and say why."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from drift_pipeline.bucket import Bucket
from drift_pipeline_tests.parts import (
    alertmanager,
    feast,
    helm,
    kafka,
    opa,
    otel,
    postgres,
    prometheus,
    pubsub,
    s3,
    victorialogs,
)
from drift_pipeline_tests.parts.cache import MissingError

REQUIRED = "DRIFT_PARTS_REQUIRED"


def lacking(part: str, error: MissingError) -> NoReturn:
    """Skip, or fail where the part was installed for this very run."""
    if part in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"{part} is required here ({REQUIRED}): {error}")
    pytest.skip(str(error))


def feast_python() -> Path:
    """The interpreter of an environment with Feast."""
    try:
        return feast.find()
    except MissingError as error:
        lacking("feast", error)


@pytest.fixture(scope="module")
def opa_server() -> Iterator[opa.Opa]:
    try:
        opa.find()
    except MissingError as error:
        lacking("opa", error)
    with opa.running() as part:
        yield part


@pytest.fixture(scope="module")
def otel_collector() -> None:
    """That there is a collector; each test runs its own, with its own file."""
    try:
        otel.find()
    except MissingError as error:
        lacking("otel", error)


@pytest.fixture(scope="module")
def promtool() -> None:
    """That there is Prometheus and its promtool."""
    try:
        prometheus.find()
    except MissingError as error:
        lacking("prometheus", error)


@pytest.fixture(scope="module")
def amtool() -> None:
    """That there is Alertmanager and its amtool."""
    try:
        alertmanager.find()
    except MissingError as error:
        lacking("alertmanager", error)


@pytest.fixture(scope="module")
def helm_program() -> Path:
    """Helm itself."""
    try:
        return helm.find()
    except MissingError as error:
        lacking("helm", error)


@pytest.fixture(scope="module")
def victorialogs_server() -> Iterator[victorialogs.VictoriaLogs]:
    try:
        victorialogs.find()
    except MissingError as error:
        lacking("victorialogs", error)
    with victorialogs.running() as part:
        yield part


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[postgres.Postgres]:
    try:
        postgres.find()
    except MissingError as error:
        lacking("postgres", error)
    with postgres.running() as part:
        yield part


@pytest.fixture(scope="module")
def pubsub_server() -> Iterator[pubsub.PubSub]:
    try:
        pubsub.find()
    except MissingError as error:
        lacking("pubsub", error)
    with pubsub.running() as part:
        yield part


@pytest.fixture(scope="module")
def s3_server() -> Iterator[s3.S3]:
    try:
        s3.find()
    except MissingError as error:
        lacking("s3", error)
    with s3.running() as part:
        yield part


@pytest.fixture
def s3_place(s3_server: s3.S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """A place in a new bucket, which this process and its children reach."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket(f"s3://{s3_server.bucket()}/a/home", tmp_path / "machine")


@pytest.fixture(scope="module")
def kafka_broker() -> Iterator[kafka.Kafka]:
    try:
        kafka.find()
    except MissingError as error:
        lacking("kafka", error)
    with kafka.running() as part:
        yield part
