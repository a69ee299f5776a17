"""`python -m drift_pipeline_tests.parts [install] NAME ...`: 0 ok, 1 one cannot be had, 2 usage."""

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

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


class Part(NamedTuple):
    install: Callable[[], Path]
    running: Callable[[], AbstractContextManager[Any]] | None = None  # None of what is no server
    variable: str = ""


PARTS = {
    "opa": Part(opa.install, opa.running, "DRIFT_OPA_URL"),
    "postgres": Part(postgres.install, postgres.running, "DRIFT_DATABASE"),
    "feast": Part(feast.install),
    "s3": Part(s3.install, s3.running, "AWS_ENDPOINT_URL"),
    "kafka": Part(kafka.install, kafka.running, "DRIFT_SOURCE"),
    "otel": Part(otel.install, otel.running, "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "pubsub": Part(pubsub.install, pubsub.running, "PUBSUB_EMULATOR_HOST"),
    "prometheus": Part(prometheus.install, prometheus.running, "DRIFT_PROMETHEUS_URL"),
    "alertmanager": Part(alertmanager.install, alertmanager.running, "ALERTMANAGER_URL"),
    "victorialogs": Part(victorialogs.install, victorialogs.running, "VICTORIALOGS_URL"),
    "helm": Part(helm.install),
}


def main(arguments: list[str]) -> int:
    install, names = arguments[:1] == ["install"], arguments[arguments[:1] == ["install"] :]
    if not names or (unknown := [name for name in names if name not in PARTS]):
        print(f"usage: python -m drift_pipeline_tests.parts [install] NAME ...; there are: {', '.join(PARTS)}")
        print(f"there is no {', '.join(unknown)}" if names else "no name was given")
        return 2
    try:
        with suppress(KeyboardInterrupt):
            return _install(names) if install else _run(names)
        return 0
    except MissingError as error:
        print(error, file=sys.stderr)
        return 1


def _install(names: list[str]) -> int:
    for name in names:
        print(f"{name}: {PARTS[name].install()}", flush=True)
    return 0


def _run(names: list[str]) -> int:
    with ExitStack() as stack:
        for name in names:
            if (running := PARTS[name].running) is None:
                raise MissingError(f"{name} is no server: it is only installed")
            part = stack.enter_context(running())
            print(f"export {PARTS[name].variable}='{part.url}'   # log: {part.server.log}", flush=True)
        print("Ctrl-C ends them", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
