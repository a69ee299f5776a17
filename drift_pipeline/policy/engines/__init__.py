"""Engines that evaluate the policy: their Protocol, and the Rego text they evaluate."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drift_pipeline.errors import InputError

PACKAGED_BUNDLE = Path(__file__).parent.parent / "bundle"


class PolicyEngine(Protocol):
    """Answers `data.drift.decision` for one input document.

    Obligations of every engine (`drift_pipeline_tests/contracts/test_policy_engine.py` holds them to it):

    - It decides by the rules that `digest` names, also after the files on disk have changed.
    - `evaluate` is pure and may be repeated: the same document gives the same answer, nothing is remembered.
    - It returns the decision as the policy gave it and judges nothing; `decide()` reads it strictly.
    - An undefined decision, a timeout, a dead or babbling backend raise UnavailableError, never a default.
    - It never waits without an end, and several threads may ask it at once.
    """

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over the rules in use; known, and never failing, from the moment the engine is made."""

    def evaluate(self, facts: Mapping[str, object]) -> Mapping[str, object]: ...


@dataclass(frozen=True)
class Bundle:
    """The Rego files that take part in decisions, name to text, read once; tests are left out."""

    modules: Mapping[str, str]

    @property
    def digest(self) -> str:
        """sha256 over each file's name and bytes, sorted by name, each with its length in front."""
        hasher = hashlib.sha256()
        for name, text in sorted(self.modules.items()):
            for part in (name.encode(), text.encode()):
                hasher.update(len(part).to_bytes(8, "big") + part)
        return f"sha256:{hasher.hexdigest()}"


def read_bundle(folder: Path = PACKAGED_BUNDLE) -> Bundle:
    """Read every `*.rego` of the folder but `*_test.rego`.

    Raises:
        InputError: the folder has no such file, or one that cannot be read as UTF-8.
    """
    paths = [path for path in sorted(folder.glob("*.rego")) if not path.name.endswith("_test.rego")]
    if not paths:
        raise InputError(f"{folder}: no policy here: a bundle is a folder with .rego files")
    try:
        return Bundle({path.name: path.read_bytes().decode("utf-8") for path in paths})
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}: the policy cannot be read: {error}") from error
