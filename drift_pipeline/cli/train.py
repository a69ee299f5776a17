"""The steps of a retrain, each a command: what a pod of a workflow runs."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from drift_pipeline.cli.options import (
    NEGATIVE,
    OK,
    Whole,
    example,
    home_option,
    json_option,
    long_lived,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import system_clock


@click.group(cls=Whole)
def train() -> None:
    """Train: the steps of a retrain that was decided on, each a process of its own.

    What a step hands on is in the control store and the registry. What was done is not done again. Ends with 1 where
    nothing comes of the decision, as when a gate says no; with 3 where something does not answer: take the step again.
    """


@contextmanager
def ending() -> Iterator[None]:
    """SIGTERM ends the step with 143, as it ends any process but a container's first, which ignores what it has no
    handler for: the drain of its node would wait in vain."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _step(name: str, told: str, *options: Any) -> click.Command:
    """The command of one step."""

    def run(model: str, decision: str, home: Path | None, as_json: bool, **more: Any) -> int:
        from drift_pipeline.loop.home import model_of, opened
        from drift_pipeline.loop.stepping import Step, take

        settings = settings_of(home)
        spec = model_of(settings, model)
        working = f"{model}: {name} of {decision}"
        with ending(), at_work(working) as tell, opened(settings, system_clock()) as at:
            taken = take(at.loop(spec, progress=tell), Step(name), decision, **more)
        if as_json:
            said = {"model": model, "decision": decision, "step": name, "going_on": taken.going_on}
            click.echo(json.dumps({**said, "told": taken.told, **taken.facts}, indent=2))
        else:
            say(f"{model}: {taken.told}")
        return OK if taken.going_on else NEGATIVE

    run.__name__, run.__doc__ = f"train_{name}", told
    decorated: Any = long_lived(run)
    for decorate in (json_option, home_option, *options, _DECISION, model_argument()):
        decorated = decorate(decorated)
    more = " --worker 1" if options else ""
    return click.command(name, epilog=example(f"drift train {name} fraud --decision fraud-7{more}"))(decorated)


_DECISION = click.option("--decision", required=True, metavar="ID", help="As drift decisions lists it.")
_WORKER = click.option(
    "--worker", type=click.IntRange(0, 999), default=0, show_default=True, help="Of those that search at once, which."
)
for _command in (
    _step("pin", "Fix the rows that are to train and those that are to prove."),
    _step("search", "Search hyperparameters; on PostgreSQL several workers share the trials.", _WORKER),
    _step("fit", "Train on the older rows and put the bundle into the registry."),
    _step("prove", "Hold the candidate to the gates, unit tests and scan included."),
    _step("register", "Name the candidate as one that may be shipped, where its gates say so."),
):
    train.add_command(_command)


@train.command(epilog=example("drift train manifests > drift-train.yaml"))
@click.option("--calendar", is_flag=True, help="Also a CronWorkflow a model, where no Dagster has its schedule.")
def manifests(calendar: bool) -> int:
    """Print what DRIFT_RUNNER wants applied beforehand: Argo's templates, or Kubeflow's compiled pipeline."""
    from drift_pipeline.loop.home import models_of
    from drift_pipeline.settings import Settings
    from drift_pipeline.training.runners import manifests as written

    settings = Settings()
    click.echo(written(settings, list(models_of(settings).values()) if calendar else []), nl=False)
    return OK


COMMANDS = (train,)
