"""The versions that are loaded: verified by digest, taken apart for scoring, and there before any traffic is sent."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from drift_pipeline.errors import DriftError
from drift_pipeline.loop.routes import Document, Route
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.serving.pinned import CANDIDATE, CHAMPION, part_of
from drift_pipeline.serving.scoring import Row, Scorer, make_scorer
from drift_pipeline.spec import ModelSpec

log = logging.getLogger(__name__)
RETRY_SECONDS = 10
STABLE, CANARY, SHADOW = "stable", "canary", "shadow"


@dataclass(frozen=True)
class Loaded:
    name: str
    digest: str
    scorer: Scorer


@dataclass(frozen=True)
class Served:
    """Who answers one model's requests. `weight` is the percentage that the candidate is sent, 0 without one.

    `previous` is kept for a rollback, if it was loaded while it was the champion. `pinned`: which part of the route the
    one version of a pinned gateway has; it is in the place of the champion, whichever it is.
    """

    route: Route
    champion: Loaded
    candidate: Loaded | None
    previous: Loaded | None
    weight: int
    pinned: str = ""

    @property
    def alone(self) -> str:
        """What all rows of a pinned gateway are told as, and SHADOW while its version may not answer; else ""."""
        return {"": "", CHAMPION: STABLE, CANDIDATE: CANARY if self.weight else SHADOW}[self.pinned]

    @property
    def shadow(self) -> "Served":
        """Of a pinned gateway, for what is scored and not answered."""
        return replace(self, pinned=CANDIDATE, weight=0)

    @property
    def loaded(self) -> dict[str, Loaded]:
        """By role."""
        if self.pinned:
            return {self.pinned: self.champion}
        roles = {"champion": self.champion, "candidate": self.candidate, "previous": self.previous}
        return {role: version for role, version in roles.items() if version is not None}


class Models:
    """`served` by model; `problems` says of a model which version cannot be loaded, and why.

    Only `prepare` takes long, and may run in a thread: it changes nothing that is served.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        registry: Registry,
        monotonic: Callable[[], float] = time.monotonic,
        pin: str = "",
    ) -> None:
        """
        Args:
            pin: the one digest that answers, of the one model that there is; "" = as each route says.
        """
        self.pin = pin
        self._specs, self._registry, self._monotonic = specs, registry, monotonic
        self._failed: dict[str, tuple[float, str]] = {}  # digest: when, why
        self.served: dict[str, Served] = {}
        self.problems: dict[str, str] = {}
        self.elsewhere: set[str] = set()  # models whose champion is only known by its recorded scores

    def is_current(self, route: Route) -> bool:
        held = self.served.get(route.model)
        return held is not None and held.route == route and route.model not in self.problems

    def prepare(self, route: Route) -> tuple[Served | None, str]:
        """What is to be served for a route, and what of it could not be loaded ("" = nothing).

        A champion that cannot be loaded leaves the old one in its place, without a canary; a candidate that cannot be
        loaded is sent nothing. Tried again after `RETRY_SECONDS`.
        """
        if self.pin:
            return self._pinned(route)
        held = self.served.get(route.model)
        kept = {version.digest: version for version in held.loaded.values()} if held else {}
        problems: list[str] = []
        champion = self._load(route.model, route.champion, kept, problems)
        if champion is None:
            old = held.champion if held else None
            return (Served(route, old, None, held.previous, 0) if held and old else None), problems[0]
        candidate = None
        if route.candidate is not None and route.weight:  # a mirrored copy is scored elsewhere
            candidate = self._load(route.model, route.candidate, kept, problems)
        previous = kept.get(str(route.previous["digest"])) if route.previous else None
        return Served(route, champion, candidate, previous, route.weight if candidate else 0), "; ".join(problems)

    def _pinned(self, route: Route) -> tuple[Served | None, str]:
        """One that was the champion when it was last heard of goes on until it is replaced: nobody else is here."""
        held, found = self.served.get(route.model), part_of(route, self.pin)
        if found is None:
            if held is None:
                return None, f"{self.pin} may not answer"
            log.warning("%s: %s was taken back", route.model, held.champion.name, extra={"model": route.model})
            return replace(held, route=route, weight=0), ""
        part, document = found
        problems: list[str] = []
        version = self._load(route.model, document, {self.pin: held.champion} if held else {}, problems)
        if version is None:
            return None, problems[0]
        return Served(route, version, None, None, route.weight if part == CANDIDATE else 0, part), ""

    def _load(self, model: str, document: Document, kept: Mapping[str, Loaded], problems: list[str]) -> Loaded | None:
        """A version that is loaded already is not read again. Adds to the problems where it gives None."""
        digest = str(document["digest"])
        if digest in kept:
            return kept[digest]
        at, why = self._failed.get(digest, (0.0, ""))
        if not why or self._monotonic() - at > RETRY_SECONDS:
            try:
                loaded = self._read(model, document)
                self._failed.pop(digest, None)
                return loaded
            except DriftError as error:
                why = f"{document['version']} cannot be loaded: {error}"
                self._failed[digest] = self._monotonic(), why
        problems.append(why)
        return None

    def _read(self, model: str, document: Mapping[str, Any]) -> Loaded:
        version = Version.load(document, self._registry)
        features = self._specs[model].features
        assert version.pipeline is not None, "a recorded model is told apart before"
        scorer = make_scorer(version.pipeline, features)
        empty: Row = [None] * len(features)
        scorer.score([empty])  # the first call of a library is slower than all the others
        return Loaded(version.name, version.digest, scorer)


def is_elsewhere(route: Route) -> bool:
    """Whether the champion is a recorded model: only its scores are known, another system answers."""
    return bool(route.champion["digest"] == RECORDED)
