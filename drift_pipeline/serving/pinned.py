"""A pinned gateway: it answers by one digest of one model, or not at all, as the pods do between which somebody else
splits the traffic (`rollout/controllers`).

| what the control store says of its digest | requests | their events and metrics name the route |
|---|---|---|
| champion, or the one before | answered | stable |
| candidate of a rollout in its canary | answered | canary |
| candidate before its canary, or taken back out of it | refused with 503 | |

Copies, which a proxy mirrors, are scored in each of these and answered with 204: only metrics tell of them, as shadow.
"""

from starlette.requests import Request

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import InputError, RefusedError
from drift_pipeline.loop.routes import Document, Route, route_of
from drift_pipeline.loop.state import RECORDED
from drift_pipeline.registry.backends import Registry
from drift_pipeline.spec import ModelSpec

CHAMPION, CANDIDATE = "champion", "candidate"


def part_of(route: Route, digest: str) -> tuple[str, Document] | None:
    """Which part a digest has in a route, and its version's document; None = it may not answer, nor be scored."""
    parts = ((CHAMPION, route.champion), (CANDIDATE, route.candidate), (CHAMPION, route.previous))
    return next(((part, of) for part, of in parts if of is not None and of["digest"] == digest), None)


def require(store: ControlReader, registry: Registry, spec: ModelSpec, digest: str) -> None:
    """
    Raises:
        InputError: it is not in the registry; the model is not adopted, or served elsewhere.
        RefusedError: no version of the model that may answer, or come to, has this digest.
        IntegrityError: what the control store or the registry holds of it is not what was written.
    """
    route = route_of(store, spec)
    if route is None or route.champion["digest"] == RECORDED:
        why = "is not adopted here" if route is None else "is served elsewhere"
        raise InputError(f"--pin: {spec.name} {why}, so that no version of it answers; leave --pin out")
    if part_of(route, digest) is None:
        champion = f"{route.champion['version']} with {route.champion['digest']}"
        raise RefusedError(
            f"--pin: {digest} may not answer for {spec.name}: it is not the champion, which is {champion}, nor the "
            "version before it, nor the candidate of a rollout under way"
        )
    registry.get(digest)


def is_copy(request: Request) -> bool:
    """Whether a proxy mirrored it, whose answer nobody reads: Envoy appends -shadow to the host's name."""
    return request.headers.get("host", "").partition(":")[0].endswith("-shadow")
