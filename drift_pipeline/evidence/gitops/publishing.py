"""Publish what waits in the outbox, and file an approval in a commit of the approver's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.store import AuditRecord, ControlStore
from drift_pipeline.errors import UnavailableError
from drift_pipeline.evidence.gitops.repository import Repository, alone
from drift_pipeline.settings import Settings

APPROVER_S = 25.0
File = Callable[[Path, Signer, PublicKey, AuditRecord], None]


def publish(settings: Settings, store: ControlStore, clock: Clock) -> None:
    """Commit what waits, and push it. Where nothing waits these are three look-ups, and no process.

    What fails stays as it is, is tried again later, and is told by `behind`. Another process that is at it does it.

    Raises:
        DriftError: of the control store.
    """
    repository = Repository(settings, store, clock)
    if repository.waits():
        with alone(settings, 0) as held:
            if held is not None:
                repository.bring_up(held)


@contextmanager
def filing(settings: Settings, store: ControlStore, clock: Clock) -> Iterator[File]:
    """Nobody else commits while an approval is filed; what is yielded commits its file, signed by the approver.

    Where that fails, the next tick commits it, signed by the home. A remote that was set by hand is where approvals are
    kept out of this house's reach: while it does not take what is here, no new one is given. Rollbacks ask nobody.

    Raises:
        UnavailableError: that remote does not answer, or nothing can be committed; nothing is filed.
    """
    repository, strict = (
        Repository(settings, store, clock),
        bool(settings.git and settings.gitops_remote.get_secret_value()),
    )
    with alone(settings, APPROVER_S) as held:
        if held is not None:
            repository.bring_up(held, at_once=strict)
        last = repository.last()
        if strict and (held is None or last.committing.why or last.head != last.pushed):
            why = last.committing.why or last.pushing.why or "another process is at work on it"
            raise UnavailableError(
                f"{settings.gitops}: no new approval while DRIFT_GITOPS_REMOTE does not take it: {why}; try again later"
            )

        def file(path: Path, signer: Signer, shown: PublicKey, record: AuditRecord) -> None:
            if held is not None:
                repository.sign(held, path, signer, shown, record)

        yield file
