"""What one hostile caller does to the others: prints a table. `python -m drift_pipeline_tests.benchmarks.hostile`.

One gateway, and callers who ask it for one row of 24 features at a steady rate; by turns, for a few seconds each, alone
and beside a hostile caller in a process of its own, who has a key (of 10 rows a second, and once of 10,000) and asks as
fast as he is answered. A request's time counts from when it was due. Each kind of attack: the median over the rounds of
p50 and p99 on both sides and of their ratios, and the most memory that the gateway ever had.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from drift_pipeline_tests.benchmarks.gateway import SPEC, figure, model, paced, ready, requests, rows, server

MODEL = "/v2/models/fraud/"
HALF_REQUESTS = 1500


def _tensor(cells: str) -> bytes:
    return f'{{"inputs":[{{"name":"x0","shape":[1],"datatype":"FP64","data":[{cells[:-1]}]}}]}}'.encode()


def _full(count: int) -> bytes:
    frame = rows(count, 5)
    kinds = {"numeric": "FP64", "categorical": "BYTES"}
    return json.dumps(
        {
            "inputs": [
                {"name": name, "shape": [count], "datatype": kinds[kind], "data": frame[name].to_list()}
                for name, kind in SPEC.features.items()
            ]
        }
    ).encode()


BODIES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "4 M nested numbers": ("infer", lambda: _tensor("[1]," * 4_000_000)),
    "5.5 M events": ("events", lambda: b'{"events":[' + b"{}," * 5_500_000 + b"{}]}"),
    "760,000 outcomes": ("outcomes", lambda: b'{"outcomes":[' + b'{"id":"a","label":1},' * 760_000 + b"{}]}"),
    "200,000 tensors": (
        "infer",
        lambda: (
            b'{"inputs":['
            + b",".join(b'{"name":"t%d","shape":[1],"datatype":"FP64","data":[1]}' % k for k in range(200_000))
            + b"]}"
        ),
    ),
    "nested numbers, just allowed": ("infer", lambda: _tensor("[1]," * 24_990)),
    "outcomes, just allowed, the last one wrong": (
        "outcomes",
        lambda: b'{"outcomes":[' + b'{"id":"a","label":1},' * 9_999 + b'{"id":"","label":1}]}',
    ),
    "2 MB of text": ("infer", lambda: b'{"inputs":[{"name":"' + b"\\u00e9" * 340_000 + b'"}]}'),
    "1,000 good rows": ("infer", lambda: _full(1000)),
}
CONNECTIONS = ("half requests without a key", "pipelined requests without a key")
KINDS = (*BODIES, *CONNECTIONS)


# The hostile one


def attack(kind: str, port: int, key: str, seconds: float) -> None:
    """Prints what he was answered. He gives way: in life his processor is not the gateway's."""
    os.nice(15)
    told: Counter[str] = Counter()
    end = time.monotonic() + seconds
    if kind == "half requests without a key":
        held: list[socket.socket] = []
        while time.monotonic() < end:
            held = [one for one in held if not _closed(one)]
            for _ in range(min(50, HALF_REQUESTS - len(held))):
                with suppress(OSError):
                    held.append(socket.create_connection(("127.0.0.1", port), timeout=1))
                    held[-1].sendall(b"POST /v2/models/x/infer HTTP/1.1\r\nHost: x\r\nX-A: ")
                    told["begun"] += 1
            time.sleep(0.02)
    elif kind == "pipelined requests without a key":
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as one:
                one.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 6000)
                told[_status(one)] += 1
            time.sleep(0.01)
    else:
        path, made = BODIES[kind]
        body = made()
        while time.monotonic() < end:
            told[_post(port, path, key, body)] += 1
            time.sleep(0.01)
    print(json.dumps(told))


def _closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        return one.recv(1000) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _post(port: int, path: str, key: str, body: bytes) -> str:
    """The status; stops to send once it was answered."""
    head = f"POST {MODEL}{path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        one.sendall(head.encode())
        for start in range(0, len(body), 1 << 16):
            one.sendall(body[start : start + (1 << 16)])
            one.setblocking(False)
            try:
                return one.recv(1000)[9:12].decode()
            except BlockingIOError:
                one.settimeout(20)
        return _status(one)
    return "lost"


def _status(one: socket.socket) -> str:
    return one.recv(1000)[9:12].decode() or "closed"


@contextmanager
def hostile(kind: str, port: int, key: str, seconds: float, told: Counter[str]) -> Iterator[None]:
    command = [sys.executable, "-m", "drift_pipeline_tests.benchmarks.hostile", "--attack", kind]
    command += ["--port", str(port), "--seconds", str(seconds)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"ATTACKERS_KEY": key}
    ) as process:
        time.sleep(2.0)  # it makes its bodies
        yield
        said, _ = process.communicate(timeout=seconds + 60)
        told.update(json.loads(said))


# The others


@dataclass
class Beside:
    """By round, alone and beside the attack: milliseconds, and the gateway's own processor seconds a second, which tell
    more than times do where the machine is busy; and what the hostile one was answered."""

    p50_ms: list[tuple[float, float]] = field(default_factory=list)
    p99_ms: list[tuple[float, float]] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1000


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def gateway_pid(port: int) -> int:
    """Of who listens there."""
    wanted = f":{port:04X} 00000000:0000 0A"
    inode = next(line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if wanted in line)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(one) == f"socket:[{inode}]" for one in (folder / "fd").iterdir()):
                return int(folder.name)
    raise LookupError(f"nobody listens on {port}")


def measure(
    kinds: Sequence[str],
    rounds: int,
    seconds: float,
    rate: float,
    connections: int = 4,
    tell: Callable[[str, int, Beside], None] = lambda *_: None,
) -> tuple[dict[tuple[str, int], Beside], tuple[float, float]]:
    """By kind of attack and the hostile key's rows a second; and the gateway's peak before and after them, in MB."""
    from drift_pipeline_tests.serving.worlds import Home

    found: dict[tuple[str, int], Beside] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.champion(home.version("v1", 0, model(0)))
        key = home.producer(rows_per_second=1_000_000)
        keys = {rate: home.producer(rows_per_second=rate, name=f"hostile {rate}") for rate in (10, 10_000)}
        asked = requests(key, 200)
        with server("gateway", home.settings.home) as port:
            asyncio.run(ready(port, key))
            asyncio.run(paced(port, asked, connections, 1.0, rate))
            pid = gateway_pid(port)
            before = peak_mb(pid)
            for kind in kinds:
                for rows_a_second in (10,) if kind in CONNECTIONS else (10, 10_000):
                    one = found[kind, rows_a_second] = Beside()
                    for number in range(rounds):
                        sides: dict[bool, list[float]] = {}
                        cpu = {}
                        for on in (False, True) if number % 2 else (True, False):
                            time.sleep(1.0)
                            attacked = hostile(kind, port, keys[rows_a_second], seconds + 3, one.told)
                            with attacked if on else nullcontext():
                                at = cpu_seconds(pid)
                                sides[on] = asyncio.run(paced(port, asked, connections, seconds, rate))
                                cpu[on] = (cpu_seconds(pid) - at) / seconds
                        one.cpu.append((cpu[False], cpu[True]))
                        off, beside = (figure(sides[on], seconds) for on in (False, True))
                        one.p50_ms.append((off.p50_ms, beside.p50_ms))
                        one.p99_ms.append((off.p99_ms, beside.p99_ms))
                    tell(kind, rows_a_second, one)
            peak = peak_mb(pid)
        home.store.close()
    return found, (before, peak)


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return float(np.median([beside / alone for alone, beside in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second of the others")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these attacks")
    parser.add_argument("--attack", choices=KINDS)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.attack:
        attack(options.attack, options.port, os.environ["ATTACKERS_KEY"], options.seconds)
        return
    print(f"{'attack, rows/s of his key':52}{'p50 ms':>14}{'p99 ms':>16}{'ratio of p50, p99':>20}{'CPU':>12}   answers")
    _, (before, peak) = measure(options.kind or KINDS, options.rounds, options.seconds, options.rate, tell=show)
    print(f"the gateway had {before:,.0f} MB at most before, {peak:,.0f} MB after it all")


def show(kind: str, rate: int, one: Beside) -> None:
    p50, p99 = ([float(np.median([pair[on] for pair in pairs])) for on in (0, 1)] for pairs in (one.p50_ms, one.p99_ms))
    times = f"{p50[0]:7.2f}{p50[1]:7.2f}{p99[0]:8.2f}{p99[1]:8.2f}{ratio(one.p50_ms):12.2f}{ratio(one.p99_ms):8.2f}"
    times += "".join(f"{np.median([pair[on] for pair in one.cpu]):6.2f}" for on in (0, 1))
    print(f"{f'{kind}, {rate:,}':52}{times}   {dict(one.told)}", flush=True)


if __name__ == "__main__":
    main()
