"""git as a child process: nobody else's configuration, hook, prompt or environment changes a call, and each has an end.

Only what has no side effects of its own is called (plumbing, and push): no editor, no filter, no hook, no helper.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from drift_pipeline.errors import UnavailableError

OLDEST = (2, 34)  # the first that shows and checks SSH signatures
BRANCH = "refs/heads/main"
OURS = "drift"  # the file in a repository that tells that it was made here
CALL_S = 5.0
_LOCKS, _DEAD_S = ("HEAD.lock", "packed-refs.lock", f"{BRANCH}.lock", "refs/drift/next.lock"), 10.0
_TOLD = 300  # letters of what git says
_KEPT = ("PATH", "HOME", "SSH_AUTH_SOCK", "TMPDIR")  # whom ssh logs in as, and where programs are
_FIXED = {
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=5 -o ControlMaster=no -o ControlPath=none",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",  # no ext::, which runs what it names
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a commit is the one that is named, whatever refs/replace and grafts say
    "GIT_GRAFT_FILE": os.devnull,
    **{f"GIT_{who}_{what}": "drift" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},  # of its log
}
_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "gc.autoDetach": "false",  # nothing goes on behind a call's end
    "push.gpgSign": "false",
}
_SKELETON = """[core]
\trepositoryformatversion = 0
\tfilemode = false
\tbare = {bare}
\tlogallrefupdates = true
[gc]
\tautoDetach = false
[receive]
\tautogc = false
[gpg]
\tformat = ssh
[gpg "ssh"]
\tallowedSignersFile = allowed_signers
"""


@dataclass(frozen=True)
class Git:
    """Calls on one repository.

    program: a name below PATH, or a path. config: beside what is always set; no argument, for people can see those.
    held: an open file that a child inherits, so that a lock on it lasts as long as the last child.
    """

    program: str
    folder: Path
    config: Mapping[str, str] = field(default_factory=dict)
    held: int | None = None

    def run(self, *arguments: str, given: bytes = b"", seconds: float = CALL_S) -> bytes:
        """What it prints. Raises UnavailableError where it fails, is not there, or has no end by then."""
        config = {**_CONFIG, **self.config}
        numbered = {f"GIT_CONFIG_KEY_{i}": name for i, name in enumerate(config)}
        numbered |= {f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(config.values())}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env = {**kept, **_FIXED, **numbered, "GIT_CONFIG_COUNT": str(len(config)), "GIT_DIR": str(self.folder)}
        try:
            child = subprocess.Popen(
                [self.program, *arguments],
                cwd=self.folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C is not meant for it, and its own children end with it
                pass_fds=() if self.held is None else (self.held,),
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise UnavailableError(f"{self.program} cannot be run: {why}") from error
        try:
            said, complained = child.communicate(given, timeout=seconds)
        except BaseException as error:
            _end(child)
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnavailableError(f"git {arguments[0]} did not end within {seconds:.0f} s") from error
            raise
        if child.returncode:
            raise UnavailableError(f"git {arguments[0]}: {_plain(complained) or f'ended with {child.returncode}'}")
        return said


def sweep(folder: Path) -> None:
    """Remove the locks of references that a git left which was killed; none is held for as long as a second.

    The index's is left: an editor that a person has open holds it, and no commit of ours wants it.
    """
    for name in _LOCKS:
        with suppress(OSError):
            if time.time() - (folder / name).stat().st_mtime > _DEAD_S:
                (folder / name).unlink()


def _end(child: subprocess.Popen[bytes]) -> None:
    """With all that it started, but for what made itself a session of its own: nobody waits for that."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def refuse_old(git: Git) -> None:
    """Raises UnavailableError where git is missing, or too old."""
    told = git.run("--version").decode(errors="replace").strip()
    found = re.search(r"(\d+)\.(\d+)", told)
    if found is None or tuple(map(int, found.groups())) < OLDEST:
        raise UnavailableError(f"git {OLDEST[0]}.{OLDEST[1]} or later is wanted, and this is {told or 'no git'}")


def make_repository(folder: Path, *, bare: bool) -> None:
    """An empty one, whole or not at all; without the hooks and the configuration that `git init` copies from others.

    Raises:
        UnavailableError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        for name in ("objects", "refs/heads", "info"):
            (partial / name).mkdir(parents=True)
        (partial / "HEAD").write_text(f"ref: {BRANCH}\n")
        (partial / "config").write_text(_SKELETON.format(bare=str(bare).lower()))
        (partial / OURS).write_text("made by drift_pipeline\n")
        partial.rename(folder)
    except OSError as error:
        raise UnavailableError(f"{folder}: no repository can be made: {error.strerror}") from error


def _plain(said: bytes) -> str:
    """One line, without the name and password of an address."""
    text = " ".join(said.decode(errors="replace").split())
    return re.sub(r"://[^/@\s]*@", "://", text)[:_TOLD]
