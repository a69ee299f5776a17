"""Every parser that takes a stranger's bytes, on seeds that it reads and on what becomes of them by mutation.

It reads them or raises one of the package's own errors: no traceback, no hang, no memory beyond a bound. The seed of a
failure is in the test's name and its case in the message. A fixed budget by default; `-m slow` has a larger one.
"""

import gzip
import io
import json
import os
import random
import resource
import signal
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import polars as pl
import pytest

from drift_pipeline.clock import system_clock
from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.signing import PublicKey, Signer, public_path, verify
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store
from drift_pipeline.errors import DriftError
from drift_pipeline.policy.engines.embedded import PROBE, EmbeddedEngine
from drift_pipeline.registry.bundle import load_pipeline, read_manifest
from drift_pipeline.rollout.approval import APPROVAL_TYPE, read_approvals, sign_approval, verify_approval
from drift_pipeline.rollout.signed import Asked
from drift_pipeline.serving.endpoints import Events, Outcomes
from drift_pipeline.serving.protocol import read_ask, read_document
from drift_pipeline.settings import Settings
from drift_pipeline.spec import read_spec
from drift_pipeline.telemetry.event import read_event
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.serving.worlds import SPECS, infer, model

CASE_SECONDS, MOST_GROWTH_KB = 10, 600_000
FEW, MANY = 60, 3000
DIGEST = "sha256:" + "a" * 64
AT = datetime(2026, 3, 1, tzinfo=UTC)
Parse = Callable[[bytes, Path], object]

TOKENS = [
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", "\u202e\u2028".encode(), b"\\ud800", b"\r", b"\n"),
    *(b'"', b"'", b"\\", b",", b";"),
    *(b"NaN", b"-Infinity", b"1e999", b"-1e-999", b"1" * 400, b"1" * 5000, b"-0", b"0x10", b"1_000", b"null", b"true"),
    *(b"9999-12-31T23:59:59Z", b"9999-12-31", b"0001-01-01T00:00:00+23:59", b"2026-02-31", b"1:2:3:4", b"253402300800"),
    *(b"[" * 300, b"{" * 300, b'{"a":' * 300, b"[" * 5000, b'{"a":' * 5000, b"- " * 3000, b"? " * 500, b"a: " * 50),
    *(b"*a", b"&a [*a]", b"<<: *a", b"!!python/object:os.system", b"!!binary x", b"!!timestamp x", b"!!int ''", b"{{"),
    *(b"../../etc/passwd", b"x" * 3000, b"18446744073709551616", b"-9223372036854775809", b"", b" "),
]
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**63, 2**64, 10**400, 1.5, 1e308, "", "x", "\u0000", "x" * 3000, "9999-12-31T23:59:59Z"),
    *([], {}, [[]], [None], {"a": {}}, [1] * 50, {"": 0}),
]


# Mutations


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    data = chance.choice(seeds)
    if chance.random() < 0.4 and (other := _in_json(data, chance)) is not None:
        return other
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 4, 16, 200))
        match chance.randrange(6):
            case 0:
                data = data[:at] + bytes(chance.randrange(256) for _ in range(min(length, 4))) + data[at + length :]
            case 1:
                data = data[:at] + data[at + length :]
            case 2:
                data = data[: at + length] + data[at:]
            case 3 | 4:
                data = data[:at] + chance.choice(TOKENS) + data[at + (length if chance.random() < 0.5 else 0) :]
            case _:
                data = data[:at] + chance.choice(seeds)[at:]
    return data if chance.random() < 0.9 else data[: chance.randrange(len(data) + 1)]


def _in_json(data: bytes, chance: random.Random) -> bytes | None:
    """Another value or none somewhere in a JSON document."""
    try:
        document = json.loads(data)
    except ValueError:
        return None
    for _ in range(chance.choice((1, 1, 3))):
        here: Any = document
        for _ in range(chance.randrange(1, 8)):
            keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
            if not keys:
                break
            key = chance.choice(keys)
            inner = here[key]
            if not isinstance(inner, dict | list) or chance.random() < 0.3:
                if chance.random() < 0.2:
                    del here[key]
                else:
                    here[key] = chance.choice([*VALUES, inner, [inner], {"a": inner}])
                break
            here = inner
    try:
        return json.dumps(document).encode()
    except ValueError:  # it holds itself
        return None


# Parsers, each with seeds that it reads


def pairs(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def table() -> pl.DataFrame:
    times = [AT + timedelta(hours=k) for k in range(40)]
    columns = {"ts": times, "amount": [float(k) for k in range(40)], "age": [float(k % 7) for k in range(40)]}
    return pl.DataFrame(
        {**columns, "device": ["tv", "phone"] * 20, "region": ["n", "s", None, "w"] * 10, "label": [0, 1] * 20}
    )


def parquet() -> bytes:
    file = io.BytesIO()
    table().write_parquet(file)
    return file.getvalue()


def csv(**options: Any) -> bytes:
    return bytes(table().write_csv(**options).encode())


def history(name: str) -> Parse:
    document = SPECS["fraud"].model_dump(mode="json") | {"outcome": {"column": "label"}, "columns": {"timestamp": "ts"}}
    declared = type(SPECS["fraud"]).model_validate(document)
    return lambda data, folder: read_history(pairs(folder, name, data), declared)


def folder_of_files(data: bytes, folder: Path) -> object:
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    (parts / "a.parquet").write_bytes(parquet())
    (parts / ("b.csv" if len(data) % 2 else "b.parquet")).write_bytes(data)
    try:
        document = SPECS["fraud"].model_dump(mode="json") | {"outcome": {"column": "label"}}
        return read_history(parts, type(SPECS["fraud"]).model_validate(document), "ts")
    finally:
        for path in parts.iterdir():
            path.unlink()


def in_archive(data: bytes, _: Path) -> object:
    """The bytes are schema.json of a model's archive whose other files are sound."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model(0))) as good, zipfile.ZipFile(packed, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, data if name == "schema.json" else good.read(name))
    return load_pipeline(packed.getvalue())


def as_array(data: bytes, _: Path) -> object:
    """The bytes are each array of a model's archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(model(0))) as good, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bad:
        for name in good.namelist():
            bad.writestr(name, data if name.endswith(".npy") else good.read(name))
    return load_pipeline(packed.getvalue())


def member(ending: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(model(0))) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(ending)))


def approved(data: bytes, folder: Path) -> object:
    place = folder / "approvals" / "fraud"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{'a' * 64}.dsse.json").write_bytes(data)
    asked = Asked({"ada": SIGNER.public}, "fraud", DIGEST, "production", "b" * 64, timedelta(days=90), AT)
    return [verify_approval(one, asked, "fraud-v2.1") for one in read_approvals(folder, "fraud", DIGEST)]


def policy(data: bytes, folder: Path) -> object:
    pairs(folder, "drift.rego", data)
    with EmbeddedEngine(folder) as engine:
        return engine.evaluate(PROBE).value


def environment(data: bytes, _: Path) -> object:
    """NAME=VALUE lines."""
    lines = data.replace(b"\0", b"").decode("utf-8", "replace").splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            if name.startswith("DRIFT_"):
                patch.setenv(name, value)
        settings, clock = Settings(), system_clock()
        clock.now()
        url = settings.database_url
        if url.startswith("sqlite"):
            return url
        ControlStore(url, clock).close()
        return url


def checkpoint(data: bytes, folder: Path) -> object:
    settings = Settings(home=folder / "home", database="")
    if not settings.checkpoints.exists():
        settings.home.mkdir()
        open_store(settings, system_clock()).close()
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    (settings.checkpoints / "9.dsse.json").write_bytes(data)
    ended = drift("audit", "verify", settings.home)
    assert ended.code in (0, 1, 2, 3), ended.err
    return ended


SIGNER = Signer.generate("ada")
ENVELOPE = sign_approval(
    SIGNER,
    model="fraud",
    digest=DIGEST,
    rollout="fraud-v2.1",
    environment="production",
    trainer="b" * 64,
    reason="looks good",
    at=AT - timedelta(days=1),
    expires=AT + timedelta(days=1),
)
EVENT = {
    **{"event": "prediction", "model": "fraud", "id": "x", "time": "2026-02-01T00:00:00Z", "version": "v1"},
    **{"route": "stable", "score": 0.5, "latency_ms": 1.0, "entity": "u", "features": None},
}
FEATURES = {"amount": 1.0, "age": None, "device": "tv", "region": "north"}
REGO = b'package drift\ndecision := {"action": "ignore", "reasons": []} if { input.incident }\n'


def _document(data: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(data)
        return found if isinstance(found, dict) else {"payload": found}
    return {}


def _json(*documents: object) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


def parsers() -> Mapping[str, tuple[Parse, Callable[[Path], list[bytes]]]]:
    """By name: the parser, and its seeds."""

    def key_file(folder: Path) -> list[bytes]:
        path = folder / "seed.pem"
        if not path.exists():
            SIGNER.save(path)
        return [public_path(path).read_bytes()]

    def private(data: bytes, folder: Path) -> object:
        key_file(folder)
        (folder / "other.pub.json").write_bytes((folder / "seed.pub.json").read_bytes())
        return Signer.load(pairs(folder, "other.pem", data))

    def private_file(folder: Path) -> list[bytes]:
        key_file(folder)
        return [(folder / "seed.pem").read_bytes()]

    outcome = {"event": "outcome", "model": "fraud", "id": "x", "time": "2026-02-01T00:00:00Z", "label": 1}
    settings = b"DRIFT_DRILL=60@2026-01-31T12:00:00+00:00\nDRIFT_TICK_SECONDS=30\nDRIFT_DATABASE=sqlite:///x.db\nDRIFT_ENVIRONMENT=p"
    more = b"DRIFT_DATABASE=postgresql+psycopg://a:b@127.0.0.1:1/x\nDRIFT_HOME=x\nDRIFT_MODELS=/nowhere\nDRIFT_DRILL=fast\n"
    bodies = infer([(0.5, 1.0, "tv")] * 2, id="r", parameters={"entity": ["a", None], "ids": ["p", "q"]})
    yaml = [SAMPLE_SPEC.encode(), b"type: x\nattributes: {}"]
    events = _json({**EVENT, "features": FEATURES}, outcome)
    return {
        "spec": (lambda data, folder: read_spec(pairs(folder, "defs.yaml", data)), lambda _: yaml),
        "history.csv": (history("h.csv"), lambda _: [csv(), csv(separator=";"), csv(datetime_format="%s")]),
        "history.parquet": (history("h.parquet"), lambda _: [parquet()]),
        "history.csv.gz": (history("h.csv.gz"), lambda _: [gzip.compress(csv(), mtime=0)]),
        "history, a folder": (folder_of_files, lambda _: [csv(), parquet()]),
        "model": (lambda data, _: load_pipeline(data), lambda _: [model(0), model(0, "logistic_regression")]),
        "model, its schema": (in_archive, lambda _: [member("schema.json")]),
        "model, its arrays": (as_array, lambda _: [member(".npy")]),
        "manifest": (lambda data, _: read_manifest(DIGEST, data), lambda _: [canonical({"files": {}})]),
        "canonical JSON": (lambda data, _: read_canonical(data), lambda _: [canonical({"a": [1, 1.5, "x", None]})]),
        "event": (lambda data, _: read_event(data, SPECS, AT), lambda _: events),
        "tensors": (lambda data, _: read_ask(data, SPECS["fraud"]), lambda _: _json(bodies)),
        "outcomes": (
            lambda data, _: read_document(Outcomes, data),
            lambda _: _json({"outcomes": [{"id": "a", "label": 1}, {"id": "b", "label": 0, "time": "2026-01-01"}]}),
        ),
        "events": (lambda data, _: read_document(Events, data), lambda _: _json({"events": [EVENT]})),
        "approval": (approved, lambda _: _json(ENVELOPE)),
        "envelope": (
            lambda data, _: verify(_document(data), {"ada": SIGNER.public}, APPROVAL_TYPE),
            lambda _: _json(ENVELOPE),
        ),
        "public key": (lambda data, folder: PublicKey.load(pairs(folder, "k.pub.json", data)), key_file),
        "private key": (private, private_file),
        "checkpoint": (checkpoint, lambda _: _json(SIGNER.sign({"seq": 1, "hash": DIGEST}, "x"))),
        "policy": (policy, lambda _: [REGO]),
        "settings": (environment, lambda _: [settings, more]),
    }


SLOW = {"policy": 6, "checkpoint": 20, "model, its schema": 25, "model, its arrays": 30, "model": 40}


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Time and memory of one case."""

    def late(_: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} takes longer than {CASE_SECONDS} s, at {frame}")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refused(parse: Parse, data: bytes, folder: Path) -> str:
    """What a refusal says; "" where the bytes were read."""
    try:
        parse(data, folder)
    except DriftError as error:
        return str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise AssertionError(f"{type(error).__name__}: {error}, at {last.filename}:{last.lineno}"[:1000]) from None
    return ""


def try_all(name: str, cases: int, seed: int, folder: Path) -> None:
    parse, made = parsers()[name]
    seeds = made(folder)
    for one in seeds:
        with suppress(DriftError):
            parse(one, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    alone = [] if name in SLOW else [*TOKENS, *(json.dumps(value).encode() for value in VALUES)]
    for case in range(-len(alone), cases):
        data = alone[case] if case < 0 else mutated(seeds, random.Random(f"{name} {seed} {case}"))
        told = f"{name}, case {case} of seed {seed}, {data[:300]!r}"
        with bounded(told):
            refusal = refused(parse, data, folder)
        assert not refusal or len(refusal) < 20_000, told
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MOST_GROWTH_KB


@pytest.mark.parametrize("name", parsers())
def test_a_strangers_bytes_are_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    try_all(name, SLOW.get(name, FEW), 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", parsers())
def test_many_of_a_strangers_bytes_are_read_or_refused(name: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    try_all(name, MANY * SLOW.get(name, FEW) // FEW, seed, tmp_path)
