"""Commands of the live loop: adopt a model, serve it, tick its loop."""

import json
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.options import (
    INCONCLUSIVE,
    INTERRUPTED,
    NEGATIVE,
    OK,
    Duration,
    example,
    home_option,
    json_option,
    long_lived,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.cli.ticked import line_of, plain_of
from drift_pipeline.clock import parse_duration, system_clock
from drift_pipeline.errors import InputError

if TYPE_CHECKING:
    from drift_pipeline.settings import Settings


@click.command(epilog=example("drift adopt fraud --data history.parquet"))
@model_argument()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Its history: a file, or a folder.")
@click.option("--bundle", type=click.Path(path_type=Path), help="A skops file that answers; of a graph, a folder.")
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
    from drift_pipeline.loop.adopting import adopt as take
    from drift_pipeline.loop.deciding import NO_CANARY
    from drift_pipeline.loop.home import model_of, opened
    from drift_pipeline.telemetry.history import read_history

    if bundle is not None and external:
        raise InputError("--bundle and --external: what is served elsewhere has no bundle here; give one of them")
    settings = settings_of(home)
    spec = model_of(settings, model)
    with at_work(f"{model}: reading {data}") as doing, opened(settings, system_clock(), new=True) as at:
        history = read_history(data, spec, timestamp, outcomes)
        loop = take(at, spec, history, bundle=bundle, external=external, progress=doing)
        champion = loop.champion
        assert champion is not None
        rows, served, prospects = history.frame.height, champion.name, loop.monitor.prospects()
    told = {
        **{"model": model, "version": served, "digest": champion.digest, "rows": rows, "home": str(settings.home)},
        **{"forms": loop.spec.forms, "judged": prospects},
    }
    if as_json:
        click.echo(json.dumps({**told, "notes": list(history.notes)}, indent=2))
    else:
        for note in history.notes:
            click.echo(f"note      {note}", err=True)
        back = f"; rollback hands the traffic back to what serves it now; {NO_CANARY}" if external else ""
        click.echo(f"{model}: {served} is watched from now on, against {rows:,} rows{back}")
        for line in prospects:
            click.echo(f"{model}: {line}")
    return OK


@click.command(epilog=example("drift tick --home live"))
@model_argument(required=False)
@home_option
@json_option
@long_lived
def tick(model: str | None, home: Path | None, as_json: bool) -> int:
    """Go once through the loop of every adopted model, or of one, as Dagster's sensor does; for cron.

    Retrains that are wanted, or due by the calendar, run here and now. Beside a sensor, or another tick, only one of
    them counts. Ends with 1 where a model's tick failed.
    """
    from drift_pipeline.logs import announce
    from drift_pipeline.loop.fleet import Failed, Fleet
    from drift_pipeline.loop.home import model_of, models_of, none_adopted, opened
    from drift_pipeline.loop.lineage import deliver_lineage
    from drift_pipeline.loop.mirroring import deliver_mirror
    from drift_pipeline.loop.tracing import deliver_traces

    settings = settings_of(home)
    _warn_of_alerts(settings)
    known = models_of(settings)
    specs = {model: model_of(settings, model)} if model else known
    with opened(settings, system_clock()) as at:
        ticked = Fleet(at, specs, partial(announce, form=settings.log)).tick(inline=True)
        deliver_lineage(settings, at.store, known, at.clock.now())
        deliver_mirror(settings, at.store)
        deliver_traces(settings, at.store)
        told = none_adopted(at.store, settings, specs)
    if as_json:
        click.echo(json.dumps([plain_of(one) for one in ticked], indent=2))
    else:
        for one in ticked:
            say(line_of(one))
    if not ticked:
        click.echo(told, err=True)
        return INCONCLUSIVE
    return NEGATIVE if any(isinstance(one, Failed) and not one.again for one in ticked) else OK


def _warn_of_alerts(settings: "Settings") -> None:
    """Who cannot be told must not stop the watching."""
    if settings.alerts_file is not None:
        from drift_pipeline.alerts.standing import require

        try:
            require(settings.alerts_file)
        except InputError as error:
            say(f"alerts: {error}", err=True)


@click.command(epilog=example("drift serve --port 8080 --home live", "drift serve --pin fraud sha256:9f2c..."))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one.")
@click.option("--drills", is_flag=True, help="Obey a request's delay_ms, to rehearse a slow version.")
@click.option("--pin", nargs=2, metavar="MODEL DIGEST", help="Serve MODEL alone, by this version or not at all.")
@home_option
@long_lived
def serve(host: str, port: int, drills: bool, pin: tuple[str, str] | None, home: Path | None) -> int:
    """Serve the models over the Open Inference Protocol, until Ctrl-C. Follows rollouts without a restart.

    An answer leaves when its event is on disk; drift capture lands it in the lake. --pin is for pods between which
    somebody else splits the traffic: it answers while that version is the champion, or a candidate in its canary.
    """
    from drift_pipeline.loop.home import live_specs, refuse_unadopted
    from drift_pipeline.registry.bundle import checked_digest
    from drift_pipeline.serving.server import serve as run

    settings = settings_of(home)
    model, digest = (pin[0], checked_digest(pin[1])) if pin else (None, "")
    specs, clock = live_specs(settings, only=model), system_clock()
    refuse_unadopted(settings, specs)
    run(settings, specs, host, port, clock, pin=digest, drills=drills)
    return OK


@click.command(epilog=example("drift capture --home live", "drift capture --source otlp://127.0.0.1:4318"))
@click.option("--once", is_flag=True, help="Land what is there, and end.")
@click.option("--every", "interval", type=Duration(), default="2s", show_default=True)
@click.option("--drain", type=Duration(), help="Told to end, land the rest of the spool, for so long at most.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    envvar="DRIFT_SOURCE",
    help="kafka://HOST:PORT/TOPIC, or otlp://HOST:PORT to listen to; repeatable.",
)
@home_option
@json_option
@long_lived
def capture(
    once: bool,
    interval: timedelta,
    drain: timedelta | None,
    sources: tuple[str, ...],
    home: Path | None,
    as_json: bool,
) -> int:
    """Land what the gateway and other producers wrote down in the lake, and score it for a rollout's shadow.

    What is no event is laid aside with the reason; where that is much, the model's owner is alerted once an hour.
    --source reads topics of events as well; captures of one home share their partitions (telemetry/README.md).
    """
    from drift_pipeline.loop.home import live_specs, refuse_unadopted
    from drift_pipeline.serving.capturing import capturing
    from drift_pipeline.serving.capturing import drain as land_the_rest
    from drift_pipeline.serving.receiver import address_of
    from drift_pipeline.serving.refused import telling
    from drift_pipeline.telemetry.sources import scheme_of

    if drain is not None and (once or sources):
        raise InputError("--drain is of a spool that is captured until the end; give neither --once nor --source")
    for url in sources:
        if scheme_of(url) != "otlp":
            continue
        address_of(url)
        if once:
            raise InputError(f"--once and --source {url}: it is listened to for ever; give one of them")
    settings = settings_of(home)
    specs, clock = live_specs(settings), system_clock()
    refuse_unadopted(settings, specs)
    with capturing(settings, specs, clock, sources) as (landing, stop), telling(settings, specs, clock) as tell:
        if once:
            found = asdict(landing.once(stop))
            tell(landing.refused())
            click.echo(json.dumps(found) if as_json else ", ".join(f"{name} {n}" for name, n in found.items()))
        else:
            landing.run(stop, interval.total_seconds(), tell)
            if drain is not None:
                seconds = drain.total_seconds(), interval.total_seconds()
                land_the_rest(landing, settings.home / "spool", *seconds)
    return OK


@click.command(epilog=example("drift up --home live"))
@click.option("--host", default="127.0.0.1", show_default=True, help="Of the gateway; Dagster answers this machine.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--dagster-port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--pages-port", type=click.IntRange(1, 65535), default=8081, show_default=True)
@click.option("--drills", is_flag=True, help="Obey a request's delay_ms, to rehearse a slow version.")
@home_option
def up(host: str, port: int, dagster_port: int, pages_port: int, drills: bool, home: Path | None) -> int:
    """Run everything on this machine: the models' pages, gateway, capture, and Dagster. Ctrl-C ends all of it."""
    from drift_pipeline.loop.home import models_of, refuse_unadopted
    from drift_pipeline.serving.up import services
    from drift_pipeline.serving.up import up as run

    settings = settings_of(home)
    system_clock()  # a drill that is none is refused here, not by each child
    refuse_unadopted(settings, models_of(settings))
    started = services(host, port, dagster_port, pages_port, drills=drills, log=settings.log)
    return run(settings, host, port, dagster_port, pages_port, started=started)


class _Drift(click.ParamType[Any]):
    name = "kind@time[:size]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from drift_pipeline.serving.traffic import Injected

        kind, _, rest = value.partition("@")
        at, _, size = rest.partition(":")
        try:
            return Injected(kind, parse_duration(at or "0s").total_seconds(), float(size or 1))
        except ValueError as error:
            self.fail(f"{value!r}: write concept@30s or covariate@1m:0.5: {error}", param, ctx)


@click.command(epilog=example("drift simulate fraud --rate 50 --for 1m --drift concept@30s"))
@model_argument()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Of the gateway.")
@click.option("--key", "key", help="A producer's API key; else the one that drift up made in the home.")
@click.option("--rate", type=click.FloatRange(min=0.1), default=20.0, show_default=True, help="Rows a second.")
@click.option("--for", "duration", type=Duration(), default="2m", show_default=True)
@click.option("--drift", "drifts", multiple=True, type=_Drift(), help="What changes, when, how much: concept@30s:0.8")
@click.option("--label-delay", type=Duration(), help="After how long a label is told; else the spec's outcome.delay.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@home_option
@json_option
def simulate(
    model: str,
    url: str,
    key: str | None,
    rate: float,
    duration: timedelta,
    drifts: tuple[Any, ...],
    label_delay: timedelta | None,
    seed: int,
    home: Path | None,
    as_json: bool,
) -> int:
    """Send seeded traffic of MODEL to a running gateway, drawn from its own history, with a drift to inject.

    Kinds: covariate, concept, unfairness, schema, schema_break, latency (a gateway with --drills obeys it). Of a model
    adopted with --external it tells the gateway what the other system answered: the scores of the history.
    Ctrl-C ends it with the counts so far, and 130.
    """
    from drift_pipeline.control.store import ControlStore
    from drift_pipeline.loop.forms import frozen
    from drift_pipeline.loop.home import model_of
    from drift_pipeline.serving.simulate import simulate as run
    from drift_pipeline.serving.traffic import history_of
    from drift_pipeline.serving.up import LOCAL_KEY
    from drift_pipeline.telemetry.lake import Lake

    settings, clock = settings_of(home), system_clock()
    spec = model_of(settings, model)
    if settings.database or (settings.home / "control.db").is_file():
        with closing(ControlStore(settings.database_url, clock)) as store:
            spec = frozen(store, spec)
    now = clock.now()
    source = history_of(Lake(settings.lake / model, source="simulate"), spec, now)
    found = run(
        url,
        key or _key(settings.keys / LOCAL_KEY),
        spec,
        source,
        rows_per_second=rate,
        duration=duration,
        seed=seed,
        drifts=drifts,
        label_delay=(spec.outcome.delay if label_delay is None else label_delay) / getattr(clock, "speed", 1),
        prefix=f"sim{now:%Y%m%dT%H%M%S}-",
        progress=lambda words: click.echo(words, err=True),
        clock=clock,
    )
    click.echo(json.dumps(found.to_json(), indent=2 if as_json else None))
    if found.partial:
        return INTERRUPTED
    return OK if found.answered else NEGATIVE


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(f"{path}: no key here: give --key, or start drift up, which makes one") from error


COMMANDS = (adopt, serve, capture, tick, up, simulate)
