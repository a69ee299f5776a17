"""Alerts as JSON lines in a file: the embedded default, which needs no account."""

import json
import os
from pathlib import Path

from drift_pipeline.control.store import Message
from drift_pipeline.errors import UnavailableError


class LogChannel:
    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, message: Message) -> None:
        line = json.dumps({"id": message.id, **message.body}, sort_keys=True) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UnavailableError(f"{self._path}: the alert cannot be written: {error}") from error
