"""Commands on recorded histories: nothing of them touches a live model."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.options import INCONCLUSIVE, INTERRUPTED, NEGATIVE, OK, Duration, Moment, example
from drift_pipeline.cli.telling import bar, say
from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import InputError

if TYPE_CHECKING:
    from drift_pipeline.settings import Settings


@click.command(epilog=example("drift demo --overwrite", "drift demo --live"))
@click.option("--home", type=click.Path(path_type=Path), help="A new or empty folder; else DRIFT_HOME, or drift_home.")
@click.option("--live", is_flag=True, help="With gateway, capture and Dagster, on a clock that is 120 times as fast.")
@click.option("--end", is_flag=True, help="With --live: end with the last act, and do not wait for Ctrl-C.")
@click.option("--port", default=8080, show_default=True, help="With --live: of the gateway.")
@click.option("--dagster-port", default=3000, show_default=True, help="With --live: of Dagster's UI.")
@click.option("--pages-port", default=8081, show_default=True, help="With --live: of the models' pages.")
@click.option("--seed", type=click.IntRange(min=0, max=2**31), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace what the last demo left there.")
@click.option("--registry", type=click.Choice(["local", "wandb"]), help="Where versions are; else DRIFT_REGISTRY.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the acts and the summary as JSON; the story goes to stderr."
)
def demo(
    home: Path | None,
    live: bool,
    end: bool,
    port: int,
    dagster_port: int,
    pages_port: int,
    seed: int,
    overwrite: bool,
    registry: str | None,
    as_json: bool,
) -> int:
    """Play a synthetic history in three acts: healthy traffic, a change that is made good, a canary rolled back.

    Ends with 0 only if each act ended as it should. It leaves a home to look at, to verify and to open in Dagster.
    With --live the real processes do it in about five minutes, to be watched on their page.
    """
    if live and (as_json or seed):
        raise InputError(f"{'--json' if as_json else '--seed'}: is of the demo without --live; leave it out")
    if end and not live:
        raise InputError("--end: is of the live demo; give --live, too")
    if live:
        os.environ.update({"DRIFT_REGISTRY": registry} if registry else {})  # of the processes that it starts
        return _live(home, (port, dagster_port, pages_port), overwrite, stay=not end)
    from drift_pipeline.evidence.statements import PACKAGED_MODELS
    from drift_pipeline.registry.backends import registry_of
    from drift_pipeline.replays.demo import run_demo, start_of
    from drift_pipeline.replays.output import publish, refuse_out, work_folder, write_summary
    from drift_pipeline.settings import FILES_ALONE, Settings
    from drift_pipeline.spec import read_spec

    settings = Settings(**({"registry_kind": registry} if registry else {}))
    home = (home or settings.home).absolute()
    registry_of(settings)
    refuse_out(home, overwrite, "--home")
    spec = read_spec(PACKAGED_MODELS / "recommendation_v3" / "defs.yaml")
    start = start_of(SystemClock().now())
    with work_folder(home, "--home") as work:
        summary, acts = run_demo(spec, work, start, seed, lambda line: say(line, err=as_json))
        write_summary(work, summary)
        publish(work, home)
    mirrored = _mirrored(settings.model_copy(update={"home": home, **FILES_ALONE}))
    passed = not any(act.fault for act in acts) and _exit_code(summary) == OK
    if as_json:
        told = [{"title": act.title, "from": act.start.isoformat(), "fault": act.fault} for act in acts]
        click.echo(json.dumps({"passed": passed, "acts": told, "summary": summary}, indent=2))
    else:
        click.echo("\n".join([_where(summary, home), *(f"  W&B: {line}" for line in mirrored)]))
    return OK if passed else _exit_code(summary) or NEGATIVE


def _live(home: Path | None, ports: tuple[int, int, int], overwrite: bool, *, stay: bool) -> int:
    import shutil

    from drift_pipeline.serving.demo import MODEL, LiveDemo
    from drift_pipeline.settings import Settings

    home = (home or Settings().home).absolute()
    if home.is_dir() and any(home.iterdir()):
        if not overwrite or not (home / "models" / MODEL / "defs.yaml").is_file():
            raise InputError(f"--home {home}: is not empty; name a new folder, or with --overwrite that of a live demo")
        shutil.rmtree(home)
    return LiveDemo(home, ports, click.echo, stay=stay).run()


def _mirrored(settings: "Settings") -> list[str]:
    """What is to be said of W&B, where versions are mirrored there: a demo writes it, and asks no network."""
    from drift_pipeline.control.store import ControlStore
    from drift_pipeline.loop.mirroring import deliver_mirror, told

    if settings.registry_kind != "wandb":
        return []
    with closing(ControlStore(settings.database_url, SystemClock())) as store:
        deliver_mirror(settings, store, seconds=600, sends=False)
        return told(settings, store)


def _where(summary: dict[str, Any], home: Path) -> str:
    """What to look at in a demo's home."""
    auroc, shown = summary["auroc"], os.path.relpath(home)
    version = summary["reigns"][-1]["version"] if summary["reigns"] else "v1"
    card = Path(shown, "evidence", summary["model"], version, "card.html")
    lines = [
        f"AUROC, mean over months: {auroc['loop']:.3f}, and {auroc['frozen']:.3f} without the loop; "
        f"{summary['audit']['records']} audit records; {summary['wall_seconds']} s",
        f"  the history at a glance  {Path(shown, 'report.html')}",
        f"  the champion's card      {card}",
        f"  the history, verified    drift audit verify --home {shown}",
        f"  the evidence, verified   drift verify {Path(shown, 'evidence')} --keys {Path(shown, 'trust')}",
        f"  the assets in Dagster    DRIFT_HOME={shown} dagster dev",
    ]
    return "\n".join(lines)


@click.command(epilog=example("drift replay history.csv --spec models/fraud/defs.yaml --out out"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--spec", "spec_path", required=True, type=click.Path(path_type=Path), help="The model's YAML.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new or empty folder for the results.")
@click.option("--timestamp", help="The time column, where the spec names none.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="Labels by prediction id, in a file of their own.")
@click.option("--reference", type=Duration(), default="90d", show_default=True, help="The first training span.")
@click.option("--step", type=Duration(), default="1d", show_default=True, help="Time between two ticks.")
@click.option("--from", "start", type=Moment(), help="Leave out what is older.")
@click.option("--to", "end", type=Moment(), help="Leave out what is newer.")
@click.option("--triggers", type=click.Choice(["drift", "schedule", "both"]), default="both", show_default=True)
@click.option("--policy", type=click.Path(path_type=Path), help="A folder of Rego rules in place of the packaged ones.")
@click.option("--seed", type=click.IntRange(min=0, max=2**31), default=0, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the spec: kpis.auroc.drop=0.03")
@click.option("--overwrite", is_flag=True, help="Replace what --out holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def replay(  # one parameter an option
    data: Path,
    spec_path: Path,
    out: Path,
    timestamp: str | None,
    outcomes: Path | None,
    reference: timedelta,
    step: timedelta,
    start: datetime | None,
    end: datetime | None,
    triggers: Any,
    policy: Path | None,
    seed: int,
    overrides: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> int:
    """Run the whole loop over a recorded history DATA (CSV, CSV.GZ, Parquet; a file or a folder)."""
    from drift_pipeline.api import replay as play
    from drift_pipeline.spec import read_spec

    with bar() as progress:
        found = play(
            data,
            read_spec(spec_path, overrides),
            out,
            timestamp=timestamp,
            outcomes=outcomes,
            reference=reference,
            step=step,
            start=start,
            end=end,
            triggers=triggers,
            policy=policy,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    summary, out = found.summary, found.folder
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        say(_told(summary, out))
    return _exit_code(summary)


def _told(summary: dict[str, Any], out: Path) -> str:
    from drift_pipeline.detection.judging.performance import measured_by
    from drift_pipeline.detection.judging.verdict import told_verdict, told_waiting

    measure, audit = measured_by(summary), summary["audit"]
    told, period = summary[measure.kpi], summary[measure.kpi]["period"]
    pooled = "" if period == "month" else f"; by {period}: months hold too few labels"
    lines = [
        f"{summary['model']}: {summary['rows']:,} rows, {summary['from'][:10]} to {summary['to'][:10]}, "
        f"{summary['evaluations']:,} ticks" + (", interrupted" if summary["partial"] else ""),
        *(f"note        {note}" for note in summary["notes"]),
        f"{measure.name:<11} frozen {_known(measure.shown, told['frozen'])}, "
        f"loop {_known(measure.shown, told['loop'])} (mean over {period}s), "
        f"worst {period} {_known(measure.shown_gain, told['worst_month'])} against frozen{pooled}",
        f"incidents   {summary['incidents']}, alerts {summary['alerts']}, decisions "
        + (", ".join(f"{action} {n}" for action, n in summary["decisions"].items()) or "none"),
        f"trainings   {len(summary['retrains'])}, of them {summary['rejected_candidates']} rejected; "
        f"promotions {summary['promotions']}, rollbacks {summary['rollbacks']}",
    ]
    if (refused := summary["refused_trainings"])["count"]:
        lines.append(f"not trained {refused['count']} of the decisions; the last: {refused['last']}")
    if summary["last"]:
        lines.append(f"at the end  {told_verdict(summary['last'])}")
        lines += [f"  waits     {line}" for line in told_waiting(summary["last"]["not_judged"])]
    for retrain in summary["retrains"]:
        gate = "accepted" if retrain["accepted"] else "rejected"
        lines.append(
            f"  {retrain['at'][:10]}  {retrain['version']:<4} {retrain['cause']:<9} {gate}  "
            f"{measure.name} on new rows {_known(measure.shown, retrain[f'{measure.kpi}_before'])} -> "
            f"{_known(measure.shown, retrain[f'{measure.kpi}_after'])}"
        )
    lines.append(f"audit       {audit['records']} records, {'verified' if audit['verified'] else 'NOT VERIFIED'}")
    lines.append(f"written to  {out} in {summary['wall_seconds']} s; open report.html there")
    return "\n".join(lines)


def _known(shown: Callable[[float], str], value: float | None) -> str:
    return "unknown" if value is None else shown(value)


def _exit_code(summary: dict[str, Any]) -> int:
    from drift_pipeline.detection.judging.performance import measured_by

    if summary["partial"]:
        return INTERRUPTED
    if not summary["audit"]["verified"]:
        return NEGATIVE
    return INCONCLUSIVE if summary[measured_by(summary).kpi]["loop"] is None else OK


@click.command(epilog=example("drift sample models/recommendation_v3 --calm"))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--days", type=click.IntRange(min=28), help="Else 270, of --calm 28.")
@click.option("--rows-per-day", type=click.IntRange(min=20), help="Else 400, of --calm 12000: short windows can judge.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--regression", is_flag=True, help="Minutes that deliveries take, in place of clicks.")
@click.option("--calm", is_flag=True, help="Nothing changes: a history to adopt a model with.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sample(
    folder: Path,
    days: int | None,
    rows_per_day: int | None,
    seed: int,
    regression: bool,
    calm: bool,
    as_json: bool,
) -> int:
    """Write a synthetic history to try things on: FOLDER/history.parquet, and the model's FOLDER/defs.yaml.

    Clicks on recommendations; three fifths in, what makes people click changes.
    """
    days, rows_per_day = days or (28 if calm else 270), rows_per_day or (12_000 if calm else 400)
    import textwrap

    from drift_pipeline.telemetry.synthetic import (
        DELIVERY_SPEC,
        SAMPLE_SPEC,
        Drift,
        delivery_history,
        synthetic_history,
    )

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not an empty folder; name a new one")
    make, spec = (delivery_history, DELIVERY_SPEC) if regression else (synthetic_history, SAMPLE_SPEC)
    history = make(days, rows_per_day, seed, drifts=() if calm else (Drift("concept", day=days * 0.6),))
    declared = f"type: drift_pipeline.components.MonitoredModel\nattributes:\n{textwrap.indent(spec, '  ')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        history.write_parquet(folder / "history.parquet")
        (folder / "defs.yaml").write_text(declared, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    files = {"history": str(folder / "history.parquet"), "spec": str(folder / "defs.yaml")}
    if as_json:
        click.echo(json.dumps({**files, "rows": history.height, "days": days}, indent=2))
    else:
        click.echo(f"{files['history']}: {history.height:,} rows, {days} days; {files['spec']}")
    return OK


@click.command(epilog=example("drift diff out tighter --html diff.html"))
@click.argument("folders", nargs=-1, metavar="DIR1 DIR2 ...", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="OUT", help="Write the comparison as one page, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def diff(folders: tuple[Path, ...], html: Path | None, as_json: bool) -> int:
    """Compare replays of the same history: what was set differently, and what came of it.

    DIR is what drift replay wrote to --out.
    """
    from drift_pipeline.replays.diff import diff_facts, diff_folders, diff_table, write_page

    sides = diff_folders(folders)
    facts = diff_facts(sides)
    if html is not None:
        write_page(sides, facts, html)
    click.echo(json.dumps(facts, indent=2) if as_json else diff_table(facts))
    return OK


COMMANDS = (demo, replay, diff, sample)
