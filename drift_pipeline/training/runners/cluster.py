"""Kubernetes' API as runners and controllers ask it: in seconds, and with our errors."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from drift_pipeline.errors import InputError, UnavailableError

T = TypeVar("T")
_OURS = (400, 404, 409, 422)


class NotThereError(Exception):
    """404."""


class ThereAlreadyError(Exception):
    """409."""


class Reached(Protocol):
    """Where a cluster is, and how long a call of it is waited for."""

    @property
    def namespace(self) -> str: ...
    @property
    def kubeconfig(self) -> Path | None: ...
    @property
    def timeout_seconds(self) -> float: ...


class Cluster:
    """Of the kubeconfig that the place names, else of the pod's own service account, else of KUBECONFIG."""

    def __init__(self, place: Reached, setting: str = "DRIFT_RUNNER") -> None:
        """setting: what is at fault where no cluster is known."""
        self._place, self._setting = place, setting

    @cached_property
    def _client(self) -> Any:
        try:
            import kubernetes
        except ImportError as error:
            lacks = "needs another package; pip install 'drift-pipeline[kubernetes]'"
            raise InputError(f"{self._setting}: {lacks}") from error
        made = kubernetes.client.Configuration()
        made.retries = False
        try:
            if self._place.kubeconfig is not None:
                kubernetes.config.load_kube_config(str(self._place.kubeconfig), client_configuration=made)
            else:
                try:
                    kubernetes.config.load_incluster_config(client_configuration=made)
                except kubernetes.config.ConfigException:
                    kubernetes.config.load_kube_config(client_configuration=made)
        except (kubernetes.config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
            told = f"{self._setting}_FILE: no cluster is known: {error}; name its kubeconfig"
            raise InputError(told) from error
        return kubernetes.client.ApiClient(made)

    def jobs(self) -> Any:
        return self._api("BatchV1Api")

    def pods(self) -> Any:
        return self._api("CoreV1Api")

    def objects(self) -> Any:
        return self._api("CustomObjectsApi")

    def _api(self, name: str) -> Any:
        client = self._client  # first: it tells who lacks the package

        import kubernetes

        return getattr(kubernetes.client, name)(client)

    def ask(self, what: str, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Raises NotThereError, ThereAlreadyError, InputError for what the API says cannot be, or UnavailableError."""
        import urllib3
        from kubernetes.client import ApiException

        seconds = self._place.timeout_seconds
        try:
            return call(*arguments, _request_timeout=(seconds, seconds), **named)
        except ApiException as error:
            if error.status == 404:
                raise NotThereError from error
            if error.status == 409:
                raise ThereAlreadyError from error
            said = f"{what}: Kubernetes answers {error.status} {error.reason}: {_message(error)}"
            raise (InputError(said) if error.status in _OURS else UnavailableError(said)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnavailableError(f"{what}: Kubernetes does not answer: {str(error)[:300]}") from error

    def pods_of(self, selector: str) -> list[Any]:
        found = self.ask(
            f"pods of {selector}",
            self.pods().list_namespaced_pod,
            self._place.namespace,
            label_selector=selector,
            limit=200,
        )
        return list(found.items)

    def logs_of(self, pods: list[Any], lines: int, containers: Callable[[Any], list[str]]) -> str:
        """The newest lines of each container that wrote some, under its name; the newest pods' where there is no time
        for all: a node that is gone is waited for."""
        parts, ended = list[str](), time.monotonic() + self._place.timeout_seconds
        for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp, reverse=True):
            for name in reversed(containers(pod)):
                if time.monotonic() >= ended:
                    return "\n".join(["--- there was no time to read more", *reversed(parts)])
                try:
                    text = self.ask(f"logs of {pod.metadata.name}", self._log, pod.metadata.name, name, lines)
                except (NotThereError, InputError):  # it has not begun
                    continue
                except UnavailableError as error:
                    text = str(error)
                parts += [f"--- {pod.metadata.name} {name}\n{text.rstrip()}"] if text.strip() else []
        return "\n".join(reversed(parts))

    def _log(self, pod: str, container: str, lines: int, **how: Any) -> str:
        """Decoded here: client 36 answers with the text of a bytes literal."""
        read = self.pods().read_namespaced_pod_log
        named = {"container": container, "tail_lines": lines, "_preload_content": False, **how}
        data: bytes = read(pod, self._place.namespace, **named).data
        return data.decode(errors="replace")


def _message(error: Any) -> str:
    """Of the API's own words, or what came instead of them."""
    import json

    try:
        return str(json.loads(error.body)["message"])[:500]
    except (TypeError, ValueError, KeyError):
        return str(error.body)[:200]
