"""Engines that evaluate the policy: their Protocol, and the Rego text they evaluate."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from drift_pipeline.control.canonical import canonical
from drift_pipeline.errors import InputError

PACKAGED_BUNDLE = Path(__file__).parent.parent / "bundle"
DECISION, RELEASE = "decision", "release"  # rules of the package `drift`
DATA, ROOT = "data.json", "policy"  # a bundle's data, and its only key, so that no rule's answer is taken for data


@dataclass(frozen=True)
class Answer:
    """What a rule gave, by the rules that `digest` names.

    `by` is for the audit: the engine and, of a server, the decision's id there and the bundle's revision.
    """

    value: Mapping[str, object]
    digest: str
    by: Mapping[str, str] = field(default_factory=dict)


class PolicyEngine(Protocol):
    """Answers a rule of `data.drift` for one input document.

    Obligations of every engine (`drift_pipeline_tests/contracts/test_policy_engine.py` holds them to it):

    - The rules that an answer's digest names are those that gave it, also after the files on disk have changed.
    - `evaluate` is pure and may be repeated: the same document gives the same value, nothing is remembered.
    - It returns the value as the policy gave it and judges nothing; `decide()` and `may_release()` read it strictly.
    - An undefined rule, a timeout, a dead or babbling backend raise UnavailableError, never a default.
    - It never waits without an end, and several threads may ask it at once.
    """

    @property
    def digest(self) -> str | None:
        """`sha256:<hex>` over the rules in use, without asking anybody; None where that is not known."""

    def evaluate(self, facts: Mapping[str, object], rule: str = DECISION) -> Answer: ...


@dataclass(frozen=True)
class Bundle:
    """The files that take part in decisions, name to text, read once; tests are left out. Data is canonical JSON."""

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
    """Read every `*.rego` of the folder but `*_test.rego`, and its `data.json` where there is one.

    Raises:
        InputError: the folder has no such file, or one that cannot be read: UTF-8, data with the one key `policy`.
    """
    paths = [path for path in sorted(folder.glob("*.rego")) if not path.name.endswith("_test.rego")]
    if not paths:
        raise InputError(f"{folder}: no policy here: a bundle is a folder with .rego files")
    try:
        modules = {path.name: path.read_bytes().decode("utf-8") for path in paths}
        if (data := folder / DATA).is_file():
            modules[DATA] = bundle_data(json.loads(data.read_bytes()))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{folder}: the policy cannot be read: {error}") from error
    return Bundle(modules)


def bundle_data(found: object) -> str:
    """The data of a bundle as its text; ValueError where it has not `policy` for its only key."""
    if not isinstance(found, dict) or list(found) != [ROOT]:
        raise ValueError(f"{DATA} is an object with the one key {ROOT!r}")
    return canonical(found).decode()
