"""Where lineage events go: files of JSON lines below the home, or a lineage backend by HTTP, such as Marquez."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.evidence.lineage.events import Event

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

MOST_BYTES = 1 << 23  # of a file
TIMEOUT_S = 5.0  # of one request, for each of: to connect, to hear anything
_POISON = (400, 413, 422)  # it is the event that is wrong; anything else may pass
_BROKEN = 500


class RefusedEventError(Exception):
    """The backend does not take this event; whether it takes others says which of both is wrong."""


class Sink(Protocol):
    """Obligations: `send` returns only when all events are safe there, and may be called again with the same ones.

    Raises UnavailableError when it is not reached; RefusedEventError where `batch` is 1 and the event is refused.
    """

    batch: int  # events at once

    def send(self, events: Sequence[Event], left: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        Args:
            left: what the last call returned, of whichever process; {} before the first.
        """

    def close(self) -> None: ...


class FileSink:
    """`<number>.jsonl`, each up to 8 MB; older ones may be deleted or moved away at any time."""

    batch = 500

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, events: Sequence[Event], left: Mapping[str, Any]) -> Mapping[str, Any]:
        """What lies behind what was told to have been written is of a process that died: it is written again."""
        name, size = str(left.get("file", "000001.jsonl")), int(left.get("size", 0))
        if size >= MOST_BYTES:
            name, size = f"{int(name.partition('.')[0]) + 1:06d}.jsonl", 0
        path = self._folder / name
        lines = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
        try:
            with path.open("ab") as file:
                if file.tell() > size:
                    file.truncate(size)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
                return {"file": name, "size": file.tell()}
        except OSError as error:
            raise UnavailableError(f"{path}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """No file stays open between two calls."""


class HttpSink:
    """One event a request, by the client of OpenLineage. What is imported here binds a socket to see what the machine
    can: only who delivers makes one."""

    batch = 1

    def __init__(self, url: str, key: str = "", *, patient: bool = True) -> None:
        """
        Args:
            patient: a backend that breaks (500) may take an event later; else it refuses it.

        Raises:
            InputError: `url` is no address.
        """
        from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport, TokenProvider

        self._refused = _POISON if patient else (*_POISON, _BROKEN)
        auth = ApiKeyTokenProvider({"api_key": key}) if key else TokenProvider({})
        config = HttpConfig(url=url.rstrip("/") + "/", timeout=TIMEOUT_S, auth=auth, retry={"total": 0})
        try:
            self._transport: HttpTransport = HttpTransport(config)
        except ValueError as error:
            raise InputError(f"DRIFT_LINEAGE_URL: {error}") from error

    def send(self, events: Sequence[Event], left: Mapping[str, Any]) -> Mapping[str, Any]:
        for event in events:
            try:
                self._transport.emit(run_event(event))
            except (TypeError, ValueError) as error:
                if isinstance(error, OSError):  # an address that requests cannot read
                    raise UnavailableError(f"the lineage backend cannot be asked: {error}") from error
                raise RefusedEventError(f"it is no event: {error}") from error
            except OSError as error:  # requests' own errors are of this kind
                status = getattr(getattr(error, "response", None), "status_code", None)
                if status in self._refused:
                    raise RefusedEventError(f"the backend answers {status}") from error
                why = f"answers {status}" if status else f"does not answer: {type(error).__name__}"
                raise UnavailableError(f"the lineage backend {why}") from error
        return left

    def close(self) -> None:
        self._transport.close()


def run_event(event: Event) -> "RunEvent":
    """The event as the client's own classes, which check run id, time and addresses."""
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

    return RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=Run(**event["run"]),
        job=Job(**event["job"]),
        inputs=[InputDataset(**dataset) for dataset in event["inputs"]],
        outputs=[OutputDataset(**dataset) for dataset in event["outputs"]],
    )
