"""What tells people of a home's models: cards and annexes that are no older than what they tell, and their commits.

Control store and registry are all that is read: whoever brings them up to date does not wait for who ticks.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress

from drift_pipeline.errors import ConflictError, DriftError, UnavailableError
from drift_pipeline.evidence.gitops.publishing import publish
from drift_pipeline.loop.failed import Failed
from drift_pipeline.loop.home import Home
from drift_pipeline.spec import ModelSpec

MOST_UNPUBLISHED_S = 60.0


class Documents:
    """Those of one home. `monotonic` is what the times are of, in seconds."""

    def __init__(self, home: Home, monotonic: Callable[[], float]) -> None:
        self._home, self._monotonic, self._published = home, monotonic, -math.inf
        self._known, self._seen = set[str](), 0
        self._named = dict[str, None]()  # whose cards may be old by the records up to the one that was seen, in turn

    def refresh(self, specs: Iterable[ModelSpec], ended: float = math.inf) -> list[Failed]:
        """Cards tell what a step came to, and what was approved or done by others since. Of these models only those
        that a record names since they were last looked at are looked at: one always, and as many more as begin in time.
        """
        among = {spec.name: spec for spec in specs}
        try:
            self._note(among)
        except DriftError as error:
            return [Failed("audit", f"no card is looked at: {error}", again=False)]
        looked = list[Failed | None]()
        for spec in [among[name] for name in self._named if name in among]:
            if looked and self._monotonic() >= ended:
                break
            del self._named[spec.name]
            looked.append(self._document(spec))
        return [failed for failed in looked if failed is not None]

    def publish(self, ended: float = math.inf) -> None:
        """Commit what waits, where there is time for it, and each minute at least."""
        now = self._monotonic()
        if now < ended or now >= self._published + MOST_UNPUBLISHED_S:
            self._published = now
            with suppress(DriftError):  # of the store, of which the models' own steps tell
                publish(self._home.settings, self._home.store, self._home.clock)

    def _note(self, among: Iterable[str]) -> None:
        """Who is new, and whom records name since the last look."""
        if not self._seen and (head := self._home.store.head()) is not None:
            self._seen = head.seq
        for record in self._home.store.records(after=self._seen):
            self._named.setdefault(record.subject)
            self._seen = record.seq
        self._named |= dict.fromkeys(name for name in among if name not in self._known)
        self._known |= set(among)

    def _document(self, spec: ModelSpec) -> Failed | None:
        try:
            self._home.document(spec)
        except Exception as error:  # the edge between models, as for their ticks
            self._named[spec.name] = None
            again = isinstance(error, ConflictError | UnavailableError)
            return Failed(spec.name, f"its card is older than what it tells: {error}", again)
        return None
