"""The `drift` command: parse, call one service, print the result, end with an exit code.

0 ok, 1 negative result, 2 bad input or usage, 3 inconclusive, 130 interrupted.
"""

import sys
from collections.abc import Sequence

import click

from drift_pipeline import __version__
from drift_pipeline.cli import approvals, history, live, operate, report, tables
from drift_pipeline.cli.options import BAD_INPUT, INTERRUPTED, NEGATIVE, OK
from drift_pipeline.errors import DriftError


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: every expected error is one message on stderr and an exit code."""
    try:
        code = drift.main(args=arguments, prog_name="drift", standalone_mode=False)
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


@click.group()
@click.version_option(__version__)
def drift() -> None:
    """Watch machine-learning models for drift, retrain them, ship them safely and prove it."""


for _room in (history, tables, live, report, operate, approvals):
    for _command in _room.COMMANDS:
        drift.add_command(_command)
