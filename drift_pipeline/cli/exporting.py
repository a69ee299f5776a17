"""The audit as a file, for who has no home at hand."""

import json
from pathlib import Path

import click

from drift_pipeline.cli.audit import audit
from drift_pipeline.cli.options import OK, example, home_option, json_option, settings_of
from drift_pipeline.cli.telling import at_work


@audit.command(epilog=example("drift audit export --home live --out audit.jsonl"))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write.")
@home_option
@json_option
def export(out: Path, home: Path | None, as_json: bool) -> int:
    """Write the audit as one file: its records, signed checkpoints and public keys, for drift audit verify FILE.

    Verify it by a key that you got another way than the file. The same audit gives the same bytes.
    """
    from drift_pipeline.evidence.exporting import export_audit

    settings = settings_of(home)
    with at_work(f"{settings.home}: exporting"):
        count = export_audit(settings, out)
    if as_json:
        click.echo(json.dumps({"records": count, "file": str(out)}, indent=2))
    else:
        click.echo(f"{out}: {count} records; drift audit verify {out} --keys DIR checks them")
    return OK


COMMANDS: tuple[click.Command, ...] = ()  # it is one of audit's
