"""The invariants I1 to I7 of the design, in the form in which a home can be asked for them."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import polars as pl

from drift_pipeline.clock import DAY, Window
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.errors import DriftError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop.loop import Loop
from drift_pipeline.loop.state import Version
from drift_pipeline.rollout.plan import Phase
from drift_pipeline_tests.faults.world import NAME, Process, Site

_NEXT: dict[str | None, tuple[str, ...]] = {
    None: (Phase.SHADOW,),
    Phase.SHADOW: (Phase.AWAITING_APPROVAL, Phase.ROLLED_BACK),
    Phase.AWAITING_APPROVAL: (Phase.CANARY, Phase.ROLLED_BACK),
    Phase.CANARY: (Phase.FULL, Phase.ROLLED_BACK),
    Phase.FULL: (Phase.ROLLED_BACK,),
    Phase.ROLLED_BACK: (),
}


def broken(site: Site, processes: Sequence[Process], *, rows: bool = True) -> list[str]:
    """What does not hold, each with its number; nothing may be under way. `rows`: also count what is in the lake."""
    fuses = [process.fuses for process in processes]
    laid = [fuse.set for fuse in fuses]
    for fuse in fuses:
        fuse.set = {}
    try:
        return list(_broken(site, processes, rows))
    except DriftError as error:
        return [f"I7 the loop cannot be taken up: {type(error).__name__}: {error}"]
    finally:
        for fuse, before in zip(fuses, laid, strict=True):
            fuse.set = before


def _broken(site: Site, processes: Sequence[Process], rows: bool) -> Iterator[str]:
    twin = site.twin()
    report = twin.look()
    kept = [process.loop for process in processes]
    for loop in kept:
        loop.catch_up()
    reports = [loop.look() for loop in kept]
    records = site.records()
    yield from _one_champion(site, [twin, *kept])
    yield from _approved(site, records)
    yield from _audited(site, records)
    yield from _way_back(site)
    if rows:
        yield from _counted(site, [twin, *kept])
    yield from _undecided(site, report, records)
    for loop, of in zip(kept, reports, strict=True):
        said, before = told(twin, report), told(loop, of)
        for name in (name for name in said if said[name] != before[name]):
            yield f"I7 of {name} a loop made anew says {_difference(said[name], before[name])}"


def _difference(anew: object, kept: object) -> str:
    """The first place in which they differ."""
    if isinstance(anew, list) and isinstance(kept, list) and len(anew) == len(kept):
        return next(_difference(*pair) for pair in zip(anew, kept, strict=True) if pair[0] != pair[1])
    if isinstance(anew, dict) and isinstance(kept, dict):
        names = [name for name in anew if anew[name] != kept.get(name)]
        of = f"{anew.get('name')} {anew.get('window')} n={anew.get('n')}: "
        return of + ", ".join(f"{name} {anew[name]!r}, the one that went on {kept.get(name)!r}" for name in names[:2])
    return f"{anew!r}, the one that went on {kept!r}"


def told(loop: Loop, report: Report) -> dict[str, object]:
    incident = loop.incident
    return {
        **{f"kpi {name}": kpi.to_json() for name, kpi in report.kpis.items()},
        "findings": [finding.to_json() for finding in report.features],
        "champion": loop.champion.to_json() if loop.champion else None,
        "rollout": loop.rollouts.status.to_json() if loop.rollouts.status else None,
        "retrains": loop.trainings.done.to_json(),
        "incident": (incident.key, incident.open, incident.reference),
        "labelled": loop.monitor.labelled_since(loop.monitor.baseline_at),
        "rows": loop.monitor.rows_counted(),
    }


def _one_champion(site: Site, loops: Sequence[Loop]) -> Iterator[str]:
    digest = site.route.champion["digest"]
    if odd := {loop.champion.digest if loop.champion else None for loop in loops} - {digest}:
        yield f"I1 the store's champion is {digest}, loops monitor {odd}"


def _approved(site: Site, records: Sequence[AuditRecord]) -> Iterator[str]:
    accepted: set[str] = set()
    for record in records:
        if record.event == "approval.accepted":
            accepted.add(record.digests["bundle"])
        if record.event in ("rollout.canary", "rollout.full"):
            digest = record.digests["candidate"]
            if digest not in accepted or digest not in site.approved:
                yield f"I2 {digest} is in {record.event} without an approval"


def _audited(site: Site, records: Sequence[AuditRecord]) -> Iterator[str]:
    found = verify_home(site.settings)
    if not found.ok:
        yield f"I3 the audit does not verify: {found.reason}"
    phases: dict[str, str] = {}
    for record in records:
        if record.event.startswith("rollout."):
            rollout, phase = str(record.details["rollout_id"]), record.event.removeprefix("rollout.")
            if phase not in _NEXT[phases.get(rollout)]:
                yield f"I3 {rollout} goes from {phases.get(rollout)} to {phase}"
            phases[rollout] = phase
    events = [record.event for record in records]
    back = sum("after full" in str(record.details.get("reason")) for record in records)
    baselines, champions = (
        events.count("reference.frozen") + events.count("reference.restored"),
        events.count("rollout.full"),
    )
    if baselines > 1 + champions + back:
        yield f"I3 baselines were set {baselines} times for {1 + champions + back} champions"
    yield from _promoted(records)


def _promoted(records: Sequence[AuditRecord]) -> Iterator[str]:
    """Each rollout that is full is told as a promotion, once, by the next tick; one that went back before it is not."""
    full = ""
    for record in records:
        if record.event == "rollout.full":
            if full:
                yield f"I3 the promotion of {full} was never told"
            full = str(record.details["rollout_id"])
        elif record.event == "rollout.rolled_back" and record.details["rollout_id"] == full:
            full = ""
        elif record.event == "model.promoted":
            if not full:
                yield f"I3 a promotion to {record.details['version']} is of no rollout"
            full = ""
    if full:
        yield f"I3 the promotion of {full} was never told"


def _way_back(site: Site) -> Iterator[str]:
    route = site.route
    for name, target in (("champion", route.champion), ("rollback target", route.previous)):
        try:
            if target is not None:
                Version.load(target, site.registry)
        except DriftError as error:
            yield f"I4 the {name} cannot be loaded: {error}"


def _counted(site: Site, loops: Sequence[Loop]) -> Iterator[str]:
    lake, sent = site.lake(), site.sent
    served = lake.read("predictions", site.landed())
    ids = served["_id"].to_list() if served.height else []
    late = lake.read("late", Window(site.began - 10 * DAY, site.clock.now()))
    known = lake.read("outcomes", site.landed())
    labels = set(known["_id"]) - site.before if known.height else set()  # the history's come for a while yet
    told = known.filter(pl.col("_id").is_in(labels)) if labels else known.clear()
    if again := told.height - told.unique().height:
        yield f"I5 {again} outcomes landed twice"
    for what, here, expected in (
        ("predictions", ids, sent.landing),
        ("late rows", late["_id"].to_list() if late.height else [], sent.late),
        ("labels", sorted(labels), sent.labels),
    ):
        if len(here) != len(set(here)):
            yield f"I5 {len(here) - len(set(here))} {what} landed twice"
        if lost := expected - set(here):
            yield f"I5 {len(lost)} {what} are lost: {sorted(lost)[:3]}"
        if alien := set(here) - expected:
            yield f"I5 {len(alien)} {what} were never sent: {sorted(alien)[:3]}"
    for loop in loops:
        monitor = loop.monitor
        ours = served.filter(
            (pl.col("_version") == monitor.champion.name) & (pl.col("_time") >= monitor.baseline_at) & _judged(site)
        )
        labelled = ours.filter(pl.col("_id").is_in(labels)).height
        for name, is_, should in (
            ("rows", monitor.rows_counted(), ours.height),
            ("labelled rows", monitor.labelled_since(monitor.baseline_at), labelled),
        ):
            if is_ != should:
                yield f"I5 the monitor of {monitor.champion.name} counts {is_} {name} of {should}"


def _judged(site: Site) -> pl.Expr:
    """Rows that no maintenance takes out."""
    outside = pl.lit(True)
    for record in site.records():
        if record.event == "maintenance.announced":
            start, end = (datetime.fromisoformat(str(record.details[name])) for name in ("from", "to"))
            outside = outside & ~pl.col("_time").is_between(start, end, closed="left")
    return outside


def _undecided(site: Site, report: Report, records: Sequence[AuditRecord]) -> Iterator[str]:
    for name, kpi in report.kpis.items():
        if kpi.n == 0 and kpi.verdict is Verdict.OK:
            yield f"I6 {name} is OK on no rows"
    if odd := [found.name for found in report.features if not found.n_effective and found.drift is not None]:
        yield f"I6 columns without a row are judged: {', '.join(odd)}"
    for record in records:
        silent = record.event == "decision.made" and "policy unavailable" in str(record.details["reasons"])
        if silent and record.details["action"] != "ignore":
            yield f"I6 {record.details['decision']} was decided by nobody: {record.details['action']}"


def unpaged(site: Site) -> list[str]:
    """At the end, with the channel up: what was never paged of all that has to be."""
    received, missing = {message.id for message in site.pager.received}, []
    for record in site.records():
        key = {"incident.opened": "key", "rollout.rolled_back": "rollout_id"}.get(record.event)
        if key and f"{NAME}:{record.details[key]}:{record.event}" not in received:
            missing.append(f"{record.event} {record.details[key]}")
    return missing
