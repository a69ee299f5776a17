"""Commands of the live loop: adopt a model, serve it, tick its loop."""

import json
from pathlib import Path
from typing import Any

import click

from drift_pipeline.cli.options import INCONCLUSIVE, NEGATIVE, OK, home_option, json_option, settings_of
from drift_pipeline.clock import SystemClock


@click.command()
@click.argument("model")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Its history: a file, or a folder.")
@click.option("--bundle", type=click.Path(path_type=Path), help="A skops file that answers from now on.")
@click.option("--external", is_flag=True, help="Another system goes on answering; only its scores are known.")
@click.option("--timestamp", help="The time column, where the spec names none.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="Labels by prediction id, in a file of their own.")
@home_option
@json_option
def adopt(
    model: str,
    data: Path,
    bundle: Path | None,
    external: bool,
    timestamp: str | None,
    outcomes: Path | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Take a model under watch: land its history, freeze its reference, make what answers version 1.

    MODEL is the name of a spec below DRIFT_MODELS. An external model has nothing to roll back to but to hand the
    traffic back to what serves it now.
    """
    from drift_pipeline.errors import InputError
    from drift_pipeline.loop.adopting import adopt as take
    from drift_pipeline.loop.home import model_of, opened
    from drift_pipeline.telemetry.history import read_history

    if bundle is not None and external:
        raise InputError("--bundle and --external: what is served elsewhere has no bundle here; give one of them")
    settings = settings_of(home)
    spec = model_of(settings, model)
    history = read_history(data, spec, timestamp, outcomes)
    with opened(settings, SystemClock(), new=True) as at:
        loop = take(at, spec, history, bundle=bundle, external=external)
        champion = loop.champion
        assert champion is not None
        rows, served = history.frame.height, champion.name
    told = {"model": model, "version": served, "digest": champion.digest, "rows": rows, "home": str(settings.home)}
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        for note in history.notes:
            click.echo(f"note      {note}", err=True)
        back = "; rollback hands the traffic back to what serves it now" if external else ""
        click.echo(f"{model}: {served} is watched from now on, against {rows:,} rows{back}")
    return OK


@click.command()
@click.option("--model", help="Only this one; else every model that was adopted.")
@home_option
@json_option
def tick(model: str | None, home: Path | None, as_json: bool) -> int:
    """Go once through the loop of every adopted model, as the Dagster sensor does; for cron, and where there is none.

    Retrains that are wanted, or due by the calendar, run here and now. Beside a sensor, or another tick, only one of
    them counts. Ends with 1 where a model's tick failed.
    """
    from drift_pipeline.loop.fleet import Failed, Fleet
    from drift_pipeline.loop.home import model_of, models_of, opened

    settings = settings_of(home)
    specs = {model: model_of(settings, model)} if model else models_of(settings)
    with opened(settings, SystemClock()) as at:
        ticked = Fleet(at, specs, lambda words: click.echo(words, err=True)).tick(inline=True)
    if as_json:
        click.echo(json.dumps([_plain(one) for one in ticked], indent=2))
    else:
        for one in ticked:
            click.echo(_line(one))
    if not ticked:
        click.echo("no model is adopted here; drift adopt MODEL --data HISTORY does it", err=True)
        return INCONCLUSIVE
    return NEGATIVE if any(isinstance(one, Failed) and not one.again for one in ticked) else OK


def _plain(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def _line(one: Any) -> str:
    from drift_pipeline.loop.fleet import Failed

    if isinstance(one, Failed):
        return f"{one.model}: {'taken by another tick' if one.again else 'FAILED'}: {one.reason}"
    told = [
        f"incident {one.incident}" if one.incident else "",
        *one.decisions,
        *(f"trained {version}" for version in one.trained),
        f"released {one.released}" if one.released else "",
        f"rollout {one.moved}" if one.moved else "",
    ]
    return "  ".join([f"{one.model}: {one.verdict}", *filter(None, told)])


COMMANDS = (adopt, tick)
