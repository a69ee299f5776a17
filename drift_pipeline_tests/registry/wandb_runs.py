"""What lies in the folder of an offline W&B run, read back by W&B's own protobufs."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEADER, _PIECE = 32768, 7, 7


@dataclass
class Logged:
    name: str
    kind: str
    aliases: list[str]
    metadata: dict[str, Any]
    used: bool
    files: dict[str, str]  # name: where it lies


@dataclass
class OfflineRun:
    """What was written of one run."""

    id: str = ""
    project: str = ""
    kind: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Logged] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def made(self, kind: str) -> Logged:
        return next(one for one in self.artifacts if one.kind == kind and not one.used)


def read_run(folder: Path) -> OfflineRun:
    """The run of an `offline-run-*` folder."""
    from wandb.proto import wandb_internal_pb2 as pb

    run = OfflineRun()
    for raw in _records(next(folder.glob("*.wandb"))):
        record = pb.Record()
        record.ParseFromString(raw)
        match record.WhichOneof("record_type"):
            case "run":
                told = record.run
                run.id, run.project, run.kind, run.group = told.run_id, told.project, told.job_type, told.run_group
                run.config.update({item.key: json.loads(item.value_json) for item in told.config.update})
            case "artifact":
                run.artifacts.append(_logged(record.artifact))
            case "history":
                run.history.append(_items(record.history.item))
            case "summary":
                run.summary.update(_items(record.summary.update))
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _logged(told: Any) -> Logged:
    files = {entry.path: entry.local_path for entry in told.manifest.contents}
    aliases, metadata = list(told.aliases), json.loads(told.metadata or "{}")
    return Logged(told.name, told.type, aliases, metadata, told.use_after_commit, files)


def _records(path: Path) -> Iterator[bytes]:
    """LevelDB's log format: pieces of records in blocks of 32 KiB."""
    data, at, held = path.read_bytes(), _HEADER, b""
    while at + _PIECE <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + _PIECE])
        held += data[at + _PIECE : at + _PIECE + size]
        at += _PIECE + size
        if kind in (1, 4):  # whole, or its last piece
            yield held
            held = b""
