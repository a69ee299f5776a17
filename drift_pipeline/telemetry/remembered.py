"""What is in memory of a lake's rows: whose the ids of predictions are, and what was told of them."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

import polars as pl

from drift_pipeline.telemetry.event import EXTERNAL

Key = tuple[str, str, datetime | None]  # of an outcome: id, who told it, and when as its producer said
Labels = tuple[float, ...]


class Owned(Protocol):
    """What tells a prediction, or a row of one, from others."""

    @property
    def id(self) -> str: ...
    @property
    def time(self) -> datetime: ...
    @property
    def whose(self) -> str: ...
    @property
    def nobodys(self) -> str: ...


class Owner(NamedTuple):
    """A row, as `Prediction` says whose it is."""

    id: str
    time: datetime
    whose: str
    nobodys: str


class Owners:
    """Who has a prediction of which id."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, datetime]] = {}
        self._others: dict[tuple[str, str], datetime] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._others)

    def has(self, one: Owned) -> bool:
        """An id that was landed under nobody's name, such as by another way than the gateway, is whoever's comes."""
        first = self._first.get(one.id)
        if first is None:
            return False
        return first[0] in (one.whose, one.nobodys) or (one.id, one.whose) in self._others

    def add(self, one: Owned) -> bool:
        """Whether its id is another's as well."""
        if self._first.setdefault(one.id, (one.whose, one.time))[0] == one.whose:
            return False
        self._others[one.id, one.whose] = one.time
        return True

    def remove(self, one: Owned) -> bool:
        """As if it had not been added; whether its id was another's as well."""
        if self._others.pop((one.id, one.whose), None) is not None:
            return True
        if one.id in self._first and self._first[one.id][0] == one.whose:
            del self._first[one.id]
        return False

    def forget(self, before: datetime) -> None:
        self._first = {name: seen for name, seen in self._first.items() if seen[1] >= before}
        self._others = {key: time for key, time in self._others.items() if time >= before}


class Tellings:
    """What each producer told of which prediction, in order."""

    def __init__(self) -> None:
        self._said: dict[Key, tuple[Labels, datetime]] = {}

    def __len__(self) -> int:
        return len(self._said)

    def of(self, key: Key) -> Labels:
        return self._said[key][0] if key in self._said else ()

    def add(self, key: Key, labels: Labels, time: datetime) -> None:
        self._said[key] = (*self.of(key), *labels), time

    def replace(self, key: Key, labels: Labels, time: datetime) -> None:
        self._said[key] = labels, time

    def remove(self, key: Key, label: float) -> None:
        """As if it had not been added last."""
        if self.of(key)[-1:] == (label,):
            labels, time = self._said.pop(key)
            if labels[:-1]:
                self._said[key] = labels[:-1], time

    def forget(self, before: datetime) -> None:
        self._said = {key: said for key, said in self._said.items() if said[1] >= before}


def is_repeat(key: Key, label: float, said: Labels) -> bool:
    """What was told with the same time, or, with no time of its own, last."""
    return label in (said[-1:] if key[2] is None else said)


def owners(rows: pl.DataFrame) -> Iterable[Owner]:
    """Of the lake's predictions, in their order."""
    for row in rows.iter_rows(named=True):
        nobodys = f"/{EXTERNAL}" if row["_route"] == EXTERNAL else ""
        yield Owner(row["_id"], row["_time"], (row.get("_producer") or "") + nobodys, nobodys)


def told(rows: pl.DataFrame) -> Iterable[tuple[Key, float, datetime]]:
    """Of the lake's outcomes, in their order: whose label is of which time, of observation where none was told."""
    for row in rows.iter_rows(named=True):
        told_at = row.get("_told_at")
        yield (row["_id"], row.get("_producer") or "", told_at), row["_label"], told_at or row["_observed_at"]
