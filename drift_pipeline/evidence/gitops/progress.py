"""How far the GitOps repository is behind the audit, and why; a tick remembers it for the next one."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from drift_pipeline.clock import HOUR, MINUTE
from drift_pipeline.control.checkpoints import LAST
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import GITOPS
from drift_pipeline.settings import Settings

STATE = "_gitops"  # in memory; no model's name begins with an underscore
MOST = 1000  # events of one commit
FORMS = 1  # counts which derived files there are: a home that knew fewer writes them at its next tick
_AGAIN, _LATE = timedelta(seconds=30), 5 * MINUTE
_NOBODY = "no tick came by since"


@dataclass(frozen=True)
class Trouble:
    """Why something failed, how often in a row, and when it is tried again (ISO 8601)."""

    why: str = ""
    failures: int = 0
    again: str = ""

    def due(self, now: datetime) -> bool:
        """Also where the clock went back."""
        return not self.again or not timedelta() < datetime.fromisoformat(self.again) - now <= HOUR

    def more(self, why: str, now: datetime) -> "Trouble":
        wait = min(_AGAIN * 2 ** min(self.failures, 10), HOUR)
        return Trouble(why, self.failures + 1, (now + wait).isoformat())


@dataclass(frozen=True)
class Published:
    """How far the repository is; `written`: derived files tell of the records up to it. `covered`: the last checkpoint
    that is committed. `unpushed`: commits, since when; `remote`: a digest of where the head was pushed to; `tidied`:
    when git last packed; `forms`: those of FORMS that are written."""

    written: int = 0
    covered: int = 0
    head: str = ""
    pushed: str = ""
    remote: str = ""
    unpushed: int = 0
    since: str = ""
    tidied: str = ""
    forms: int = 0
    committing: Trouble = field(default_factory=Trouble)
    pushing: Trouble = field(default_factory=Trouble)


def behind(store: ControlReader, now: datetime) -> str:
    """What is not committed or not pushed, since when, and why; "" where all is, or is about to be, and before the
    first tick."""
    (last, generation), told = read(store), list[str]()
    if not generation:
        return ""
    waiting, (size, at) = store.pending(MOST, GITOPS), last_checkpoint(store)
    since = min([*(str(one.body["at"]) for one in waiting), *([at] if size > last.covered else [])], default="")
    if since and (last.committing.why or _is_late(since, now)):
        what = f"{len(waiting)} events" if waiting else f"the checkpoint of {size} records"
        told.append(_told(f"{what} not committed", since, last.committing.why or _NOBODY))
    if last.unpushed and (last.pushing.why or _is_late(last.since, now)):
        told.append(_told(f"{last.unpushed} commits not pushed", last.since, last.pushing.why or _NOBODY))
    return "; ".join(told)


def uncommitted(settings: Settings, store: ControlReader, now: datetime) -> str:
    """As `behind`, and whether anything is committed at all; for who verifies."""
    if not settings.git:
        return "nothing is committed to the GitOps repository here: DRIFT_GIT is empty"
    return (
        behind(store, now) if read(store)[1] else "nothing is committed to the GitOps repository yet: no tick came by"
    )


def read(store: ControlReader) -> tuple[Published, int]:
    """How far it is, and its generation, 0 where nobody said so yet."""
    row = store.recall(STATE)
    if row is None:
        return Published(), 0
    troubles = {name: Trouble(**row.body[name]) for name in ("committing", "pushing")}
    return Published(**{**row.body, **troubles}), row.generation


def last_checkpoint(store: ControlReader) -> tuple[int, str]:
    """How many records the last one counts, and when it was signed."""
    row = store.recall(LAST)
    return (row.body["size"], row.body["at"]) if row else (0, "")


def _is_late(since: str, now: datetime) -> bool:
    return now - datetime.fromisoformat(since) > _LATE


def _told(what: str, since: str, why: str) -> str:
    return f"{what} since {datetime.fromisoformat(since):%Y-%m-%d %H:%M} UTC: {why}"
