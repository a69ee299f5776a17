"""What strangers and hostile producers send to the gateway: refused before it costs, and bounded where it waits."""

import json
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.serving import allowance
from drift_pipeline.serving.allowance import MOST_BYTES, MOST_VALUES, MOST_WASTE, WASTE
from drift_pipeline.serving.endpoints import MOST_EVENTS, Events, Outcomes
from drift_pipeline.serving.protocol import MOST_ROWS, read_ask, read_document
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.test_gateway import INFER, ROW, ask, events, gateway
from drift_pipeline_tests.serving.worlds import SPECS, Home, infer, until

WHOLE = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"POST /v2/models/fraud/infer HTTP/1.1\r\nHost: x\r\nX-A: "
MOST_TIMES = 6  # as long as reading the JSON of 10,000 outcomes, which takes 8 ms where nothing else runs: 50 ms


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.champion(home.version("v1", 0))
    yield home
    home.store.close()


def address_of(client: httpx.Client) -> tuple[str, int]:
    return client.base_url.host, client.base_url.port or 0


def connected(client: httpx.Client, sent: bytes = b"") -> socket.socket:
    one = socket.create_connection(address_of(client), timeout=10)
    one.sendall(sent)
    return one


def head_of(key: str, length: int) -> bytes:
    return f"POST {INFER} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {length}\r\n\r\n".encode()


def is_closed(one: socket.socket, seconds: float = 10) -> bool:
    """Whether the other side closes within that time; what it says before is read away."""
    one.settimeout(seconds)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


# Bodies


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
@pytest.mark.parametrize("path", ["infer", "outcomes", "events"])
def test_a_body_that_is_too_long_is_refused_with_the_limit_before_it_is_read_to_its_end(
    home: Home, path: str, declared: bool
) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 1 << 20
            yield b"[1]," * (1 << 18)

    with gateway(home, home.producer()) as client:
        if declared:
            body: bytes | Iterator[bytes] = b"x" * (MOST_BYTES + 1)
            told = client.post(f"/v2/models/fraud/{path}", content=body)
            assert (told.status_code, f"{MOST_BYTES:,} bytes" in told.json()["error"]) == (413, True)
        else:
            with suppress(httpx.WriteError, httpx.ReadError):  # it goes on sending, and is cut off
                assert client.post(f"/v2/models/fraud/{path}", content=pieces()).status_code == 413
        until(client, 'requests_total{model="fraud",status="413"} 1.0')
    assert events(home) == []


SHORT_TOKENS = ["[1],", "{},", "1,", '"",', "null,", '{"":0},', "[[]],", "[", '{"":']


@pytest.mark.parametrize("path", ["infer", "outcomes", "events"])
def test_a_body_of_more_values_than_a_full_request_has_is_refused_unparsed(home: Home, path: str) -> None:
    with gateway(home, home.producer()) as client:
        for token in SHORT_TOKENS:
            told = client.post(f"/v2/models/fraud/{path}", content=b'{"inputs":[' + token.encode() * (MOST_VALUES + 1))
            assert (told.status_code, f"more than {MOST_VALUES:,}" in told.json()["error"]) == (413, True), token


def fullest() -> dict[str, tuple[Callable[[bytes], object], bytes]]:
    """By name: the most expensive bodies that were found to be parsed, each as large as is allowed."""

    def tensor(cells: str) -> bytes:
        return f'{{"inputs":[{{"name":"amount","shape":[1],"datatype":"FP64","data":[{cells[:-1]}]}}]}}'.encode()

    def asked(body: bytes) -> object:
        return read_ask(body, SPECS["fraud"])

    def outcomes(body: bytes) -> object:
        return read_document(Outcomes, body)

    some = MOST_VALUES - 20
    long = MOST_BYTES - 1000
    name = '{"inputs":[{"name":"%s","shape":[1],"datatype":"FP64","data":[1]}]}'
    return {
        "nested": (asked, tensor("[1]," * (some // 2))),
        "numbers": (asked, tensor("1," * some)),
        "long numbers": (asked, tensor(("1" * 4000 + ",") * (long // 4001))),
        "long decimals": (asked, tensor(("0." + "1" * 4000 + ",") * (long // 4003))),
        "shapes": (asked, tensor("1,").replace(b'"shape":[1]', b'"shape":[' + b"1," * some + b"1]")),
        "tensors": (asked, b'{"inputs":[' + (name[11:-2] % "t" + ",").encode() * (some // 7) + b"{}]}"),
        "names": (asked, (name % ("x" * long)).encode()),
        "near names": (asked, (name % ("amount" * (long // 6))).encode()),
        "escapes": (asked, (name % ("\\u00e9" * (long // 6))).encode()),
        "ids": (asked, tensor("1,").replace(b"{", b'{"parameters":{"ids":[' + b"1," * some + b"1]},", 1)),
        "entities": (asked, tensor("1,").replace(b"{", b'{"parameters":{"entity":[' + b"1," * some + b"1]},", 1)),
        "spaces": (asked, b'{"inputs":[' + b" " * long + b"}]}"),
        "outcomes": (outcomes, b'{"outcomes":[' + b'{"id":"a","label":1},' * (some // 3) + b"{}]}"),
        "wrong outcomes": (outcomes, b'{"outcomes":[' + b"{}," * (some // 2) + b"{}]}"),
        "events": (lambda body: read_document(Events, body), b'{"events":[' + b"{}," * (some // 2) + b"1]}"),
    }


@pytest.mark.parametrize("name", fullest())
def test_what_is_parsed_holds_the_loop_a_few_times_as_long_as_a_good_request(name: str) -> None:
    """CPU time, the best of five by turns: the machine may be busy."""
    parse, body = fullest()[name]
    assert len(body) <= MOST_BYTES
    assert len(body) - len(body.translate(None, b",[{")) <= MOST_VALUES
    good = json.dumps({"outcomes": [{"id": f"o{k}", "label": k % 2} for k in range(MOST_EVENTS)]}).encode()
    took = {"bad": list[float](), "good": list[float]()}
    for _ in range(5):
        for what, read, text in (("bad", parse, body), ("good", json.loads, good)):
            began = time.thread_time()
            with suppress(InputError):
                read(text)
            took[what].append(time.thread_time() - began)
    assert min(took["bad"]) < MOST_TIMES * min(took["good"])


def test_the_bounds_leave_room_for_the_fullest_requests(home: Home) -> None:
    """1,000 rows and 10,000 outcomes, as ever."""
    told = [{"id": f"o{k}", "label": k % 2} for k in range(MOST_EVENTS)]
    with gateway(home, home.producer()) as client:
        found = client.post(INFER, json=infer(ROW * MOST_ROWS, id="r"))
        assert len(set(found.json()["outputs"][0]["data"])) == 1
        assert client.post("/v2/models/fraud/outcomes", json={"outcomes": told}).json()["waiting"] == MOST_EVENTS
    written = events(home)
    assert [one["id"] for one in written[:MOST_ROWS]] == [f"r-{k}" for k in range(MOST_ROWS)]
    assert len(written) == MOST_ROWS + MOST_EVENTS


def test_refused_requests_are_not_free(home: Home) -> None:
    """A producer who sends garbage waits, others do not; one bad row among good ones costs a row."""
    garbage = b'{"inputs":[{"name":"amount","shape":[1],"datatype":"FP64","data":[' + b"[1]," * 24_000 + b"1]}]}"
    with gateway(home, home.producer()) as client:
        other = {"Authorization": f"Bearer {home.producer(name='hostile')}"}
        codes = [client.post(INFER, content=garbage, headers=other).status_code for _ in range(200)]
        assert set(codes) == {400, 429}
        assert codes.count(400) < 60
        late = client.post(INFER, json=infer(ROW), headers=other)
        assert (late.status_code, "was refused" in late.json()["error"]) == (429, True)
        assert int(late.headers["Retry-After"]) <= MOST_WASTE / WASTE + 1  # of a second that has begun
        for _ in range(300):
            assert client.post(INFER, json={"inputs": []}).status_code == 400
        ask(client)


def test_who_asks_for_the_metrics_all_the_time_is_refused_and_others_see_them(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "BURST_LOOKS", 0.02)
    monkeypatch.setattr(allowance, "LOOKS", 0.001)
    with gateway(home, home.producer()) as client:
        other = {"Authorization": f"Bearer {home.producer(name='curious')}"}
        codes = [client.get("/metrics", headers=other).status_code for _ in range(200)]
        assert set(codes) == {200, 429}
        assert client.get("/metrics", headers=other).status_code == 429
        assert client.get("/metrics").status_code == 200
        assert client.post(INFER, json=infer(ROW), headers=other).status_code == 200


def test_bytes_are_charged_as_they_come_also_those_of_refused_bodies(home: Home) -> None:
    long = b'{"inputs":[{"name":"' + b"x" * (MOST_BYTES - 100)
    with gateway(home, home.producer(rows_per_second=1)) as client:
        told = [client.post(INFER, content=long) for _ in range(3)]
    assert told[0].status_code == 400
    assert told[-1].status_code == 429


def test_a_producer_above_the_rate_is_refused_before_the_body_is_asked_for(home: Home) -> None:
    key = home.producer(rows_per_second=1)
    head = head_of(key, 1000).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with gateway(home, key) as client:
        assert client.post(INFER, json=infer(ROW * 2)).status_code == 200
        with connected(client, head) as one:
            assert one.recv(1000).startswith(b"HTTP/1.1 429 ")


def test_long_requests_let_others_in_between_their_slices(home: Home) -> None:
    """Of one producer one at a time is worked on: the others' wait is of slices, not of requests."""
    body = json.dumps(infer(ROW * MOST_ROWS)).encode()
    key = home.producer(rows_per_second=1_000_000, name="busy")
    request = head_of(key, len(body)) + body
    with gateway(home, home.producer()) as client:
        ask(client)
        began = time.perf_counter()
        with connected(client, request) as one:
            one.recv(1)
        alone = time.perf_counter() - began
        many = [connected(client, request) for _ in range(20)]
        began = time.perf_counter()
        ask(client)
        took = time.perf_counter() - began
        assert took < 10 * alone
        for one in many:
            assert one.recv(12) == b"HTTP/1.1 200"
            one.close()


# Connections

QUICK = {"head_seconds": 0.5, "request_seconds": 1.5}


def test_half_requests_are_dropped_within_seconds_and_others_are_served_meanwhile(home: Home) -> None:
    """1,500 of them, without a key: those that wait longest make room, nobody is refused for them."""
    limits = {"most": 100, "most_of_address": 60, "head_seconds": 1.0}
    with gateway(home, home.producer(), limits=limits) as client, ExitStack() as sockets:
        held = []
        for number in range(1500):
            held.append(sockets.enter_context(connected(client, HALF)))
            if number % 100 == 0:
                with httpx.Client(base_url=client.base_url, headers=client.headers) as fresh:
                    ask(fresh)
                ask(client)
        assert sum(not is_closed(one, 0.001) for one in held) <= 120  # some are not accepted yet
        end = time.monotonic() + 10
        for one in held:
            assert is_closed(one, end - time.monotonic())
        ask(client)
        until(client, 'requests_total{model="",status="408"}')


@pytest.mark.parametrize("how", ["nothing", "half a head", "a head that never ends", "slowly", "after an answer"])
def test_a_connection_without_a_request_is_closed(home: Home, how: str) -> None:
    with gateway(home, home.producer(), limits=QUICK) as client:
        with connected(client, {"nothing": b"", "after an answer": WHOLE}.get(how, HALF)) as one:
            if how == "after an answer":
                assert one.recv(1000).startswith(b"HTTP/1.1 401")
            end = time.monotonic() + 8
            with suppress(OSError):
                while how in ("slowly", "after an answer") and time.monotonic() < end:
                    one.sendall(b"a")
                    time.sleep(0.05)
                while how == "a head that never ends":
                    one.sendall(b"a: b\r\n" * 1000)
            assert is_closed(one)
        assert time.monotonic() < end
        ask(client)


@pytest.mark.parametrize("keyed", [True, False])
def test_a_body_that_does_not_come_is_not_waited_for(home: Home, keyed: bool) -> None:
    key = home.producer()
    head = head_of(key if keyed else "x", 100_000)
    with gateway(home, key, limits=QUICK) as client, connected(client, head + b'{"inputs":') as one:
        assert one.recv(1000).startswith(b"HTTP/1.1 408 " if keyed else b"HTTP/1.1 401 ")
        assert is_closed(one, 5)
        ask(client)


def test_who_does_not_read_the_answers_is_cut_off(home: Home) -> None:
    """Pipelined requests are not queued without bounds, with answers that nobody takes."""
    with gateway(home, home.producer(), limits=QUICK) as client, connected(client) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(0.2)
        end = time.monotonic() + 10
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    one.sendall(WHOLE * 1000)
        assert time.monotonic() < end
        ask(client)


def test_no_address_takes_all_connections_and_there_is_a_bound_on_all(home: Home) -> None:
    """Who is in the middle of a request is not cut off for a newcomer."""
    key = home.producer()
    head = head_of(key, 10)
    with gateway(home, key, limits={"most": 20, "most_of_address": 8}) as client:
        client.headers["Connection"] = "close"
        busy = [connected(client, head) for _ in range(8)]
        time.sleep(0.2)
        with connected(client, b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n") as one:
            assert is_closed(one, 5)
        for other in busy:
            other.sendall(b"0123456789")
            assert other.recv(100).startswith(b"HTTP/1.1 400 ")
            other.close()
        assert client.get("/v2").status_code == 200


# What strangers learn, and what they leave in the log


def test_without_a_key_nothing_names_a_model_a_version_a_digest_or_a_folder(home: Home) -> None:
    version = home.version("v1", 0)
    home.champion(version)
    with gateway(home, None) as client:
        (folder,) = home.settings.registry.glob(f"*/{version['digest'].removeprefix('sha256:')}")
        (folder / "model.skops").write_bytes(b"gone")
        home.champion(home.version("v2", 1))
        paths: tuple[str, ...] = (
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/metrics",
            "/v2/models/fraud",
            "/v2/models/fraud/ready",
        )
        paths += ("/v2/models/churn/ready", "/v2/models/fraud/versions/v1", "/nothing")
        told = {path: client.get(path) for path in paths}
        told |= {path: client.post(path, content=b"{}") for path in (INFER, "/v2/models/fraud/outcomes")}
    for path, answer in told.items():
        assert not re.search(r"fraud|v1|v2\b(?!/)|sha256|[0-9a-f]{16}|/tmp|home", answer.text.replace("/v2", "")), path
    codes = {path: answer.status_code for path, answer in told.items()}
    assert codes["/v2/models/fraud/ready"] == codes["/v2/models/churn/ready"] == codes["/metrics"] == 401
    assert (codes["/v2/health/live"], codes["/v2/health/ready"]) == (200, 200)


@pytest.mark.parametrize("missing", ["champion", "spool", "store"])
def test_no_answer_names_a_folder_whatever_breaks_and_the_log_does(
    home: Home, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = home.producer(models=["*"])
    if missing == "champion":
        home.champion({**home.version("v1", 0), "digest": "sha256:" + "0" * 64})
    folder = home.settings.home / "spool" / "gateway"
    with gateway(home, key, spool=SpoolWriter(folder, segment_bytes=1)) as client:
        if missing == "champion":
            until(client, 'load_problems{model="fraud"} 1.0')
        elif missing == "spool":
            ask(client)
            shutil.rmtree(folder)
        else:
            with sqlite3.connect(home.settings.home / "control.db") as connection:
                connection.execute("DROP TABLE state")
            connection.close()
            until(client, "control store", "/v2/health/ready")
        told = [client.get(path).text for path in ("/v2/health/ready", "/metrics", "/v2/models/fraud/ready")]
        told += [client.post(INFER, json=infer(ROW)).text]
    assert not any(str(home.settings.home) in text or "/" + "home" in text for text in told)
    assert (str(home.settings.home) if missing == "spool" else missing.replace("champion", "v1")) in caplog.text


def test_a_key_sees_its_own_models_in_the_metrics(home: Home) -> None:
    with gateway(home, home.producer()) as client:
        ask(client)
        other = {"Authorization": f"Bearer {home.producer(models=['churn'], name='other')}"}
        mine, theirs = client.get("/metrics").text, client.get("/metrics", headers=other).text
    assert 'drift_gateway_rows_total{model="fraud"' in mine
    assert "fraud" not in theirs
    assert "drift_gateway_routes_age_seconds" in theirs


def test_a_client_that_goes_away_is_counted_and_leaves_no_trace(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    key = home.producer()
    head = head_of(key, 100)
    with gateway(home, key) as client:
        odd = (b"GARBAGE\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"CONNECT x HTTP/1.1\r\n\r\n", HALF)
        for raw in (head, head + b'{"inp', *odd):
            with connected(client, raw):
                time.sleep(0.05)
        text = until(client, 'requests_total{model="fraud",status="499"} 2.0')
        assert 'requests_total{model="",status="400"}' in text
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


@pytest.mark.parametrize("kind", ["websocket", "h2c"])
def test_an_upgrade_is_not_taken_up(home: Home, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    raw = f"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {kind}\r\nSec-WebSocket-Key: x\r\n\r\n"
    with gateway(home, home.producer()) as client, connected(client, raw.encode()) as one:
        assert one.recv(1000).startswith(b"HTTP/1.1 401 ")
        ask(client)
    assert capfd.readouterr().err == ""
