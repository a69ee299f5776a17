"""Commits that are signed as SSH signs, made of what is given: neither a working copy nor an index is asked."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from drift_pipeline.control.git import BRANCH, Git
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.sshsig import principal, ssh_signature
from drift_pipeline.errors import UnavailableError

_NEXT = "refs/drift/next"  # what is to be signed, for as long as that takes
_NONE = "0" * 40


def commit(
    git: Git, files: Mapping[str, bytes | None], signer: Signer, shown: PublicKey, words: str, at: datetime
) -> str:
    """One more commit on the branch, which is moved in one step or not at all; its id.

    The same files, signer, words, time and parent give the same id. Where the files are in the branch already, nothing
    is made and the branch's own id comes back.

    Args:
        files: by path; None = it is there no more.
        shown: the signer's key, under the name that it has in `allowed_signers`.

    Raises:
        UnavailableError: git failed, or somebody else moved the branch meanwhile.
    """
    who = f"{_name(shown)} <{principal(shown)}> {int(at.timestamp())} +0000"
    head, before, tree = _tree(git, files, who, words)
    made = head if tree == before else _signed(git, tree, head, who, signer, words)
    with suppress(UnavailableError):  # what people see who look there: status says what is not committed
        git.run("read-tree", made)
    return made


def _signed(git: Git, tree: str, head: str, who: str, signer: Signer, words: str) -> str:
    lines = [f"tree {tree}", *([f"parent {head}"] if head else []), f"author {who}", f"committer {who}"]
    unsigned = "\n".join([*lines, "", words, ""]).encode(errors="replace")
    signed = ssh_signature(signer, unsigned, "git").replace("\n", "\n ")
    content = "\n".join([*lines, f"gpgsig {signed}", "", words, ""]).encode(errors="replace")
    made = git.run("hash-object", "-t", "commit", "-w", "--stdin", given=content).decode().strip()
    moved = f"update {BRANCH} {made} {head or _NONE}\ndelete {_NEXT}\n"
    git.run("update-ref", "-m", "drift", "--stdin", given=moved.encode())
    return made


def _tree(git: Git, files: Mapping[str, bytes | None], who: str, words: str) -> tuple[str, str, str]:
    """The branch's commit and its tree ("" where there is none), and the tree with the files."""
    parts = [f"feature done\ncommit {_NEXT}\ncommitter {who}\n".encode(), _data(words.encode(errors="replace"))]
    parts += [f"from {BRANCH}^0\n".encode()] if begun(git) else []
    for path, content in sorted(files.items()):
        told = f"M 100644 inline {_quoted(path)}\n" if content is not None else f"D {_quoted(path)}\n"
        parts += [told.encode(), *([_data(content)] if content is not None else [])]
    git.run("fast-import", "--force", "--quiet", given=b"".join([*parts, b"done\n"]))
    asked = f"{BRANCH}\n{BRANCH}^{{tree}}\n{_NEXT}^{{tree}}\n"
    told = git.run("cat-file", "--batch-check=%(objectname)", given=asked.encode()).decode()
    head, before, tree = ("" if line.endswith(" missing") else line for line in told.splitlines())
    return head, before, tree


def begun(git: Git) -> bool:
    """Whether the branch has a commit."""
    with suppress(OSError):
        return (git.folder / BRANCH).exists() or f" {BRANCH}\n" in (git.folder / "packed-refs").read_text()
    return False


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    """As git reads a path of any bytes."""
    plain = [chr(byte) if re.match(rb"[\w./-]", bytes([byte])) else f"\\{byte:03o}" for byte in _bytes(path)]
    return f'"{"".join(plain)}"'


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")


def _name(key: PublicKey) -> str:
    """Whose it is, without what ends a name in git."""
    return " ".join(re.sub(r"[<>\x00-\x1f.,:;\"'\\]+", " ", key.label or "").split()) or "unlabelled"
