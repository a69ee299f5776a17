"""Commands that show the models of a home: as a page, written or served, and to Prometheus."""

from datetime import timedelta
from pathlib import Path

import click

from drift_pipeline.cli.options import OK, Duration, example, home_option, long_lived, model_argument, settings_of
from drift_pipeline.clock import system_clock


@click.command(epilog=example("drift report fraud --since 7d --html fraud.html"))
@model_argument()
@click.option("--since", type=Duration(), default="30d", show_default=True, help="How far back it looks.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Where to; else MODEL.html here.")
@home_option
def report(model: str, since: timedelta, html: Path | None, home: Path | None) -> int:
    """Write MODEL's page: KPIs, incidents with their distributions, decisions, trainings and rollouts, as one file.

    Nothing in the home is changed. drift up serves the same page, always as it is now.
    """
    from drift_pipeline.pages.live import write_live

    click.echo(write_live(settings_of(home), system_clock(), model, since, html or Path(f"{model}.html")))
    return OK


@click.command(epilog=example("drift pages --port 8081"))
@click.option("--host", default="127.0.0.1", show_default=True, help="Another asks for a key: DRIFT_PAGES_KEY.")
@click.option("--port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0: any free one.")
@click.option("--dagster", default="", help="The address of Dagster's UI, for links.")
@home_option
@long_lived
def pages(host: str, port: int, dagster: str, home: Path | None) -> int:
    """Serve an index of the models and a page of each, which renew themselves, until Ctrl-C. Read only."""
    from drift_pipeline.loop.home import reading
    from drift_pipeline.pages.server import serve

    settings = settings_of(home)
    with reading(settings):  # where there is no home is told before anybody looks
        serve(settings, system_clock(), host, port, dagster.rstrip("/"))
    return OK


@click.command(epilog=example("drift exporter --home live"))
@click.option("--host", default="127.0.0.1", show_default=True, help="It asks for no key.")
@click.option("--port", type=click.IntRange(0, 65535), default=9464, show_default=True, help="0: any free one.")
@home_option
@long_lived
def exporter(host: str, port: int, home: Path | None) -> int:
    """Tell Prometheus how the loop stands, at /metrics, until Ctrl-C.

    The gateway's /metrics tells the same of a key's models; this goes on without a gateway. Rules, alerts and
    routes are in deploy/prometheus.
    """
    from drift_pipeline.loop.home import live_specs, reading
    from drift_pipeline.observability.exporter import serve as run
    from drift_pipeline.observability.metrics import LoopMetrics

    settings = settings_of(home)
    specs, clock = live_specs(settings), system_clock()
    with reading(settings):  # what is no home is told at once; one that breaks later is told by drift_up
        pass
    run(LoopMetrics(settings, specs, clock, lambda: reading(settings)), host, port, settings.log)
    return OK


COMMANDS = (report, pages, exporter)
