"""Argo Rollouts' real controller on a real cluster, with Istio's kinds and without Istio: what it writes into a
VirtualService is there to be read, and nobody routes by it. Pods wait and serve nothing.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline.errors import ConflictError, UnavailableError
from drift_pipeline.evidence.champions import derived
from drift_pipeline.loop.steering import Steering
from drift_pipeline.rollout.controllers import Act, Seen, State, Wanted, controller_of
from drift_pipeline.rollout.controllers.reconciling import Step, next_step
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.settings import Settings
from drift_pipeline_tests.deploy.charts import Object
from drift_pipeline_tests.parts import prometheus
from drift_pipeline_tests.parts.containerd import PAUSE
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.kubernetes_files import PORT
from drift_pipeline_tests.test_loop import World, phase, twin

ASKED = "http://127.0.0.1:19099"  # the machine's Prometheus, which scrapes nothing: a query says its own answer
WAITS = {"name": "waits", "image": PAUSE, "env": [{"name": "DIGEST", "value": "{digest}"}]}
RBAC = "rbac.authorization.k8s.io"
_ISTIO = "networking.istio.io"


class Argo:
    """The cluster, and a user of it with the rights that the chart gives the code location."""

    def __init__(self, cluster: Cluster, folder: Path, rules: list[Object]) -> None:
        self.cluster, self._folder, self._rules = cluster, folder, rules
        self._places = self._files = 0
        cluster.apply(*(_kind("VirtualService", "virtualservices"), _kind("DestinationRule", "destinationrules")))
        cluster.kubectl("wait", "--for=condition=Established", "crd", f"virtualservices.{_ISTIO}")
        cluster.kubectl("create", "serviceaccount", "code")
        token = cluster.kubectl("create", "token", "code", "--duration=4h").strip()
        at = {"server": f"https://127.0.0.1:{PORT}", "certificate-authority": str(cluster.folder / "keys" / "ca.crt")}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": at}],
                    "users": [{"name": "code", "user": {"token": token}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "code"}}],
                    "current-context": "here",
                }
            )
        )
        settings = folder / "prometheus.yaml"
        settings.write_text("{}")
        where = (f"--config.file={settings}", f"--storage.tsdb.path={folder / 'tsdb'}")
        command = [str(prometheus.find() / "prometheus"), *where, f"--web.listen-address={ASKED[7:]}"]
        cluster.add("prometheus", command, f"{ASKED}/-/ready")

    def place(self, model: str, **declared: Any) -> "Place":
        """A namespace of its own."""
        self._places += 1
        namespace = f"place-{self._places}"
        self.cluster.namespace(namespace)
        self.lets(namespace, self._rules)
        return self.at(namespace, model, **declared)

    def lets(self, namespace: str, rules: list[Object]) -> None:
        """The user has these rights there."""
        named = {"name": "code", "namespace": namespace}
        user = {"kind": "ServiceAccount", "name": "code", "namespace": "default"}
        bound = {"roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "code"}, "subjects": [user]}
        self.cluster.apply(
            {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": named, "rules": rules},
            {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": named, **bound},
        )

    def at(self, namespace: str, model: str, **declared: Any) -> "Place":
        """Of a file of its own."""
        pod = {"containers": [WAITS], "terminationGracePeriodSeconds": 1}
        told = {"pod": pod, "hosts": ["{model}.test"], "replicas": 1, "namespace": namespace, "timeout_seconds": 30}
        self._files += 1
        file = self._folder / f"routing-{self._files}.yaml"
        file.write_text(yaml.safe_dump({"kubeconfig": str(self.kubeconfig), **told, **declared}))
        return Place(self.cluster, namespace, model, file)


def _kind(kind: str, plural: str) -> Object:
    """Istio's own has a schema; its webhook is not here either."""
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    whole = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": whole}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{_ISTIO}"},
        "spec": {"group": _ISTIO, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def asking(query: str) -> dict[str, Any]:
    """An analysis whose Prometheus answers what the query itself says."""
    return {"prometheus": ASKED, "every_seconds": 1, "errors": {"query": query, "limit": 0.05}, "latency": None}


def istiod(env: list[Object]) -> Object:
    """A Deployment of that name, without pods."""
    labels, named = {"app": "istiod"}, {"name": "istiod", "namespace": "istio-system"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{**WAITS, "env": env}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": spec}


class Place:
    """One model's objects, the product's controller of them, and what a stranger does there."""

    def __init__(self, cluster: Cluster, namespace: str, model: str, file: Path) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.name = f"drift-{model.replace('_', '-')}"
        made = controller_of(Settings(controller="argo", controller_file=file))
        assert made is not None
        self.controller = made

    def get(self, plural: str = "rollouts", group: str = "argoproj.io/v1alpha1", name: str | None = None) -> Any:
        """One of its objects, or with `name=""` all of a kind."""
        which = self.name if name is None else name
        return self.cluster.ask(f"/apis/{group}/namespaces/{self.namespace}/{plural}/{which}".rstrip("/"))

    @property
    def routes(self) -> list[Object]:
        found: list[Object] = self.get("virtualservices", f"{_ISTIO}/v1")["spec"]["http"]
        return found

    @property
    def weights(self) -> tuple[int, ...]:
        """Stable's and the canary's."""
        (primary,) = (route for route in self.routes if route["name"] == "primary")
        return tuple(one.get("weight", 0) for one in primary["route"])

    def analyses(self) -> list[Object]:
        """The statuses of its AnalysisRuns."""
        return [one.get("status", {}) for one in self.get("analysisruns", name="")["items"]]

    def patch(self, body: Object, what: str = "rollout", *options: str) -> None:
        """As a person with all rights does."""
        told = yaml.safe_dump(dict(body))
        where = ("patch", what, self.name, "-n", self.namespace, "--type=merge")
        self.cluster.kubectl(*where, "--patch-file=/dev/stdin", *options, told=told)

    def brought(self, wanted: Wanted, state: State, patience_s: float = 300) -> list[Step]:
        """Tick until it stands so and nothing is to be done; the steps that were more than to wait."""
        steps = list[Step]()

        def there() -> bool:
            seen = self.controller.observe(wanted)
            step = next_step(wanted, seen)
            if step.act is not None:
                with suppress(ConflictError):  # Argo was faster
                    self.controller.do(step.act, wanted, seen)
                    steps.append(step)
            elif step != Step():
                steps.append(step)
            return step.act is None and seen.state is state and seen.asked in (None, Act.ABORT)

        self.until(f"{state} of {self.name}", there, patience_s)
        return steps

    def until(self, what: str, holds: Callable[[], bool], patience_s: float = 300) -> None:
        try:
            self.cluster.until(what, holds, patience_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{yaml.safe_dump(self.get())}\n{self.analyses()}") from error

    def sees(self, wanted: Wanted, state: State) -> Seen:
        """Wait, and tell it nothing."""
        found = list[Seen]()

        def so() -> bool:
            found.append(self.controller.observe(wanted))
            return found[-1].state is state

        self.until(f"{state} of {self.name}", so)
        return found[-1]


def steered(world: World, argo: Argo, **declared: Any) -> tuple[Place, str]:
    """Its loop moves Argo, whose pods are there; and the digest of who answers."""
    place, rollouts = argo.place(world.spec.name, **declared), world.loop.rollouts
    world.loop.steering = Steering(rollouts.context, rollouts, world.store, lambda: place.controller)
    assert world.loop.champion is not None
    return place, world.loop.champion.digest


def tick(world: World, place: Place, state: State) -> None:
    """Until it stands so and nothing is left to tell."""

    def there() -> bool:
        world.loop.steering.steer()
        wanted = world.loop.steering.wanted()
        assert wanted is not None
        with suppress(UnavailableError):
            seen = place.controller.observe(wanted)
            return seen.state is state and next_step(wanted, seen).act is None
        return False

    place.until(f"{state} of {place.name}", there)


def ship(world: World, place: Place, to: Phase) -> str:
    """A candidate, to that phase; its digest."""
    tick(world, place, State.SETTLED)
    training = world.proven()
    assert world.loop.release(training.digest)
    world.approve(training.digest)
    tick(world, place, State.SHADOW)
    while phase(world) is not to:
        world.day()
        assert world.loop.advance() is not None
        state = {Phase.AWAITING_APPROVAL: State.SHADOW, Phase.CANARY: State.CANARY, Phase.FULL: State.SETTLED}
        if phase(world) is not to or to is not Phase.CANARY:
            tick(world, place, state[world.loop.rollouts.status.phase])  # type: ignore[union-attr]
    return training.digest


def told(world: World, prefix: str) -> list[str]:
    return [event for event in world.events() if event.startswith(prefix)]


def is_back(world: World, place: Place, champion: str, actor: str) -> None:
    """One rollback in the audit; and everybody has the champion of before."""
    tick(world, place, State.SETTLED)
    (record,) = (record for record in world.records() if record.event == "rollout.rolled_back")
    assert record.actor == actor
    assert phase(world) is Phase.ROLLED_BACK
    seen = place.controller.observe(world.loop.steering.wanted())  # type: ignore[arg-type]
    assert (seen.newest.digest, seen.stable, seen.share, place.weights) == (champion, champion, 0, (100, 0))
    world.loop.catch_up()
    for loop in (world.loop, twin(world)):  # the second loads the registry's bundle anew
        assert loop.champion is not None
        assert (loop.champion.digest, loop.monitor.champion.digest) == (champion, champion)
        assert loop.rollouts.candidate is None
    assert champion.encode() in derived(world.store)[f"champions/{world.spec.name}.json"][1]
