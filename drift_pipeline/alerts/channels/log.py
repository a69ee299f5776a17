"""Alerts as JSON lines in a file: the embedded default, which needs no account."""

import json
import os
from pathlib import Path
from typing import BinaryIO

from drift_pipeline.control.store import Message
from drift_pipeline.errors import UnavailableError


class LogChannel:
    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, message: Message) -> None:
        line = json.dumps({"id": message.id, **message.body}, sort_keys=True) + "\n"
        try:
            with self._path.open("a+b") as file:
                if file.tell() and not _ends_a_line(file):  # a writer before died within its line
                    line = "\n" + line
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UnavailableError(f"{self._path}: the alert cannot be written: {error}") from error


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
