"""A question to a process of its own, through pipes: what it does there it does in bounded time, and nothing of it lies
on a disk."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

_NOT_HANDED_ON = ("DRIFT_", "PYTHON", "VIRTUAL_ENV")


class NoAnswerError(Exception):
    """What it said at last instead."""


Answer = tuple[Mapping[str, Any], bytes, str]  # what it says, a table, and the last line of its log


def asked(command: Sequence[str], question: Mapping[str, Any], table: bytes, seconds: float) -> Answer:
    """Its answer: a line of JSON, and what follows. The environment is handed on, but for settings of ours.

    Raises:
        OSError: the command cannot be run.
        TimeoutError: it did not answer in time, and was ended with all that it started.
        NoAnswerError: it answered nothing that can be read.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_HANDED_ON)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=kept, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    try:
        output, log = process.communicate(json.dumps(question).encode() + b"\n" + table, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        _end(process)
    last = ["nothing", *filter(None, map(str.strip, log.decode(errors="replace").splitlines()))][-1]
    head, _, rest = output.partition(b"\n")
    try:
        return dict(json.loads(head)), rest, last
    except (ValueError, TypeError):
        raise NoAnswerError(last) from None


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
