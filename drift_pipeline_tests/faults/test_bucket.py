"""A real S3-compatible server that goes wrong, and bytes in it that do: told in one sentence, and nothing is lost."""

import http.server
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from drift_pipeline import bucket as module
from drift_pipeline.bucket import Bucket, Objects
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.registry.backends.bucket import BucketRegistry
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.contracts.test_registry import FIELDS, FILES
from drift_pipeline_tests.parts.s3 import KEY, S3, SECRET
from drift_pipeline_tests.telemetry.test_lake import ALL, predictions

pytestmark = pytest.mark.live


def refused(place: Bucket) -> list[str]:
    """What reading, writing, and the registry say of it."""
    lake, said = Lake(place / "lake"), list[str]()
    doors = (
        lambda: lake.read("predictions", ALL),
        lambda: lake.append("predictions", predictions(0), 0),
        lambda: lake.compact("predictions"),
        lambda: BucketRegistry(place / "registry").put(FIELDS, FILES),
        lambda: BucketRegistry(place / "registry").get("sha256:" + "0" * 64),
    )
    for door in doors:
        with pytest.raises(UnavailableError) as error:
            door()
        said.append(str(error.value))
        assert error.value.__suppress_context__  # its words may quote a token
    return said


def one_sentence(said: list[str], *words: str) -> None:
    for text in said:
        assert text.startswith("s3://")
        assert all(word in text for word in words), text
        assert "\n" not in text
        assert not any(secret in text for secret in (KEY + ":", SECRET, "AKIA", "Signature"))


def test_a_bucket_that_is_not_there_is_said_so(s3_place: Bucket) -> None:
    wrong = Bucket("s3://no-such-bucket/home", s3_place.beside)
    one_sentence(refused(wrong), "there is no such bucket at http://127.0.0.1:", "mend DRIFT_STORE")


def test_without_credentials_it_is_said_which_are_wanted(s3_place: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # where a machine's role would be asked for
    one_sentence(refused(s3_place), "no credentials: set AWS_ACCESS_KEY_ID")


def test_who_may_not_is_told_403(s3_server: S3, s3_place: Bucket) -> None:
    s3_server.ask("POST", "/moto-api/reset-auth", b"0")  # from now on it asks who somebody is
    try:
        one_sentence(refused(s3_place), "refuses it (403", "give the credentials rights")
    finally:
        s3_server.ask("POST", "/moto-api/reset-auth", b"1000000000")


def test_a_server_that_is_down_is_said_so_soon(s3_place: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    one_sentence(refused(s3_place), "http://127.0.0.1:9 cannot be reached")


def test_a_server_that_hangs_is_waited_for_a_bounded_time_and_nothing_is_lost(
    s3_server: S3, s3_place: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 1)
    monkeypatch.setattr(module, "_RETRY_S", 1)
    lake = Lake(s3_place / "lake")
    lake.append("predictions", predictions(0), 0)
    put = BucketRegistry(s3_place / "registry").put(FIELDS, FILES)
    s3_server.server.freeze(True)
    try:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="did not answer in time"):
            lake.append("predictions", predictions(1), 1)
        with pytest.raises(UnavailableError, match="did not answer in time"):
            lake.read("predictions", ALL)
        assert time.monotonic() - began < 30
        assert BucketRegistry(s3_place / "registry").get(put.digest) == put  # of the copy here
        with pytest.raises(UnavailableError, match="did not answer in time"):
            BucketRegistry(s3_place / "registry", copies=False).get(put.digest)
    finally:
        s3_server.server.freeze(False)
    lake.flush("predictions")
    assert Lake(s3_place / "lake").read("predictions", ALL).height == 6


def test_a_commit_that_was_taken_and_not_answered_is_not_written_twice(
    s3_server: S3, s3_place: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is frozen in the middle of appends, and goes on with what it had received."""
    monkeypatch.setattr(module, "TIMEOUT_S", 1)
    monkeypatch.setattr(module, "_RETRY_S", 1)
    lake, failed, ending = Lake(s3_place / "lake"), 0, threading.Event()

    def stutter() -> None:
        while not ending.is_set():
            time.sleep(0.3)
            s3_server.server.freeze(True)
            time.sleep(1.5)
            s3_server.server.freeze(False)

    lake.append("predictions", predictions(0), 0)
    other = threading.Thread(target=stutter)
    other.start()
    try:
        for batch in range(1, 9):
            until = time.monotonic() + 120
            while time.monotonic() < until:
                try:
                    lake.append("predictions", predictions(batch), batch)
                    lake.flush("predictions")
                    break
                except UnavailableError:
                    failed += 1
    finally:
        ending.set()
        other.join()
        s3_server.server.freeze(False)
    assert failed > 0
    rows = Lake(s3_place / "lake").read("predictions", ALL)["_id"].to_list()
    assert len(rows) == 27 == len(set(rows))


@pytest.mark.parametrize("what", ["swapped", "gone"])
def test_bytes_of_a_bundle_that_were_changed_count_for_nothing(s3_place: Bucket, what: str, tmp_path: Path) -> None:
    place = s3_place / "registry"
    put = BucketRegistry(place).put(FIELDS, FILES)
    objects = Objects(place)
    (name,) = [name for name in objects.names() if name.endswith("/model.skops")]
    objects.put(name, b"other bytes") if what == "swapped" else objects.delete([name])
    other = BucketRegistry(Bucket(place.url, tmp_path / "other"))
    doors: list[Callable[[], object]] = [lambda: other.get(put.digest), lambda: other.put(FIELDS, FILES)]
    for door in doors:
        with pytest.raises(IntegrityError, match=r"model\.skops"):
            door()
    assert BucketRegistry(place).get(put.digest) == put
    with pytest.raises(IntegrityError, match=r"model\.skops"):
        BucketRegistry(place, copies=False).get(put.digest)


def test_a_copy_that_was_damaged_is_read_from_the_bucket(s3_place: Bucket, caplog: pytest.LogCaptureFixture) -> None:
    place = s3_place / "registry"
    put = BucketRegistry(place).put(FIELDS, FILES)
    (copy,) = place.beside.rglob("model.skops")
    copy.write_bytes(b"other")
    with caplog.at_level(logging.WARNING):
        assert BucketRegistry(place).get(put.digest) == put
    assert "it is a copy" in caplog.text


@pytest.mark.parametrize(
    "url", ["s3://", "s3://UPPER/x", "gs://bucket", "s3://bucket/../x", "s3://bucket/a b", "/lake"]
)
def test_what_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="DRIFT_STORE"):
        Settings(store=url)


class Careless(http.server.BaseHTTPRequestHandler):
    """A store that puts an object over another, whatever is asked: a real one behind it is not told."""

    real = ""

    def _pass_on(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        left_out = ("if-none-match", "host", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        asked = urllib.request.Request(self.real + self.path, data or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(asked, timeout=20) as found:
                status, told, kept = found.status, found.read(), found.headers
        except urllib.error.HTTPError as error:
            status, told, kept = error.code, error.read(), error.headers
        self.send_response(status)
        for name in ("etag", "content-type", "last-modified"):
            if name in kept:
                self.send_header(name, kept[name])
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_a_store_that_ignores_conditions_is_refused(
    s3_server: S3, s3_place: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type("Handler", (Careless,), {"real": s3_server.url})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as careless:
        threading.Thread(target=careless.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{careless.server_port}")
        try:
            with pytest.raises(InputError, match="ignores If-None-Match"):
                Lake(s3_place / "lake").append("predictions", predictions(0), 0)
        finally:
            careless.shutdown()
