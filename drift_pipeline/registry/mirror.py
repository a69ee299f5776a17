"""What a mirror of the registry is told, in plain facts: runs with what they used and made, and how versions stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """Files under one name; the same files again are the same version of it.

    files: paths by name. texts: files that lie nowhere. aliases: what the version is called from now on, and no other
    version of the name; the first one is of its digest and the second, if any, of its version, and they stay.
    """

    name: str
    kind: str
    files: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Run:
    """Something that was done. `name` is unique in the home, and sorts runs as they were done.

    history: its steps. uses, makes: lineage.
    """

    name: str
    kind: str
    title: str
    group: str
    config: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    uses: Sequence[Artifact] = ()
    makes: Sequence[Artifact] = ()


@dataclass(frozen=True)
class Standing:
    """What changed about a version that was made before.

    metadata: keys to set, those of mappings one by one. link: it may be shipped, and belongs into a collection.
    """

    name: str
    digest: str
    kind: str = "model"
    add: Sequence[str] = ()
    drop: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    link: bool = False


@dataclass(frozen=True)
class Use:
    """An edge of lineage: a run that used what an alias names."""

    run: str
    name: str
    alias: str


@dataclass(frozen=True)
class Made:
    """An artifact, by its name and an alias that stays."""

    name: str
    alias: str


def made_by(run: Run) -> list[Made]:
    """What comes with a run: what it makes, and documents that it used."""
    with_it = [*run.makes, *(one for one in run.uses if one.texts)]
    return [Made(one.name, one.aliases[0]) for one in with_it]


def anew(run: Run) -> Run:
    """To be sent again later than others: what else its artifacts were called may be another version's by now."""
    makes, uses = ([replace(one, aliases=one.aliases[:2]) for one in of] for of in (run.makes, run.uses))
    return replace(run, makes=makes, uses=uses)


def uses_of(run: Run) -> list[Use]:
    """Of what lies in files, and so is made by another run."""
    return [Use(run.name, one.name, one.aliases[0]) for one in run.uses if one.files]


def digest_alias(digest: str) -> str:
    """An alias cannot have a colon."""
    return digest.replace(":", "-")


def merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """`before` with the keys of `after`, those of mappings one by one.

    >>> merged({"a": {"x": 1}, "b": 1}, {"a": {"y": 2}, "b": 3})
    {'a': {'x': 1, 'y': 2}, 'b': 3}
    """
    both = {key for key in after if isinstance(before.get(key), Mapping) and isinstance(after[key], Mapping)}
    return {**before, **{key: merged(before[key], after[key]) if key in both else after[key] for key in after}}


def folded(standings: Iterable[Standing]) -> list[Standing]:
    """One of each version, as if all of them had been told in order."""
    found: dict[tuple[str, str], Standing] = {}
    for new in standings:
        for key, other in found.items():  # an alias is of one version
            if other.name == new.name:
                found[key] = replace(other, add=[alias for alias in other.add if alias not in new.add])
        old = found.pop((new.name, new.digest), Standing(new.name, new.digest, new.kind))
        add = [*(alias for alias in old.add if alias not in (*new.drop, *new.add)), *new.add]
        drop = [*(alias for alias in old.drop if alias not in (*new.add, *new.drop)), *new.drop]
        found[(new.name, new.digest)] = replace(
            old, add=add, drop=drop, metadata=merged(old.metadata, new.metadata), link=old.link or new.link
        )
    return list(found.values())
