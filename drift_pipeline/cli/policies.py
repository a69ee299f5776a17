"""Commands on rules of your own: tried before they decide."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from drift_pipeline.cli.options import NEGATIVE, OK, Whole, example, json_option
from drift_pipeline.cli.telling import say, wrapped


@click.group(cls=Whole)
def policy() -> None:
    """Rules of your own: tried before they decide."""


@policy.command(epilog=example("drift policy test rules"))
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def test(folder: Path, as_json: bool) -> int:
    """Try the rules of FOLDER on the cases of its *_cases_test.rego files; 1 where one does not hold.

    drift replay --policy FOLDER tries them on a history; DRIFT_POLICY=FOLDER lets them decide.
    """
    from drift_pipeline.policy.cases import try_cases
    from drift_pipeline.policy.engines import read_bundle

    tried, digest = try_cases(folder), read_bundle(folder).digest
    failed = [one for one in tried if one.failed]
    if as_json:
        click.echo(json.dumps({"digest": digest, "cases": [asdict(one) for one in tried]}, indent=2))
    else:
        for one in tried:
            say(wrapped(f"{'FAILED' if one.failed else 'ok':<7} {one.file}: {one.name}", then="        "))
            if one.failed:
                say(wrapped(one.failed, "        "))
        say(f"{len(tried) - len(failed)} of {len(tried)} cases hold; the rules are {digest}")
    return NEGATIVE if failed else OK


COMMANDS = (policy,)
