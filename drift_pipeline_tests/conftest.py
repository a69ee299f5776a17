"""What holds for every run of the tests: children can be interrupted, none outlives the run, and nothing is timed."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from drift_pipeline_tests.parts.fixtures import (
    amtool,
    helm_program,
    istiod,
    kafka_broker,
    kubernetes_cluster,
    opa_server,
    otel_collector,
    postgres_server,
    product_image,
    promtool,
    rollouts_controller,
    s3_place,
    s3_server,
    sites,
    topic,
    victorialogs_server,
    workflows_controller,
)

__all__ = [  # real servers, and what lies on them
    "amtool",
    "helm_program",
    "istiod",
    "kafka_broker",
    "kubernetes_cluster",
    "opa_server",
    "otel_collector",
    "postgres_server",
    "product_image",
    "promtool",
    "rollouts_controller",
    "s3_place",
    "s3_server",
    "sites",
    "topic",
    "victorialogs_server",
    "workflows_controller",
]

# A shell that puts the run into the background hands down that it ignores Ctrl-C, and so would every child of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Inherited by all that is started below this process, also where its parent is gone by then.
RUN = "PYTEST_STARTED_BY"
os.environ.setdefault("DRIFT_GIT", "")  # tests of the repository ask for it: a commit takes some 50 ms
os.environ[RUN] = str(os.getpid())
PATIENCE_S = 10.0  # for what ends by itself
MULTIPROCESSINGS_OWN = b"multiprocessing.resource_tracker"  # lives as long as the process that spawned first


def pytest_make_parametrize_id(val: object) -> str | None:
    """Each worker collects for itself and wants the names of the others: gzip writes the time into its bytes."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    """A command that a test calls in this process may leave its own behind: it would have ended with them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Processes that a module's tests started and left behind are killed, and are an error of the module."""
    before = set(started())
    yield
    end = time.monotonic() + PATIENCE_S
    while (left := {pid: line for pid, line in started().items() if pid not in before}) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert list(left.values()) == []


def started() -> dict[int, str]:
    """The command lines of the living processes that this run started, itself left out."""
    mark, found = f"{RUN}={os.getpid()}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is somebody else's
            if mark in (folder / "environ").read_bytes().split(b"\0") and folder.name != str(os.getpid()):
                line = (folder / "cmdline").read_bytes()
                if line and MULTIPROCESSINGS_OWN not in line:
                    found[int(folder.name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found
