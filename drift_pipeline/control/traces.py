"""Traces of the audit: an incident and all that came of it are one trace, whose ids anybody can derive.

A trace is named `environment/model/incident`, or `environment/model/decision` where a decision answers no incident. Its
id is the first 16 bytes of the name's SHA-256, and its first span's the first 8: a page can name a trace before anybody
was told of it, and who tells it twice tells the same spans.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import DriftError


def trace_id(environment: str, model: str, key: str) -> str:
    """32 hexadecimal digits; the first 16 are `span_id` of the same.

    Args:
        key: the incident's, or the decision's id.

    >>> trace_id("production", "fraud", "ab12cd34ef56-20260301T1100")
    '72f52d07fc280126b7cade82d44d07be'
    """
    return hashlib.sha256("/".join((environment, model, key)).encode("utf-8", "replace")).hexdigest()[:32]


def span_id(environment: str, model: str, key: str) -> str:
    """16 hexadecimal digits: the span of an incident's opening, or of a decision."""
    return trace_id(environment, model, key)[:16]


def traceparent(trace: str) -> str:
    """Of a trace's first span, as W3C Trace Context has it; "" of ""."""
    return f"00-{trace}-{trace[:16]}-01" if trace else ""


def key_of(store: ControlReader, model: str, event: str, details: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """By what a record's trace is named: its incident's key, else its decision's id; "" of what came of neither.

    What the store cannot tell is left out, and never raised.
    """
    if event == "reference.frozen":
        return _text(details.get("closes"))
    if event.startswith("incident."):
        return _text(details.get("key"))
    decision = decision_of(store, model, details, digests)
    if (incident := _text(details.get("incident"))) or not decision:
        return incident
    return key_of_retrain(body_of(store, "retrain", f"{model}/{decision}")) or decision


def decision_of(store: ControlReader, model: str, details: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """The decision that a record came of: its own, or the one that its candidate was trained for; "" where none was."""
    if decision := _text(details.get("decision")):
        return decision
    digest = _text(details.get("candidate")) or _text(digests.get("bundle")) or _text(digests.get("candidate"))
    return _text(body_of(store, "candidate", f"{model}/{digest}").get("decision")) if digest else ""


def key_of_retrain(body: Mapping[str, Any]) -> str:
    """Of a row of the queue. One that the calendar or a person asked for has a name of its own and no incident: then it
    is the decision's."""
    key = _text(body.get("incident"))
    return _text(body.get("decision")) if key.startswith(f"{body.get('trigger')}-") else key


def body_of(store: ControlReader, kind: str, key: str) -> Mapping[str, Any]:
    """Of a row; empty where it is not there, or cannot be read."""
    with suppress(DriftError):
        if found := store.get(kind, key):
            return found.body
    return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
