"""Set aside: a model's part of segments that its lake does not take, so that the segments go on without it.

Beside the segments of a source, `waiting/<model>/<number>.jsonl`: a line that tells when they were read, then the
events as they came. They land in order once the lake takes them; those of no known model wait in a folder `-`.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.files import sync_entries, write_whole
from drift_pipeline.telemetry.sources.spool import Segment, SpoolReader

_NOBODYS = "-"


@dataclass(frozen=True)
class Part:
    """`judged_at`: when its lines were first read; by that time they are read again."""

    judged_at: datetime
    lines: list[bytes]


class SetAside:
    """Of one source."""

    def __init__(self, source: Path) -> None:
        self._folder = source / "waiting"

    def models(self) -> list[str]:
        """Those of which something waits; "" for what names none."""
        if not self._folder.is_dir():
            return []
        return sorted("" if path.name == _NOBODYS else path.name for path in self._folder.iterdir() if path.is_dir())

    def parts(self, model: str) -> list[Segment]:
        """In the order in which they have to land."""
        return SpoolReader(self._folder / (model or _NOBODYS)).segments()

    def read(self, part: Segment) -> Part:
        """
        Raises:
            UnavailableError: the disk does not give it.
            IntegrityError: it does not begin as `add` begins it.
        """
        lines = part.lines()
        try:
            return Part(datetime.fromisoformat(json.loads(lines[0])["judged_at"]), lines[1:])
        except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            told = 'its first line is to be {"judged_at": "<ISO 8601 with zone>"}; restore it, or take the file away'
            raise IntegrityError(f"{part.path}: is no part that was set aside: {told}") from error

    def add(self, model: str, segment: Segment, judged_at: datetime, lines: Sequence[bytes]) -> None:
        """Durably, and as old as its segment; what an earlier try left of the same segment gives way.

        Raises:
            UnavailableError: the disk does not take it.
        """
        path = self._folder / (model or _NOBODYS) / segment.path.name
        head = json.dumps({"judged_at": judged_at.isoformat()}).encode()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, b"".join(line + b"\n" for line in (head, *lines)))
            os.utime(path, (segment.written_at, segment.written_at))
            sync_entries(path.parent)
        except (InputError, OSError) as error:
            raise UnavailableError(f"{path}: what waits for {model} cannot be set aside: {error}") from error

    def done(self, model: str, part: Segment) -> None:
        """It landed. Raises UnavailableError where the disk refuses; the part is told again."""
        folder = self._folder / (model or _NOBODYS)
        SpoolReader(folder).done(part)
        if not any(folder.iterdir()):
            folder.rmdir()


def oldest(spool: Path) -> dict[str, float]:
    """When the oldest event that waits below a spool was written, in seconds since 1970, by model.

    Those of "" wait in segments that were not taken yet, or name no known model; what goes meanwhile is left out.
    """
    found: dict[str, float] = {}
    for source in spool.iterdir() if spool.is_dir() else ():
        aside = SetAside(source)
        waiting = [("", SpoolReader(source).closed()), *((model, aside.parts(model)) for model in aside.models())]
        for model, segments in waiting:
            for segment in segments[:1]:
                with suppress(OSError):
                    found[model] = min(found.get(model, segment.written_at), segment.written_at)
    return found
