"""A home, to read: how its models stand, and what became of them, as frames. Nothing in it is made or changed.

```python
home = dp.open_home("live")
home.models()
home.decisions("fraud").filter(pl.col("action") == "retrain")
```
Times are UTC. A home that is in use is read as it stands at each call. Errors are those of `drift_pipeline.errors`:
`InputError` for a folder that is no home, or a model that it does not know, `IntegrityError` for one that is damaged.
"""

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.clock import MINUTE, Window, parse_duration, system_clock
from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.detection.judging.verdict import told_waiting
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.chain import Chain, chain_of, known_versions
from drift_pipeline.loop import chronicle
from drift_pipeline.loop.home import models_of, reading
from drift_pipeline.loop.monitoring.kpi_history import read_kpis
from drift_pipeline.loop.status import Standing, standing
from drift_pipeline.settings import FILES_ALONE, Settings
from drift_pipeline.telemetry.lake import Lake

_TIME, _TEXTS = pl.Datetime("us", "UTC"), pl.List(pl.String)
_COUNTS = ("landed", "joined", "judged")
_MODELS: Mapping[str, Any] = {
    **{"model": pl.String, "answers": pl.String, "verdict": pl.String, "judged": pl.Int64, "configured": pl.Int64},
    **{"ticked_at": _TIME, "waits": _TEXTS, "incident": pl.String, "acknowledged_by": pl.String},
    **{"candidate": pl.String, "phase": pl.String, "phase_since": _TIME, "weight": pl.Int64},
    **{"paused_by": pl.String, "maintenance_to": _TIME, **{f"labels_{name}": pl.Int64 for name in _COUNTS}},
}
_VERSIONS: Mapping[str, Any] = {
    **{"version": pl.String, "digest": pl.String, "trained_at": _TIME, "rows": pl.Int64, "decision": pl.String},
    **{"gates": pl.String, "phase": pl.String, "since": _TIME, "answers_from": _TIME, "answers_to": _TIME},
    **{"approved_by": _TEXTS, "card": pl.String},
}
_INCIDENTS: Mapping[str, Any] = {
    **{"key": pl.String, "opened_at": _TIME, "kpis": _TEXTS, "features": _TEXTS, "why": pl.String},
    **{"closed_at": _TIME, "closed_by": pl.String, "acknowledged_by": pl.String},
}
_DECISIONS: Mapping[str, Any] = {
    **{"at": _TIME, "decision": pl.String, "trigger": pl.String, "action": pl.String, "incident": pl.String},
    **{"reasons": _TEXTS, "asked_by": pl.String, "asked_for": pl.String},
}
_AUDIT: Mapping[str, Any] = {
    **{"seq": pl.Int64, "at": _TIME, "actor": pl.String, "event": pl.String, "subject": pl.String},
    **{"details": pl.String, "hash": pl.String},
}


class Home:
    """What `open_home` opens. In a notebook it shows its models."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def models(self) -> pl.DataFrame:
        """One row a model: how it stands.

        `model, answers` (the version), `verdict, judged, configured` (numbers of KPIs), `ticked_at, waits` (why the
        other KPIs are not judged, and when they can be), `incident` (the open one's key) and `acknowledged_by`,
        `candidate, phase, phase_since` of its last rollout, `weight` (percent of the traffic), `paused_by`,
        `maintenance_to`, `labels_landed, labels_joined, labels_judged`. Texts are "" where there is nothing to tell.
        """
        rows = [
            {
                **{name: getattr(one, name) for name in _MODELS if hasattr(one, name)},
                **{f"labels_{name}": one.labels.get(name) for name in _COUNTS},
                "answers": one.champion,
                "waits": told_waiting(one.not_judged),
            }
            for one in self.standings()
        ]
        return pl.DataFrame(rows, schema=_MODELS)

    def standings(self) -> list[Standing]:
        """How each model that is adopted here stands, by name; of those of DRIFT_MODELS also where it is not."""
        now, specs = system_clock().now(), models_of(self.settings)
        with reading(self.settings) as store:
            names = {*_adopted(store), *(specs if self.settings.models else ())}
            return [standing(store, name, specs.get(name), now) for name in sorted(names)]

    def standing(self, model: str) -> Standing:
        """How one model stands. Raises InputError for one that this home does not know."""
        found = {one.model: one for one in self.standings()}
        if model not in found:
            raise _unknown(model, found)
        return found[model]

    def versions(self, model: str) -> pl.DataFrame:
        """One row a version, in the order in which they were trained.

        `version, digest` (of its bundle, "" where another system answers), `trained_at, rows, decision` (what it was
        trained for), `gates` ("passed", or those that failed), `phase` (champion, retired, trained, proven, rejected,
        outdated, or that of its last rollout) and `since`, `answers_from, answers_to` (its last reign), `approved_by`
        (labels), `card` (its path; null where there is none).
        """
        with self._records(model) as records:
            found = chronicle.versions(records)
        rows = [
            {**asdict(one), "approved_by": [*one.approved_by.values()], "card": self._card(model, one.version)}
            for one in found
        ]
        return pl.DataFrame(rows, schema=_VERSIONS)

    def kpis(self, model: str, since: datetime | str | timedelta | None = None) -> pl.DataFrame:
        """One row a tick and KPI, oldest first: the KPI history.

        `at, model, version` (the champion then), `name, verdict, window` (such as 1d), `reason, value, threshold,
        bound` (what decided; all in the unit of the KPI), `n` (rows or labels), `worst` (columns).

        Args:
            since: a time (without a zone: UTC), or how long ago, such as "30d"; None = all that is kept.
        """
        now = system_clock().now()
        with reading(self.settings) as store:
            if model not in (adopted := _adopted(store)):
                raise _unknown(model, adopted)
            first = next(iter(store.records(about=model)), None)
            begun = _moment(since, now) or (_at(first) if first else now)
            ticked = standing(store, model, None, now).ticked_at or now
            end = max(begun, now, ticked) + MINUTE  # a replay may end, and a drill stand, after today
            return read_kpis(store, Lake(self.settings.lake / model, source="home"), model, Window(begun, end))

    def incidents(self, model: str) -> pl.DataFrame:
        """One row an incident, oldest first.

        `key, opened_at, kpis, features` (by which it last grew), `why` (when it opened), `closed_at` (null while it is
        open), `closed_by` (loop, a person, or the version whose reference ended it), `acknowledged_by`.
        """
        with self._records(model) as records:
            return pl.DataFrame([asdict(one) for one in chronicle.incidents(records)], schema=_INCIDENTS)

    def decisions(self, model: str) -> pl.DataFrame:
        """One row a decision of the policy, oldest first.

        `at, decision, trigger, action, incident, reasons, asked_by` (policy, or who asked) and `asked_for` (why).
        """
        with self._records(model) as records:
            rows = [{**asdict(one), "reasons": [*one.reasons]} for one in chronicle.decisions(records)]
        return pl.DataFrame(rows, schema=_DECISIONS)

    def chain(self, model: str, version: str | None = None) -> Chain:
        """How a version came about: breach, incident, decision, data, candidate, gates, approvals, rollout, outcome.

        Args:
            version: its name or its digest; None = the one that answers.

        Raises:
            InputError: there is no such version.
        """
        with self._records(model) as records:
            said = list(records)
            answers = [one.version for one in chronicle.versions(said) if one.phase == chronicle.CHAMPION]
            with reading(self.settings) as store:
                return chain_of(said, model, version or answers[-1], known_versions(store, model))

    def audit(
        self,
        model: str | None = None,
        *,
        since: datetime | str | timedelta | None = None,
        actor: str | None = None,
        event: str | None = None,
    ) -> pl.DataFrame:
        """One row a record of the audit, oldest first: `seq, at, actor, event, subject, details` (JSON), `hash`.

        Args:
            since: those of that time or later, or of the last while, such as "30d".
            event: such as "rollout.canary", or "rollout" for all of them.
        """
        rows = [
            {**{name: getattr(one, name) for name in _AUDIT}, "at": _at(one), "details": json.dumps(dict(one.details))}
            for one in self.records(model, since=since, actor=actor, event=event)
        ]
        return pl.DataFrame(rows, schema=_AUDIT)

    def records(
        self,
        model: str | None = None,
        *,
        since: datetime | str | timedelta | None = None,
        actor: str | None = None,
        event: str | None = None,
    ) -> list[AuditRecord]:
        """The records that `audit` has one row of each."""
        wanted = partial(_is_wanted, since=_moment(since, system_clock().now()), actor=actor, event=event)
        if model is not None:
            with self._records(model) as records:
                return [*filter(wanted, records)]
        with reading(self.settings) as store:
            return [*filter(wanted, store.records())]

    @contextmanager
    def _records(self, model: str) -> Iterator[Iterable[AuditRecord]]:
        """Those of a model that was adopted here."""
        with reading(self.settings) as store:
            if model not in (adopted := _adopted(store)):
                raise _unknown(model, adopted)
            try:
                yield store.records(about=model)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                told = f"a record of {model} has not the form of its event ({error!r}); drift audit verify tells more"
                raise IntegrityError(f"{self.settings.home}: {told}") from error

    def _card(self, model: str, version: str) -> str | None:
        path = self.settings.evidence / model / version / "card.html"
        return str(path) if path.is_file() else None

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(str(self.settings.home))}</b></p>{self.models()._repr_html_()}"

    def __repr__(self) -> str:
        with reading(self.settings) as store:
            return f"<Home {self.settings.home}: {', '.join(_adopted(store)) or 'no model is adopted'}>"


def open_home(path: str | Path | None = None, models: str | Path | None = None) -> Home:
    """Open a home, or what a replay left, to read it.

    Args:
        path: its folder; None = DRIFT_HOME, or `drift_home`.
        models: the folder of specs; None = DRIFT_MODELS. They tell weights, and which models are not adopted yet.

    Raises:
        InputError: there is no home.
    """
    given: dict[str, Any] = ({} if path is None else {"home": Path(path), **FILES_ALONE}) | (
        {} if models is None else {"models": Path(models)}
    )
    home = Home(Settings(**given))
    with reading(home.settings):
        return home


def _adopted(store: ControlReader) -> Sequence[str]:
    return [record.key for record in store.find("model")]


def _moment(since: datetime | str | timedelta | None, now: datetime) -> datetime | None:
    if isinstance(since, str):
        try:
            since = parse_duration(since)
        except ValueError as error:
            raise InputError(f"since: {error}") from error
    if isinstance(since, timedelta):
        return now - since
    return since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since


def _is_wanted(record: AuditRecord, since: datetime | None, actor: str | None, event: str | None) -> bool:
    named = event is None or record.event == event or record.event.startswith(f"{event}.")
    return named and actor in (None, record.actor) and (since is None or _at(record) >= since)


def _at(record: AuditRecord) -> datetime:
    return datetime.fromisoformat(record.at)


def _unknown(model: str, known: Iterable[str]) -> InputError:
    told = ", ".join(known) or "none, for no model is adopted here; run drift adopt MODEL --data HISTORY"
    return InputError(f"there is no model {model!r} in this home; there are: {told}")
