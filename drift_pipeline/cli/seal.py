"""Secrets for a cluster, sealed so that they may lie in git."""

import getpass
import json
import sys
from pathlib import Path
from typing import BinaryIO

import click

from drift_pipeline.cli.options import OK, actor_option, example, home_option, json_option, settings_of
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import InputError

_SCOPES = ("strict", "namespace-wide", "cluster-wide")


@click.command(
    epilog=example(
        "drift seal drift-store AWS_SECRET_ACCESS_KEY --namespace ml --cert cert.pem",
        "drift seal wandb --from-file WANDB_API_KEY=- --namespace ml --cert cert.pem",
    )
)
@click.argument("name")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--namespace", required=True, help="Where the Secret is to be.")
@click.option(
    "--cert",
    envvar="SEALED_SECRETS_CERT",
    type=click.Path(path_type=Path),
    help="The controller's certificate (PEM); else SEALED_SECRETS_CERT.",
)
@click.option("--from-file", "files", multiple=True, metavar="KEY=FILE", help="A value's file, or - for stdin.")
@click.option("--scope", type=click.Choice(_SCOPES), default="strict", show_default=True, help="Who may read it.")
@click.option("--replace", is_flag=True, help="Keys of NAME that are not named go.")
@click.option("--remove", is_flag=True, help="Take NAME out of the GitOps repository.")
@click.option("--out", type=click.Path(path_type=Path), help="A file to write, instead of into a home.")
@actor_option
@home_option
@json_option
def seal(
    name: str,
    keys: tuple[str, ...],
    namespace: str,
    cert: Path | None,
    files: tuple[str, ...],
    scope: str,
    replace: bool,
    remove: bool,
    out: Path | None,
    actor: str | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Seal secrets into the GitOps repository, as kubeseal does: only the cluster's controller can read them.

    KEY is a file of that name in DRIFT_SECRETS_DIR. No value is taken from the command line, nor shown. A file is
    sealed as it is; of DRIFT_SECRETS_DIR blanks around it are left out, of stdin the end of its last line. Keys that
    were sealed before stay.
    """
    from drift_pipeline.control.sealed_secret import MOST_BYTES, Certificate, Scope
    from drift_pipeline.evidence.gitops.sealed import Sealing, seal_file, seal_into

    if remove:
        if keys or files or out or replace:
            raise InputError("--remove takes all of NAME out of the home; it goes with no KEY, --from-file or --out")
        return _removed(namespace, name, actor, home, as_json)
    if cert is None:
        raise InputError("--cert: names no certificate; `kubeseal --fetch-cert` writes one")
    certificate = Certificate.parse(_bytes(cert, "--cert", MOST_BYTES), str(cert), system_clock().now())
    sealing = Sealing(namespace, name, Scope(scope), _values(keys, files, MOST_BYTES), certificate, replace)
    with at_work(f"{namespace}/{name}: sealing"):
        if out:
            path, made = out, seal_file(out, sealing)
        else:
            path, made = seal_into(settings_of(home), system_clock(), actor or getpass.getuser(), sealing)
    told = {"namespace": namespace, "name": name, "scope": scope, "sealed": sorted(sealing.values)}
    if as_json:
        told |= {"keys": sorted(made.encrypted), "file": str(path), "certificate": certificate.fingerprint}
        click.echo(json.dumps(told, indent=2))
    else:
        kept = len(made.encrypted) - len(sealing.values)
        beside = f", beside {kept} sealed before" if kept else ""
        then = "" if out else "; the next tick commits it"
        say(f"{namespace}/{name}: {', '.join(sorted(sealing.values))} sealed, {scope}{beside}\n{path}{then}")
    return OK


def _removed(namespace: str, name: str, actor: str | None, home: Path | None, as_json: bool) -> int:
    from drift_pipeline.evidence.gitops.sealed import unseal_from

    path = unseal_from(settings_of(home), system_clock(), actor or getpass.getuser(), namespace, name)
    told = json.dumps({"namespace": namespace, "name": name, "removed": True, "file": str(path)}, indent=2)
    click.echo(told if as_json else f"{namespace}/{name}: {path} is removed; the next tick commits it")
    return OK


def _values(keys: tuple[str, ...], files: tuple[str, ...], most: int) -> dict[str, bytes]:
    """By key; no message tells what stands behind a `=`, for it may be a value that was typed."""
    from drift_pipeline.control.sealed_secret import require_keys
    from drift_pipeline.settings import secrets_folder

    pairs = [(key, name) for key, equals, name in (one.partition("=") for one in files) if equals]
    require_keys([*keys, *(key for key, _ in pairs)])
    if len(pairs) != len(files):
        raise InputError("--from-file: is KEY=FILE, or KEY=- for stdin")
    named = [*keys, *(key for key, _ in pairs)]
    if not named:
        raise InputError("no KEY: name files of DRIFT_SECRETS_DIR, or --from-file KEY=FILE")
    if twice := {key for key in named if named.count(key) > 1}:
        raise InputError(f"{', '.join(sorted(twice))}: is named twice")
    if [name for _, name in pairs].count("-") > 1:
        raise InputError("--from-file: stdin has one value; name - once")
    folder = secrets_folder() if keys else None
    if keys and folder is None:
        raise InputError("DRIFT_SECRETS_DIR: is not set, so a KEY has no file; set it, or say --from-file KEY=FILE")
    values = {key: _bytes(folder / key, f"DRIFT_SECRETS_DIR: {key}", most).strip() for key in keys if folder}
    values |= {key: _stdin(most) if name == "-" else _bytes(Path(name), key, most) for key, name in pairs}
    if empty := sorted(key for key, value in values.items() if not value):
        raise InputError(f"{', '.join(empty)}: is empty")
    return values


def _bytes(path: Path, what: str, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return _limited(file, what, most)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        why = error.strerror if isinstance(error, OSError) else "no path"
        raise InputError(f"{what}: its file cannot be read: {why}") from error


def _stdin(most: int) -> bytes:
    if sys.stdin.isatty():
        found: str = click.prompt("value", hide_input=True, err=True)
        return found.encode()
    return _limited(sys.stdin.buffer, "stdin", most).removesuffix(b"\n").removesuffix(b"\r")


def _limited(file: BinaryIO, what: str, most: int) -> bytes:
    data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{what}: is longer than {most:,} bytes, which is all that a Secret may have")
    return data


COMMANDS = (seal,)
