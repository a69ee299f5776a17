"""What a long-lived process says on stderr: one JSON object a line, or text where somebody watches.

A line says which model, incident, decision, rollout, run and trace it is about, where that is known. It holds no value
of a feature and nobody's id: an error that is not ours may quote data, so only its kind and place are told.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from drift_pipeline.errors import DriftError

FIELDS = ("model", "incident", "decision", "rollout", "run", "trace_id")
OURS = "drift_pipeline"

log = logging.getLogger(__name__)
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039 (it is never changed)


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Lines of this task say so, those of `FIELDS`; threads begin anew."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def told(error: BaseException) -> str:
    """What an error says, where its words are ours or the system's; else its kind and where it was raised."""
    if isinstance(error, DriftError | OSError):
        return str(error)
    places = [f" at {Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[-1:]]
    return "".join([type(error).__name__, *places])


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """What a line is about: its own `extra` before what the task is about."""
    own = {name: str(value) for name in FIELDS if (value := getattr(record, name, None))}
    return {**_about.get(), **own}


def message_of(record: logging.LogRecord) -> str:
    """The line's words. An error among the arguments is `told`."""
    if isinstance(record.args, tuple):
        args = tuple(told(one) if isinstance(one, BaseException) else one for one in record.args)
        return str(record.msg) % args if args else str(record.msg)
    return record.getMessage()


def error_of(record: logging.LogRecord) -> dict[str, Any]:
    """The error that a line tells of: its words as of `told`, and where it came from, innermost last."""
    if not record.exc_info or record.exc_info[1] is None:
        return {}
    _, error, at = record.exc_info
    places = [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(at)]
    return {"error": told(error), "at": places}


class JsonLines(logging.Formatter):
    """time, level, logger, message, what of FIELDS is known; of an error also error and at."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": at, "level": record.levelname, "logger": record.name, "message": message_of(record)}
        return json.dumps({**line, **fields_of(record), **error_of(record)})


class Text(logging.Formatter):
    """The same to be read: what a message has that cannot be printed is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        said = "".join(one if one.isprintable() else repr(one)[1:-1] for one in message_of(record))
        error = error_of(record)
        more = [str(error["error"]), *(f"  {place}" for place in error["at"])] if error else []
        return "\n".join(
            [f"{datetime.fromtimestamp(record.created).astimezone():%H:%M:%S} {record.levelname:7} {said}", *more]
        )


def is_json(form: str) -> bool:
    """Whether lines are JSON; `form` is DRIFT_LOG: json, text, or "", which is text on a terminal."""
    return form == "json" or (form != "text" and not sys.stderr.isatty())


@contextmanager
def to_stderr(form: str, *more: logging.Handler, of: str = "") -> Iterator[None]:
    """What this process logs goes to stderr, and to what else handles it, until the block ends.

    Ours from INFO on, of others from WARNING on. As JSON, an error that nobody expected is a line as well, and ends
    the process with 1.

    Args:
        of: the logger; "" = all.
    """
    handler, logger, ours = logging.StreamHandler(), logging.getLogger(of), logging.getLogger(OURS)
    handler.setFormatter(JsonLines() if is_json(form) else Text())
    handlers, level, hook = (handler, *more), ours.level, threading.excepthook
    for one in handlers:
        logger.addHandler(one)
    ours.setLevel(logging.INFO)
    if is_json(form) and not of:
        threading.excepthook = _thread_died
    try:
        yield
    except DriftError:
        raise
    except Exception as error:
        if not is_json(form) or type(error).__module__.startswith("click"):
            raise
        log.critical("it ends by an error that was not expected", exc_info=True)
        raise SystemExit(1) from None
    finally:
        threading.excepthook = hook
        ours.setLevel(level)
        for one in reversed(handlers):  # stderr last: what the others say when they end is a line as well
            logger.removeHandler(one)
            one.close()


def announce(line: str, form: str = "") -> None:
    """A line that people and scripts wait for, such as an address: plain, unless DRIFT_LOG asks for JSON."""
    if form == "json":
        log.info("%s", line)
    else:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _thread_died(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        died: tuple[type[BaseException], BaseException, TracebackType | None]
        died = (args.exc_type, args.exc_value, args.exc_traceback)
        log.critical(
            "the thread %s ends by an error that was not expected", args.thread and args.thread.name, exc_info=died
        )
