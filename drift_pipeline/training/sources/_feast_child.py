"""Asks Feast for the features of entities at moments; run by the interpreter of an environment with Feast, by its path.

Nothing of drift_pipeline is imported, which is not installed there. Its input is a line of JSON (repo,
feature_service) and a Parquet table (`key`, a text, and `event_timestamp`, UTC; each pair once). Its output is a line
of JSON and, unless that refuses, a Parquet table: the same two columns and the service's features.
"""

import hashlib
import inspect
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

_ASKED = "drift_asked"
_OF_FILES = ("dask", "file")
KNOWN_THEN = "filter_by_created_timestamp"  # of get_historical_features, since Feast 0.67


class _RefusedError(Exception):
    """No wait helps: what was asked for is not there, or cannot be asked for."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints is no answer
    request, table = json.loads(sys.stdin.buffer.readline()), sys.stdin.buffer.read()
    features = b""
    try:
        said, features = _answered(request, table)
    except _RefusedError as error:
        said = {"refused": str(error)}
    except Exception as error:  # of Feast, or of the store behind it
        said = {"failed": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(said).encode() + b"\n" + features)
    answers.close()


def _answered(request: dict[str, str], table: bytes) -> tuple[dict[str, Any], bytes]:
    store = _store(Path(request["repo"]))
    service = _service(store, request["feature_service"])
    views = _views(store, service)
    key, whole = _key(views)
    features = _joined(store, service, key, table, whole=whole)
    version, definition = _registry(store, service, views)
    said = {
        "feast": _feast().__version__,
        "project": store.project,
        "registry": version,
        "definition": definition,
        "key": key,
        "whole": whole,
        "features": [one.name for projection in service.feature_view_projections for one in projection.features],
        "undated": sorted(view.name for view in views if not view.batch_source.created_timestamp_column),
    }
    return said, features


def _feast() -> Any:
    try:
        import feast
    except ImportError as error:
        raise _RefusedError(f"DRIFT_FEAST_PYTHON, {sys.executable}, cannot import feast: {error}") from error
    return feast


def _store(repo: Path) -> Any:
    if not (repo / "feature_store.yaml").is_file():
        raise _RefusedError(f"{repo}: has no feature_store.yaml (retrain.source.feast.repo)")
    feast = _feast()
    if KNOWN_THEN not in inspect.signature(feast.FeatureStore.get_historical_features).parameters:
        raise _RefusedError(f"DRIFT_FEAST_PYTHON has Feast {feast.__version__}; 0.67 or later knows what came late")
    sys.path.append(str(repo))  # of which it may have classes
    return feast.FeatureStore(repo_path=str(repo))


def _sort_stably() -> None:
    """Of several values of one moment Feast's file store takes the newest by sorting twice, where an order of equals
    that is not kept gives another (feast issue 3360)."""
    import dask.dataframe as dd

    plain = dd.DataFrame.sort_values

    def stable(frame: Any, by: Any, **more: Any) -> Any:
        return plain(frame, by, **{"sort_function_kwargs": {"kind": "stable"}, **more})

    dd.DataFrame.sort_values = stable


def _service(store: Any, name: str) -> Any:
    known = {service.name: service for service in store.list_feature_services()}
    if name not in known:
        there = ", ".join(sorted(known)) or "none; run feast apply"
        raise _RefusedError(f"{store.repo_path}: there is no feature service {name!r}; there are: {there}")
    return known[name]


def _views(store: Any, service: Any) -> list[Any]:
    """The stored feature views of the service, each as it is projected."""
    plain = {view.name: view for view in store.list_feature_views()}
    found = []
    for projection in service.feature_view_projections:
        if projection.name not in plain:
            raise _RefusedError(
                f"the feature service {service.name!r} has {projection.name!r}, which is computed on demand or "
                "streamed; only stored feature views can be joined as of a moment here"
            )
        found.append(plain[projection.name].with_projection(projection))
    return found


def _key(views: list[Any]) -> tuple[str, bool]:
    """The one join key, and whether it is a whole number."""
    kinds = {
        view.projection.join_key_map.get(column.name, column.name): str(column.dtype)
        for view in views
        for column in view.entity_columns
    }
    if len(kinds) != 1:
        raise _RefusedError(
            f"the feature service has the join keys {', '.join(sorted(kinds)) or 'none'}; "
            "it can have one, which is the spec's columns.entity"
        )
    name, kind = kinds.popitem()
    if not kind.startswith(("Int", "String")):
        raise _RefusedError(f"the join key {name!r} is {kind}; a text or a whole number can be asked for")
    return name, kind.startswith("Int")


def _joined(store: Any, service: Any, key: str, table: bytes, *, whole: bool) -> bytes:
    """As of each moment, without what was created after it."""
    import pandas as pd

    rows = pd.read_parquet(io.BytesIO(table))
    asked = pd.DataFrame({_ASKED: rows["key"], "event_timestamp": rows["event_timestamp"], key: rows["key"]})
    if whole:
        numbers = rows["key"].str.fullmatch(r"[+-]?[0-9]{1,18}")
        if not numbers.any():
            raise _RefusedError(f"no entity of the rows is a whole number, as the join key {key!r} is")
        asked = asked[numbers].astype({key: "int64"})
    if store.config.offline_store.type in _OF_FILES:
        _sort_stably()
    job = store.get_historical_features(entity_df=asked, features=service, **{KNOWN_THEN: True})
    found = job.to_df().drop(columns=[key]).rename(columns={_ASKED: "key"})
    found["event_timestamp"] = pd.to_datetime(found["event_timestamp"], utc=True)
    made = io.BytesIO()
    found.to_parquet(made, index=False)
    return made.getvalue()


def _registry(store: Any, service: Any, views: list[Any]) -> tuple[str, str]:
    """The registry's version, and a digest of all that defines the service: no date, no materialisation."""
    specs = [service.to_proto().spec, *(view.to_proto().spec for view in sorted(views, key=lambda one: one.name))]
    digest = hashlib.sha256(b"\0".join(spec.SerializeToString(deterministic=True) for spec in specs))
    return str(store.registry.proto().version_id), f"sha256:{digest.hexdigest()}"


if __name__ == "__main__":
    os.environ["FEAST_USAGE"] = "False"  # it tells nobody of its use
    main()
