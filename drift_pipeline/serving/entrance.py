"""Who may ask the gateway for what, and what callers are told where it cannot answer.

Reasons name folders and digests: they are for the log. Who has no key for a model learns nothing of it.
"""

from typing import Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request

from drift_pipeline.errors import UnavailableError
from drift_pipeline.serving.allowance import Allowance
from drift_pipeline.serving.callers import Callers
from drift_pipeline.serving.gateway import SEE_LOG, Gateway
from drift_pipeline.serving.keys import Producer, key_hash
from drift_pipeline.serving.models import SHADOW, Served
from drift_pipeline.serving.pinned import is_copy
from drift_pipeline.spec import ModelSpec

_BEARER = {"WWW-Authenticate": "Bearer"}


class Keyed(Protocol):
    """What asks for keys; `heard`: whether they were read."""

    callers: Callers

    @property
    def heard(self) -> bool: ...


async def key_holder(request: Request, gateway: Keyed) -> Producer | None:
    """Whose key the request has; None without one that is known."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    return await gateway.callers.producer_of(key_hash(key)) if key else None


async def producer_of(request: Request, gateway: Keyed) -> Producer:
    """401 without a key that is known."""
    if not gateway.heard:
        raise UnavailableError("the keys were not read yet; ask again")
    producer = await key_holder(request, gateway)
    if producer is None:
        said = "send a producer's key in the header Authorization: Bearer KEY, or X-API-Key"
        raise HTTPException(401, f"the key is missing, unknown or revoked; {said}", _BEARER)
    return producer


async def spec_for(request: Request, gateway: Gateway) -> ModelSpec:
    """The spec of the model that the path names: 403 before 404, so that a key learns nothing of others' models."""
    spec, _ = await spec_and_allowance(request, gateway)
    return spec


async def spec_and_allowance(request: Request, gateway: Gateway) -> tuple[ModelSpec, Allowance]:
    """As `spec_for`, with what its producer may still cost."""
    producer, model = await producer_of(request, gateway), request.path_params["model"]
    if not producer.may(model):
        await gateway.callers.record_refusal(producer, model if model in gateway.specs else "")
        raise HTTPException(403, f"the key of {producer.name} is not for the model {model!r}; ask for one that is")
    if model not in gateway.specs:
        raise HTTPException(404, f"there is no model {model!r} here; check the path, /v2/models/MODEL")
    return gateway.specs[model], gateway.callers.allowance(producer)


def served_of(spec: ModelSpec, gateway: Gateway) -> Served:
    """503 while it is not loaded."""
    if spec.name in gateway.models.elsewhere:
        raise HTTPException(404, f"{spec.name} is served elsewhere; here only its events and outcomes are taken")
    if served := gateway.models.served.get(spec.name):
        return served
    raise UnavailableError(not_ready(spec.name, gateway) or f"{spec.name} has no champion yet: adopt it first")


async def answering(request: Request, spec: ModelSpec, gateway: Gateway) -> tuple[Served, bool]:
    """Who scores, and whether that is answered. 503 where a pinned version may not answer, as of this moment."""
    served = served_of(spec, gateway)
    if served.pinned and is_copy(request):
        return served.shadow, False
    if served.alone == SHADOW:
        await gateway.look_again()
        served = served_of(spec, gateway)
    if served.alone == SHADOW:
        raise UnavailableError(f"{spec.name}: {served.champion.name} may not answer, and no other version is here")
    return served, True


def not_ready(model: str, gateway: Gateway) -> str:
    """Why a model that has a champion cannot be answered for; "" when it can."""
    if not gateway.heard:
        return "the gateway has not heard from its control store yet; ask again"
    unloaded = model in gateway.models.problems and model not in gateway.models.served
    return f"{model}: its champion cannot be loaded; {SEE_LOG}" if unloaded else ""


def troubles(gateway: Gateway) -> dict[str, str]:
    """By model, and "" for all of them: what stops nothing yet."""
    found = dict.fromkeys(gateway.models.problems, f"a version cannot be loaded; {SEE_LOG}")
    return found | ({"": f"the control store does not answer; {SEE_LOG}"} if gateway.trouble else {})
