"""What a cluster should run for a home."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from drift_pipeline.cli.options import (
    NEGATIVE,
    OK,
    Whole,
    example,
    home_option,
    json_option,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import InputError, NothingToDoError


@click.group(cls=Whole)
def deploy() -> None:
    """What a cluster should run for a home."""


@deploy.command(epilog=example("drift deploy render --home live --out cluster"))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--without-models", is_flag=True, help="The chart reads them from a repository (models.git).")
@home_option
@json_option
def render(out: Path, without_models: bool, home: Path | None, as_json: bool) -> int:
    """Write values for the chart, and manifests: a ConfigMap a model with who answers, and the SealedSecrets.

    The same home gives the same bytes. What an earlier run wrote and is no more is removed; a file that is not of
    such a run is never touched, and ends it before anything is written.
    """
    from drift_pipeline.evidence.kept_folder import write_folder
    from drift_pipeline.evidence.rendering import rendering
    from drift_pipeline.loop.home import models_of, reading

    settings = settings_of(home)
    if out.resolve().is_relative_to(settings.gitops.resolve()):
        raise InputError(f"{out}: lies in the home's GitOps repository, whose manifests/ it has already; name another")
    specs = [] if without_models else models_of(settings).values()
    with at_work(f"{out}: rendering"), reading(settings) as store:
        changed = write_folder(out, rendering(settings, store, specs))
    if as_json:
        click.echo(json.dumps({"folder": str(out), **asdict(changed)}, indent=2))
        return OK
    for name in changed.written:
        click.echo(f"{out / name}")
    for name in changed.removed:
        click.echo(f"{out / name} removed")
    if not (changed.written or changed.removed):
        click.echo(f"{out}: nothing changed")
    if not settings.store:
        say("the home lies in a folder, and the chart wants a bucket: give store.url in values of your own", err=True)
    return OK


@deploy.command(epilog=example("drift deploy routing fraud --home live > fraud.yaml"))
@model_argument()
@click.option("--check", is_flag=True, help="Ask the controller how the traffic stands.")
@home_option
def routing(model: str, check: bool, home: Path | None) -> int:
    """Print the objects that DRIFT_CONTROLLER makes of a model; its champion answers.

    With --check nothing is printed but how its traffic stands there, what is not as it has to be, and what the next
    tick tells the controller; ends with 1 where there is any of that.
    """
    from drift_pipeline.loop.home import model_of, opened
    from drift_pipeline.rollout.controllers import manifests

    settings = settings_of(home)
    spec = model_of(settings, model)
    with at_work(f"{model}: looking at its route"), opened(settings, system_clock()) as at:
        steering, controller = at.loop(spec).steering, at.controller
        wanted = steering.wanted()
        if controller is None:
            raise NothingToDoError("DRIFT_CONTROLLER=gateway: each gateway follows the control store; nothing to apply")
        if wanted is None:
            raise NothingToDoError(f"{model}: is not adopted, or is served elsewhere; nothing of it is routed here")
        lines = steering.standing(controller, wanted) if check else []
    if not check:
        click.echo(manifests(settings, wanted), nl=False)
        return OK
    for line in lines:
        say(f"{model}: {line}")
    return OK if len(lines) == 1 else NEGATIVE


COMMANDS = (deploy,)
