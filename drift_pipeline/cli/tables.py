"""Commands on tables: one held against another, and one that is healthy."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from drift_pipeline.cli.options import INCONCLUSIVE, NEGATIVE, OK, AtLeast, Duration, example, listed
from drift_pipeline.cli.telling import bar, say
from drift_pipeline.errors import InputError


@click.command(epilog=example("drift compare last_month.parquet today.csv --html compare.html"))
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("current", type=click.Path(path_type=Path))
@click.option("--spec", "spec_path", type=click.Path(path_type=Path), help="The model's YAML; else types are inferred.")
@click.option("--columns", callback=listed, metavar="A,B", help="Compare only these columns.")
@click.option("--exclude", callback=listed, metavar="A,B", help="Leave these columns out.")
@click.option(
    "--categorical", callback=listed, metavar="A,B", help="The values of these are levels, whatever they are."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="OUT", help="Write the comparison as one page, too.")
@click.option(
    "--fail-on",
    type=click.Choice(["inconclusive", "warn", "breach"]),
    default="breach",
    show_default=True,
    help="From which verdict on the command ends with 1.",
)
@click.option(
    "--min-judged",
    type=AtLeast(),
    metavar="N",
    help="INCONCLUSIVE where fewer columns are judged, such as 14, 0.9 or 90%; else one is enough.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def compare(
    reference: Path,
    current: Path,
    spec_path: Path | None,
    columns: tuple[str, ...],
    exclude: tuple[str, ...],
    categorical: tuple[str, ...],
    html: Path | None,
    fail_on: Any,
    min_judged: float | None,
    as_json: bool,
) -> int:
    """Compare two tables, CURRENT with REFERENCE.

    A table is a CSV (with , ; tab or |), CSV.GZ or Parquet file, a folder of them or a Delta table, and may be larger
    than memory.

    WARN: a column drifts. BREACH: its PSI is above the threshold (0.2), too, or a KPI of the spec is breached. OK is of
    the columns and KPIs that could be judged; it says how many, and the others are named. Ends with 1 from --fail-on
    on, with 3 where none, or fewer than --min-judged, could be judged.
    """
    from drift_pipeline import api

    with bar("row") as show:
        found = api.compare(
            reference,
            current,
            spec_path,
            columns=columns,
            exclude=exclude,
            categorical=categorical,
            min_judged=min_judged,
            progress=lambda rows, words: show(rows, None, words),
        )
    for column in found.found.read if spec_path is None and not as_json else ():
        if column.kind is not None:  # what is left out, the answer itself tells
            click.echo(f"{column.name}: {column.why}", err=True)
    if html is not None:
        found.save(html)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        say(str(found))
    if found.fails(fail_on):
        return NEGATIVE
    return INCONCLUSIVE if found.verdict == "INCONCLUSIVE" else OK


@click.command(epilog=example("drift calibrate history.csv --spec models/fraud/defs.yaml"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--spec", "spec_path", required=True, type=click.Path(path_type=Path), help="The model's YAML.")
@click.option("--timestamp", help="The time column, where the spec names none.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="Labels by prediction id, in a file of their own.")
@click.option(
    "--reference", type=Duration(), help="Only the first span, such as 90d; else all of it counts as healthy."
)
@click.option("--step", type=Duration(), default="1m", show_default=True, help="Time between two ticks when live.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the spec: kpis.auroc.drop=0.03")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the proposed thresholds there, too."
)
@click.option("--json", "as_json", is_flag=True, help="Print all that was measured as JSON.")
def calibrate(
    data: Path,
    spec_path: Path,
    timestamp: str | None,
    outcomes: Path | None,
    reference: timedelta | None,
    step: timedelta,
    overrides: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> int:
    """Measure false alarms on a healthy history DATA.

    Proposes thresholds for the spec, with the evidence and with what they cost in detection. Each window is judged
    against the rest of the history, as the live monitor would. Ends with 3 where the history is too short or too thin
    for any window to be judged.
    """
    from drift_pipeline import api
    from drift_pipeline.spec import read_spec

    with bar("window") as progress:
        found = api.calibrate(
            data,
            read_spec(spec_path, overrides),
            timestamp=timestamp,
            outcomes=outcomes,
            reference=reference,
            step=step,
            progress=progress,
        )
    if out is not None:
        found.save(out)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        for note in found.notes:
            click.echo(f"note      {note}", err=True)
        click.echo(str(found))
    return OK if found.found.conclusive else INCONCLUSIVE


@click.command(epilog=example("drift init history.csv --model fraud --label is_fraud"))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="The model's name: small letters, digits, underscores.")
@click.option("--label", required=True, help="The column of the outcome.")
@click.option("--time", help="The column of the time; else the first that holds times.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("models"),
    show_default=True,
    help="Folder of models: the spec is OUT/MODEL/defs.yaml, and DRIFT_MODELS names OUT.",
)
def init(data: Path, model: str, label: str, time: str | None, out: Path) -> int:
    """Draft a model's spec from a table DATA: the types of its columns, with comments, to be looked through.

    Beside it a declarations.yaml, all of it commented out, asks what only people can say.
    """
    from drift_pipeline.detection.comparing.drafting import draft
    from drift_pipeline.files import write_whole
    from drift_pipeline.spec import DECLARATIONS, parse_spec
    from drift_pipeline.spec.drafted import drafted_declarations
    from drift_pipeline.telemetry.tables.table import Table

    path = out / model / "defs.yaml"
    if path.exists():
        raise InputError(f"{path}: exists; name another --out or --model, or delete it")
    found = draft(Table.of(data), model, label, time)
    parse_spec(found.text, path)  # nothing is written that cannot be read
    write_whole(path, found.text)
    if not (said := path.with_name(DECLARATIONS)).exists():
        write_whole(said, drafted_declarations())
    click.echo(f"{path}: {found.features} features; {'; '.join(found.guessed)}")
    click.echo(f"look through it, then: drift replay {data} --spec {path} --out replay")
    return OK


COMMANDS = (init, compare, calibrate)
