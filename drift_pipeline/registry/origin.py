"""Which code made something: the package's version, and its git commit where that is known."""

import json
import os
import subprocess
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path

_PACKAGE = "drift-pipeline"
_PATIENCE_S = 5.0


@cache
def code_of() -> dict[str, str | None]:
    """Of the code that runs. `commit` ends in `-dirty` where files of the checkout were changed since; null where it is
    neither a git checkout nor was installed from one."""
    return {
        "package": _PACKAGE,
        "version": distribution(_PACKAGE).version,
        "commit": _checked_out() or _installed(),
    }


def libraries() -> dict[str, str]:
    """The versions of what a stored pipeline was made by, and has to be loaded by."""
    return {library: version(library) for library in ("scikit-learn", "skops", _PACKAGE)}


def _checked_out() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of a hook
    env["GIT_OPTIONAL_LOCKS"] = "0"  # nothing is written
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_PATIENCE_S, env=env)
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout that is not ours to read
        return None
    return told.stdout.strip() or None


def _installed() -> str | None:
    """PEP 610: what pip notes of a package that it installed from a repository."""
    told = json.loads(distribution(_PACKAGE).read_text("direct_url.json") or "{}")
    return (told.get("vcs_info") or {}).get("commit_id")
