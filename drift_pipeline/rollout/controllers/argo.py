"""Argo Rollouts over Istio: our plan is a Rollout, which waits for us in the shadow and in the canary."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from drift_pipeline.errors import ConflictError, DriftError, InputError
from drift_pipeline.rollout.controllers import Act, Seen, Served, State, Wanted, istio
from drift_pipeline.rollout.controllers.declared import Routing
from drift_pipeline.rollout.controllers.rendering import (
    DIGEST,
    GROUP,
    LABEL,
    NAME,
    ROLLOUT,
    VERSION,
    analysis_template,
    name_of,
    rendered,
    rollout,
    strategy,
)
from drift_pipeline.training.runners.cluster import Cluster, NotThereError, ThereAlreadyError

HASH = "rollouts-pod-template-hash"
Object = dict[str, Any]
_STATUS: dict[Act, Object] = {  # what kubectl's plugin writes
    Act.PROMOTE: {"pauseConditions": None},
    Act.COMPLETE: {"abort": False, "promoteFull": True},
    Act.ABORT: {"abort": True},
}
_PLURALS = {
    "Rollout": (GROUP, VERSION, "rollouts"),
    "AnalysisTemplate": (GROUP, VERSION, "analysistemplates"),
    "VirtualService": ("networking.istio.io", "v1", "virtualservices"),
    "DestinationRule": ("networking.istio.io", "v1", "destinationrules"),
}


class ArgoController:
    kind = "argo"

    def __init__(self, routing: Routing) -> None:
        self._routing, self._at = routing, Cluster(routing, "DRIFT_CONTROLLER")

    def observe(self, wanted: Wanted) -> Seen:
        name = name_of(wanted.model)
        try:
            live, virtual = self._get("Rollout", name), self._get("VirtualService", name)
        except NotThereError:
            return Seen(State.ABSENT)
        status, sets = live.get("status") or {}, self._replica_sets(live)
        newest = stable = _newest(live, sets)
        if status.get("stableRS") and status["stableRS"] != status.get("currentPodHash"):
            found = [one for one in sets if _label(one) == status.get("stableRS")]
            stable = _served(found[0]["spec"]) if found else Served("", "")
        host = istio.host_of(name, self._routing.namespace, "canary")
        share = istio.share_of(virtual, host, self._routing.sticky_header)
        seen = seen_of(live, newest, stable.digest, share)
        odd = [f"its VirtualService: {fault}" for fault in istio.faults_of(virtual)]
        if seen.state is not State.SETTLED and not _within(strategy(self._routing, wanted), _strategy(live)):
            odd.append("its Rollout's strategy is not the one that the control store and DRIFT_CONTROLLER_FILE say")
        if live["spec"].get("paused"):
            odd.append("its Rollout is paused by hand (spec.paused), and does nothing that it is told")
        if status.get("phase") == "Degraded" and seen.asked is not Act.ABORT:
            odd.append(f"its Rollout is degraded: {seen.reason}")
        return replace(seen, odd=(*odd, *self._late()))

    def _late(self) -> list[str]:
        """What lets an aborted canary keep its share, as far as it is istiod's."""
        if not self._routing.istiod:
            return []
        namespace, _, name = self._routing.istiod.partition("/")
        where, get = ("apps", "v1", namespace, "deployments", name), self._at.objects().get_namespaced_custom_object
        try:
            lasts = istio.debounce_s(self._at.ask(f"istiod {self._routing.istiod}", get, *where))
        except NotThereError:
            return [f"istiod {self._routing.istiod}, which DRIFT_CONTROLLER_FILE names, is not there"]
        except DriftError as error:
            return [f"the PILOT_DEBOUNCE_MAX of istiod cannot be seen: {error}"]
        if lasts <= istio.DEBOUNCE_S:
            return []
        wanted = f"more than {istio.DEBOUNCE_S:g}: so long an aborted canary may be sent its share"
        return [f"the PILOT_DEBOUNCE_MAX of istiod {self._routing.istiod} is {lasts:g} s, {wanted}"]

    def do(self, act: Act, wanted: Wanted, seen: Seen) -> None:
        match act:
            case Act.CREATE:
                for made in rendered(self._routing, wanted):
                    with suppress(ThereAlreadyError):
                        self._create(made)
            case Act.BEGIN:
                if wanted.candidate is not None:
                    self._replace(wanted, wanted.candidate, seen)
            case Act.RESTORE:
                self._replace(wanted, wanted.champion, seen)
            case _:
                self._tell(wanted, _STATUS[act], seen)

    def _tell(self, wanted: Wanted, status: Object, seen: Seen) -> None:
        """Refused by the API where the Rollout is not at the revision that was seen."""
        body = {"metadata": {"resourceVersion": seen.revision}, "status": status}
        patch, name = self._at.objects().patch_namespaced_custom_object_status, name_of(wanted.model)
        group, version, plural = _PLURALS["Rollout"]
        where = group, version, self._routing.namespace, plural, name
        with _since(name):
            self._at.ask(f"Rollout {name}", patch, *where, body, _content_type="application/merge-patch+json")

    def _replace(self, wanted: Wanted, served: Served, seen: Seen) -> None:
        """The Rollout's spec; its replicas stay, for an autoscaler may have them. A version that it has pods of gets
        those, to the letter, so that it is known again."""
        name, made = name_of(wanted.model), rollout(self._routing, wanted, served)
        if self._routing.analysis is not None:
            self._put(analysis_template(self._routing, self._routing.analysis, wanted.model))
        with _since(name):
            live = self._get("Rollout", name)
        if live["metadata"].get("resourceVersion") != seen.revision:
            raise ConflictError(f"Rollout {name}: moved on since it was looked at")
        template = made["spec"]["template"]
        if served is wanted.champion:
            template = self._pods_of(live, served) or template
        replicas = (live.get("spec") or {}).get("replicas", self._routing.replicas)
        body = {**live, "spec": {**made["spec"], "template": template, "replicas": replicas}}
        with _since(name):
            self._put_body(body)

    def _pods_of(self, live: Object, served: Served) -> Object | None:
        """The template of the newest ReplicaSet of a version, of those that we made."""
        known = [one for of, one in _made(self._replica_sets(live)).items() if of.digest == served.digest]
        if not known:
            return None
        newest = known[-1]
        template = dict(newest["spec"]["template"])
        labels = {key: value for key, value in template["metadata"]["labels"].items() if key != HASH}
        return {**template, "metadata": {"labels": labels, "annotations": template["metadata"]["annotations"]}}

    def _get(self, kind: str, name: str) -> Object:
        group, version, plural = _PLURALS[kind]
        get = self._at.objects().get_namespaced_custom_object
        found: Object = self._at.ask(f"{kind} {name}", get, group, version, self._routing.namespace, plural, name)
        return found

    def _put(self, body: Object) -> None:
        """As it is rendered, whatever is there."""
        try:
            self._create(body)
        except ThereAlreadyError:
            with _since(body["metadata"]["name"]):
                live = self._get(body["kind"], body["metadata"]["name"])
                self._put_body({**live, "spec": body["spec"]})

    def _put_body(self, body: Object) -> None:
        group, version, plural = _PLURALS[body["kind"]]
        name, replace = body["metadata"]["name"], self._at.objects().replace_namespaced_custom_object
        self._at.ask(f"{body['kind']} {name}", replace, group, version, self._routing.namespace, plural, name, body)

    def _create(self, body: Object) -> None:
        kind, name, namespace = body["kind"], body["metadata"]["name"], self._routing.namespace
        try:
            if kind == "Service":
                self._at.ask(f"Service {name}", self._at.pods().create_namespaced_service, namespace, body)
                return
            group, version, plural = _PLURALS[kind]
            create = self._at.objects().create_namespaced_custom_object
            self._at.ask(f"{kind} {name}", create, group, version, namespace, plural, body)
        except NotThereError as error:
            told = f"the cluster has no {kind}, or no namespace {namespace!r}; install Argo Rollouts and Istio"
            raise InputError(f"DRIFT_CONTROLLER=argo: {told}") from error

    def _replica_sets(self, live: Object) -> list[Object]:
        """Of this very Rollout, and not of one of its name that was deleted."""
        name, uid = live["metadata"]["name"], live["metadata"].get("uid")
        listed, where = self._at.objects().list_namespaced_custom_object, ("apps", "v1", self._routing.namespace)
        found = self._at.ask(
            f"ReplicaSets of {name}", listed, *where, "replicasets", label_selector=f"{LABEL}={name}", limit=100
        )
        return [one for one in found.get("items") or [] if uid in _owners(one)]


@contextmanager
def _since(name: str) -> Iterator[None]:
    """What the API says of a change that came in between is a ConflictError."""
    try:
        yield
    except (ThereAlreadyError, NotThereError) as error:
        raise ConflictError(f"Rollout {name}: moved on since it was looked at") from error


def seen_of(live: Object, newest: Served, stable: str, share: int) -> Seen:
    """Of a Rollout as the API tells it.

    Args:
        newest: whose pods came last.
        stable: the digest of its stable ReplicaSet.
        share: what the canary's host is sent, in percent.
    """
    spec, status = live["spec"], live.get("status") or {}
    revision = str(live["metadata"].get("resourceVersion", ""))
    asked = Act.ABORT if status.get("abort") else Act.COMPLETE if status.get("promoteFull") else None
    told = str(status.get("message") or "")[:500]
    state = _state(spec, status, share) if _is_read(live) else State.MOVING
    return Seen(state, newest, stable, share, asked, told, revision=revision)


def _state(spec: Object, status: Object, share: int) -> State:
    if status.get("abort"):
        return State.ABORTED if status.get("phase") == "Degraded" and not share else State.MOVING
    if status.get("currentPodHash") and status.get("stableRS") == status.get("currentPodHash"):
        return State.SETTLED if status.get("phase") == "Healthy" else State.MOVING
    if not status.get("pauseConditions"):
        return State.MOVING
    steps = ((spec.get("strategy") or {}).get("canary") or {}).get("steps") or []
    done = steps[: int(status.get("currentStepIndex") or 0)]
    sends = any(step.get("setWeight") or (step.get("setHeaderRoute") or {}).get("match") for step in done)
    return State.CANARY if sends else State.SHADOW


def _is_read(live: Object) -> bool:
    """Whether its status is of the spec that it has."""
    return str((live.get("status") or {}).get("observedGeneration", "")) == str(live["metadata"].get("generation", ""))


def _newest(live: Object, sets: list[Object]) -> Served:
    """Whose pods a Rollout has. Pods that somebody changed are nobody's, whatever stands on them: each version of a
    rollout is written once."""
    noted = _served(live["spec"])
    first, current = _made(sets).get(noted), (live.get("status") or {}).get("currentPodHash")
    if first is not None and _is_read(live) and _label(first) != current:
        return Served("", f"another {noted.version or 'version'}")
    return noted


def _made(sets: list[Object]) -> dict[Served, Object]:
    """The first ReplicaSet of each version and rollout, oldest first."""
    made = dict[Served, Object]()
    for one in sorted(sets, key=lambda one: str(one["metadata"].get("creationTimestamp", ""))):
        made.setdefault(_served(one["spec"]), one)
    return made


def _served(spec: Object) -> Served:
    """Whose pods a Rollout or a ReplicaSet has; empty where nobody noted that."""
    meta = (spec.get("template") or {}).get("metadata") or {}
    noted = meta.get("annotations") or {}
    return Served(str(noted.get(DIGEST, "")), str(noted.get(NAME, "")), str(noted.get(ROLLOUT, "")))


def _owners(replica_set: Object) -> list[Any]:
    return [one.get("uid") for one in replica_set["metadata"].get("ownerReferences") or []]


def _label(replica_set: Object) -> str:
    return str((replica_set["metadata"].get("labels") or {}).get(HASH, ""))


def _strategy(live: Object) -> Object:
    found: Object = (live["spec"].get("strategy") or {}).get("canary") or {}
    return found


def _within(made: Any, live: Any) -> bool:
    """Whether all that was rendered is there; what the API or somebody added beside it does not matter."""
    if isinstance(made, dict):
        return isinstance(live, dict) and all(key in live and _within(value, live[key]) for key, value in made.items())
    if isinstance(made, list):
        return isinstance(live, list) and len(made) == len(live) and all(map(_within, made, live))
    return bool(made == live)
