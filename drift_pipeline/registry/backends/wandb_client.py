"""The child process that has W&B's client: one verb, a job as JSON on stdin, the answer as the last line of stdout."""

import fcntl
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from drift_pipeline.errors import IntegrityError
from drift_pipeline.registry.bundle import MANIFEST, read_manifest
from drift_pipeline.registry.mirror import digest_alias, merged

MOST_BYTES = 1 << 30  # of a file that is written: a server may send without end
_LOCAL = "entity", "project"


def offline(folder: Path) -> wandb.Settings:
    """Of a run that is written below the folder and says nothing of the machine or its environment."""
    return wandb.Settings(
        mode="offline",
        root_dir=str(folder),
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def write(job: Mapping[str, Any]) -> dict[str, Any]:
    """Each run in a hidden place, then moved to where whole ones lie: one that was cut short is never sent."""
    folder = Path(job["folder"])
    incoming = Path(tempfile.mkdtemp(prefix="incoming-", dir=folder))
    try:
        for run in job["runs"]:
            final, copies, kept = (folder / room for room in (f"offline-run-{run['name']}", *rooms(run["name"])))
            if not final.exists():
                for room in (copies, kept):
                    shutil.rmtree(room, ignore_errors=True)  # of one that was cut short
                _write(job, run, incoming, copies)
                made = next((incoming / "wandb").glob("offline-run-*"))
                _link(copies, kept)
                if not final.exists():  # else another process was faster
                    made.rename(final)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return {}


def _write(job: Mapping[str, Any], told: Mapping[str, Any], incoming: Path, copies: Path) -> None:
    (incoming / "wandb").mkdir(exist_ok=True)
    where = {name: job[name] for name in _LOCAL if job[name]}
    about = {"id": told["name"], "name": told["title"], "group": told["group"], "job_type": told["kind"]}
    run = wandb.init(config=told["config"], settings=offline(incoming), **where, **about)
    for one in told["uses"]:
        if one["texts"]:  # use_artifact refuses offline; this is what it does online with one that is not sent yet
            artifact = _artifact(one, copies / one["name"])
            run._log_artifact(artifact, aliases=list(one["aliases"]), is_user_created=True, use_after_commit=True)
    for step in told["history"]:
        run.log(dict(step))
    for name, table in told["tables"].items():
        run.log({name: wandb.Table(columns=table["columns"], data=table["rows"], allow_mixed_types=True)})
    run.summary.update(told["summary"])
    for one in told["makes"]:
        run.log_artifact(_artifact(one, copies / f"{one['name']}-{one['aliases'][0]}"), aliases=list(one["aliases"]))
    run.finish()


def _artifact(told: Mapping[str, Any], copies: Path) -> Any:
    """Of copies: `wandb sync` DELETES the files that an offline run's artifact names, wherever they lie."""
    made = wandb.Artifact(told["name"], told["kind"], metadata=dict(told["metadata"]))
    copies.mkdir(parents=True)
    for name, path in told["files"].items():
        shutil.copyfile(path, copies / name)
    for name, text in told["texts"].items():
        (copies / name).write_text(text, encoding="utf-8")
    for path in sorted(copies.iterdir()):
        made.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
    return made


def rooms(name: str) -> tuple[str, str]:
    """Below the folder: the files that a run names, which `wandb sync` deletes, and links to them for the next try."""
    return f"copies/{name}", f"kept/{name}"


def _link(files: Path, to: Path) -> None:
    """Those that are not there yet: what `wandb sync` had deleted when it was killed is sent again."""
    for path in files.rglob("*"):
        if path.is_file() and not (link := to / path.relative_to(files)).exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)


def send(job: Mapping[str, Any]) -> dict[str, Any]:
    """One after the other, for their order is that of the aliases. Which ones went, the marker beside each tells."""
    from wandb.cli.cli import cli

    where = [part for name in _LOCAL if job[name] for part in (f"--{name}", job[name])]
    for run in job["runs"]:
        copies, kept = rooms(Path(run).name.removeprefix("offline-run-"))
        _link(Path(job["folder"], kept), Path(job["folder"], copies))
        cli(["sync", *where, run], standalone_mode=False)
    return {}


class _PendingError(Exception):
    """An artifact was begun and its files never came: `wandb sync` marks a run as sent all the same."""

    def __init__(self, name: str, alias: str) -> None:
        super().__init__(f"{name} {alias}")
        self.made = {"name": name, "alias": alias}


def stand(job: Mapping[str, Any]) -> dict[str, Any]:
    """Edges first, then each version; what W&B will never take, or has in part only, is told, and stops nothing."""
    api = wandb.Api(timeout=max(int(job["seconds"] / 2), 1))
    refused, partial = list[str](), list[dict[str, str]]()
    steps = [(_used, "uses"), (_looked, "made"), (_stands, "standings")]
    for do, one in ((do, one) for do, kind in steps for one in job[kind]):
        try:
            why = do(api, job, one)
        except _PendingError as error:
            partial += [error.made] if error.made not in partial else []
            continue
        refused += [why[:300]] if why else []
    return {"refused": refused, "partial": partial}


def _stands(api: Any, job: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    artifact = _named(api, job, one["name"], digest_alias(one["digest"]))
    if artifact is None:
        return f"{one['name']} {one['digest']} is not there, and so does not stand as it should"
    artifact.metadata = merged(artifact.metadata, one["metadata"])
    artifact.aliases = sorted({*artifact.aliases, *one["add"]}.difference(one["drop"]))
    artifact.save()
    if one["link"] and job["registry"]:
        try:
            artifact.link(f"wandb-registry-{job['registry']}/{one['name']}")
        except Exception as error:  # whatever the client raises where there is no such registry, or no right to it
            return f"{one['name']} is not linked to the registry {job['registry']}: {error}"
    return ""


def _used(api: Any, job: Mapping[str, Any], use: Mapping[str, Any]) -> str:
    """The edge of a run that is over: `wandb sync` tells only that of an artifact which came with the run."""
    artifact = _named(api, job, use["name"], use["alias"])
    if artifact is not None:
        api.run(f"{_project(api, job)}/{use['run']}").use_artifact(artifact)
    return ""


def _looked(api: Any, job: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Only whether it is there whole; one that is not there at all somebody deleted."""
    _named(api, job, made["name"], made["alias"])
    return ""


def fetch(job: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle by its digest, of whichever model: no name of a file is believed but a plain one of its manifest."""
    found = _found(wandb.Api(timeout=max(int(job["seconds"] / 2), 1)), job)
    if found is None:
        return {"found": False}
    found.get_entry(MANIFEST).download(job["to"], skip_cache=True)
    try:
        names = read_manifest(job["digest"], Path(job["to"], MANIFEST).read_bytes())["files"]
    except IntegrityError:  # who asked says so
        return {"found": True}
    for name in names:
        found.get_entry(name).download(job["to"], skip_cache=True)
    return {"found": True}


def _found(api: Any, job: Mapping[str, Any]) -> Any:
    for kind in ("model", "reference"):
        for collection in api.artifact_collections(_project(api, job), kind):
            if (found := _named(api, job, collection.name, digest_alias(job["digest"]))) is not None:
                return found
    return None


def _named(api: Any, job: Mapping[str, Any], name: str, alias: str) -> Any:
    """None where there is none; the client's own `artifact_exists` says so, too, where it is not answered."""
    try:
        found = api.artifact(f"{_project(api, job)}/{name}:{alias}")
        if found.state == "PENDING":
            raise _PendingError(name, alias)
        return found
    except wandb.errors.CommError as error:
        if isinstance(error.exc, ValueError):
            return None
        if isinstance(error.exc, AssertionError):  # what the client makes of one without its files
            raise _PendingError(name, alias) from error
        raise


def _project(api: Any, job: Mapping[str, Any]) -> str:
    return f"{job['entity'] or api.default_entity}/{job['project']}"


def _end_with(parent: int) -> None:
    """Who asked may have been killed, and asks again: two clients would take each other's copies away."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


def main() -> None:
    """One at a time but for fetching, which touches no run; it ends itself when its time, or who asked, is over."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    job = json.loads(sys.stdin.read())
    signal.alarm(int(job["seconds"]) + 2)
    if sys.argv[1] != "fetch":
        os.dup2(os.open(Path(job["folder"], ".client"), os.O_RDWR | os.O_CREAT, 0o600), sys.stdin.fileno())
        fcntl.flock(sys.stdin, fcntl.LOCK_EX)  # wandb-core inherits it: the next client waits for an orphan's end, too
    try:
        told = {"ok": True, **{"write": write, "send": send, "stand": stand, "fetch": fetch}[sys.argv[1]](job)}
    except Exception as error:  # the edge of the process: whatever the client raises is told to who asked
        told = {"ok": False, "why": f"{type(error).__name__}: {error}" if str(error) else repr(error)}
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    sys.stdout.flush()
    if not told["ok"]:
        os._exit(1)  # a client that failed may wait at its exit for what never comes


if __name__ == "__main__":
    main()
