"""The repository of one home: commits of what waits in the outbox, and their way to the remote."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from drift_pipeline.clock import DAY, Clock
from drift_pipeline.control.checkpoints import HOME, KEY
from drift_pipeline.control.commits import begun, commit
from drift_pipeline.control.git import BRANCH, OURS, Git, make_repository, refuse_old, sweep
from drift_pipeline.control.rows import Message, Put, Record
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.store import GITOPS, AuditRecord, ControlStore
from drift_pipeline.errors import DriftError, IntegrityError, UnavailableError
from drift_pipeline.evidence.champions import derived, signer_of
from drift_pipeline.evidence.gitops.content import content
from drift_pipeline.evidence.gitops.progress import FORMS, MOST, STATE, Published, Trouble, last_checkpoint, read
from drift_pipeline.files import write_whole
from drift_pipeline.settings import Settings

PUSH_S, GC_S = 10.0, 10.0


class Repository:
    """One home's."""

    def __init__(self, settings: Settings, store: ControlStore, clock: Clock) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._remote = _spelt(settings.gitops_remote.get_secret_value() or str(settings.gitops_bare))

    def last(self) -> Published:
        return read(self._store)[0]

    def waits(self) -> bool:
        """Whether anything is to be done now."""
        last, now = self.last(), self._clock.now()
        waiting = self._store.pending(MOST, GITOPS)
        return (
            self._unwritten(last, waiting)
            or (self._uncommitted(last, waiting) and last.committing.due(now))
            or (self._unpushed(last) and last.pushing.due(now))
        )

    def bring_up(self, held: int, *, at_once: bool = False) -> None:
        """Write, commit and push what waits; `at_once` also what failed a moment ago, and to hear from the remote."""
        last, now = self.last(), self._clock.now()
        waiting = self._store.pending(MOST, GITOPS)
        if self._unwritten(last, waiting):
            last = self._write(last)
        tried = at_once or last.committing.due(now)
        while tried and self._uncommitted(last, waiting):
            last = self._commit(last, held, waiting)
            waiting, tried = self._store.pending(MOST, GITOPS), not last.committing.why
        if self._settings.git and (at_once or (self._unpushed(last) and last.pushing.due(now))):
            last = self._push(last, held)
        self._remember(last)

    def sign(self, held: int, path: Path, signer: Signer, shown: PublicKey, record: AuditRecord) -> None:
        """One file, in a commit of the signer's own; pushed where the remote was set by hand."""
        last, name = self.last(), path.relative_to(self._settings.gitops).as_posix()
        words = f"{record.event} {record.subject} (record {record.seq})"
        try:
            head = commit(self._git(held), {name: path.read_bytes()}, signer, shown, words, self._clock.now())
        except (DriftError, OSError):  # the next tick commits it
            return
        last = self._moved(last, head)
        strict = bool(self._settings.gitops_remote.get_secret_value())
        self._remember(self._push(last, held) if strict else last)

    def _unwritten(self, last: Published, waiting: Sequence[Message]) -> bool:
        fresh = bool(waiting) and (len(waiting) == MOST or waiting[-1].body["seq"] > last.written)
        return fresh or last.forms != FORMS

    def _uncommitted(self, last: Published, waiting: Sequence[Message]) -> bool:
        return bool(waiting) or last_checkpoint(self._store)[0] > last.covered

    def _unpushed(self, last: Published) -> bool:
        return bool(last.head) and (last.head, _address(self._remote)) != (last.pushed, last.remote)

    def _write(self, last: Published) -> Published:
        """What is made from the store alone; where it cannot be written, it is tried again."""
        head = self._store.head()
        try:
            for name, (_, data) in derived(self._store).items():
                path = self._settings.gitops / name
                if not path.is_file() or path.read_bytes() != data:
                    write_whole(path, data)
        except (DriftError, OSError) as error:
            return replace(last, committing=last.committing.more(str(error), self._clock.now()))
        return replace(last, written=head.seq if head else 0, forms=FORMS)

    def _commit(self, last: Published, held: int, waiting: Sequence[Message]) -> Published:
        now, (size, _) = self._clock.now(), last_checkpoint(self._store)
        try:
            head = self._committed(last, held, _words(waiting, size), size, now) if self._settings.git else ""
        except (DriftError, OSError) as error:
            return replace(last, committing=last.committing.more(str(error), now))
        self._store.delivered(*(message.id for message in waiting))
        return replace(self._moved(last, head), covered=size, committing=Trouble())

    def _committed(self, last: Published, held: int, words: str, size: int, now: datetime) -> str:
        git, key = self._git(held), self._home()
        files = content(self._settings, self._store, last.covered if self._begun(git) else 0, size)
        return commit(git, files, Signer.load(self._settings.keys / key.body["file"]), signer_of(key), words, now)

    def _moved(self, last: Published, head: str) -> Published:
        if head == last.head:
            return last
        since = last.since if last.unpushed else self._clock.now().isoformat()
        return replace(last, head=head, unpushed=last.unpushed + 1, since=since)

    def _push(self, last: Published, held: int) -> Published:
        git = self._git(held)
        try:
            if self._remote == str(self._settings.gitops_bare.absolute()) and not self._settings.gitops_bare.exists():
                make_repository(self._settings.gitops_bare, bare=True)
            git.run("push", "--quiet", "drift", f"{BRANCH}:{BRANCH}", seconds=PUSH_S)
        except UnavailableError as error:
            return replace(last, pushing=last.pushing.more(_why(str(error)), self._clock.now()))
        last = self._tidied(last, git)
        return replace(last, pushed=last.head, remote=_address(self._remote), unpushed=0, since="", pushing=Trouble())

    def _tidied(self, last: Published, git: Git) -> Published:
        """Once a day git packs what is loose, where that is much."""
        now = self._clock.now()
        if last.tidied and abs(now - datetime.fromisoformat(last.tidied)) < DAY:
            return last
        for folder in (git.folder, self._settings.gitops_bare):
            with suppress(UnavailableError):
                replace(git, folder=folder).run("gc", "--auto", "--quiet", seconds=GC_S)
        return replace(last, tidied=now.isoformat())

    def _git(self, held: int) -> Git:
        """The repository, made where there is none.

        Raises:
            UnavailableError: git is missing or too old, or what lies there was not made here.
        """
        folder = (self._settings.gitops / ".git").absolute()
        git = Git(self._settings.git, folder, {"remote.drift.url": self._remote}, held)
        if not folder.exists() and not folder.is_symlink():
            make_repository(folder, bare=False)
        if not (folder / OURS).is_file():
            raise UnavailableError(f"{folder}: was not made here, and is left alone; move it away")
        _refuse_old(git)
        for repository in (folder, self._settings.gitops_bare):
            sweep(repository)
        return git

    def _begun(self, git: Git) -> bool:
        """Whether there is a commit; the remote's are taken up where there is none here, or none any more."""
        if begun(git):
            return True
        with suppress(UnavailableError):
            how = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--update-head-ok")
            git.run("fetch", *how, "drift", f"{BRANCH}:{BRANCH}", seconds=PUSH_S)
            git.run("read-tree", BRANCH)
        return False

    def _home(self) -> Record:
        """The row of the home's own key."""
        home = self._store.get(HOME, HOME)
        row = home and self._store.get(KEY, self._store.attest(home).body["key_id"])
        if row is None:
            raise IntegrityError(f"{self._settings.home}: no record says which key is the home's own")
        return self._store.attest(row)

    def _remember(self, last: Published) -> None:
        before, generation = read(self._store)
        if last != before:
            self._store.remember(Put("", STATE, asdict(last), generation))


_fit = set[str]()  # programs that were asked before


def _refuse_old(git: Git) -> None:
    if git.program not in _fit:
        refuse_old(git)
        _fit.add(git.program)


@contextmanager
def alone(settings: Settings, seconds: float) -> Iterator[int | None]:
    """An open file, locked for as long as it or a child that has it lives; None where another process has it."""
    try:
        held = os.open(settings.home / "gitops.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield None
        return
    try:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= end:
                    yield None
                    return
                time.sleep(0.05)
        yield held
    finally:
        os.close(held)


def _words(events: Sequence[Message], size: int) -> str:
    """What a commit is about: the event, its subject and its record."""
    lines = [" ".join(f"{e.body['event']} {e.body['subject']} (record {e.body['seq']})".split()) for e in events]
    if len(lines) < 2:
        return lines[0] if lines else f"checkpoint of {size} records"
    first, last = events[0].body["seq"], events[-1].body["seq"]
    return "\n".join([f"{len(lines)} events, records {first} to {last}", "", *lines])


def _why(said: str) -> str:
    diverged = "fetch first" in said or "non-fast-forward" in said
    return f"{said}: it has commits that are not here; merge them into this branch by hand" if diverged else said


def _spelt(remote: str) -> str:
    """A path from where the process stands; other addresses have a colon."""
    return remote if ":" in remote.partition("/")[0] else str(Path(remote).absolute())


def _address(remote: str) -> str:
    """A digest: an address may hold a password."""
    return hashlib.sha256(remote.encode()).hexdigest()[:16]
