"""The `drift` command: parse, call one service, print the result, end with an exit code.

0 ok, 1 negative result, 2 bad input or usage, 3 inconclusive, 4 nothing to do, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

import click

from drift_pipeline import __version__
from drift_pipeline.cli import (
    alerting,
    approvals,
    deploy,
    docs,
    evidence,
    exporting,
    features,
    history,
    homes,
    keys,
    live,
    operate,
    policies,
    producers,
    records,
    report,
    seal,
    tables,
    train,
    watch,
)
from drift_pipeline.cli.options import BAD_INPUT, INTERRUPTED, NEGATIVE, OK, Whole
from drift_pipeline.errors import DriftError


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: every expected error is one message on stderr and an exit code."""
    try:
        color = False if os.environ.get("NO_COLOR") else None  # None: where it is a terminal
        code = drift.main(args=arguments, prog_name="drift", standalone_mode=False, color=color)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
        code = OK
    except click.ClickException as error:
        error.show()
        code = BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except DriftError as error:
        click.echo(f"drift: {error}", err=True)
        code = error.exit_code
    except OSError as error:  # a disk that is full, a folder that went away
        click.echo(f"drift: {error}", err=True)
        code = NEGATIVE
    sys.exit(code if isinstance(code, int) else OK)


EPILOG = "Begin with: drift demo. Of one command: drift COMMAND --help. Completion and exit codes: cli/README.md."
PURPOSES = {
    "Try it": ("demo", "sample", "simulate"),
    "Your data": ("init", "compare", "calibrate", "replay", "diff", "policy"),
    "Run": ("adopt", "up", "serve", "capture", "pages", "tick", "train", "producer", "seal", "deploy", "home"),
    "Watch": ("status", "models", "versions", "decisions", "incident", "report", "alerts", "features", "exporter"),
    "Operate": ("retrain", "hotfix", "promote", "rollback", "pause", "resume", "maintenance", "retain", "erase"),
    "Evidence": ("card", "docs", "key", "approve", "waive", "audit", "verify", "lineage"),
}


class _ByPurpose(Whole):
    """Its help has the commands in the order in which somebody new needs them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        named = {name for names in PURPOSES.values() for name in names}
        others = [name for name in self.list_commands(ctx) if name not in named]
        for purpose, names in {**PURPOSES, "More": others}.items():
            self.section(formatter, purpose, names)


@click.group(cls=_ByPurpose, epilog=EPILOG)
@click.version_option(__version__)
def drift() -> None:
    """Watch machine-learning models for drift, retrain them, ship them safely and prove it.

    DRIFT_HOME names the folder where all of it is kept, DRIFT_MODELS the folder of the models' specs.
    """


_LOOP, _PROOF = (
    (history, tables, live, producers, report, watch, alerting, operate, train, features, policies),
    (keys, approvals, docs, evidence),
)
for _room in (*_LOOP, *_PROOF, exporting, records, homes, seal, deploy):
    for _command in _room.COMMANDS:
        drift.add_command(_command)
