"""A name server for a cluster's pods that knows its Services, and no other name: a stand-in for CoreDNS, for tests.

    python -m drift_pipeline_tests.parts.names CLUSTER_FOLDER

Each question is put to the API server, so that an answer is never old; while it is away, what it said last holds. A
Service without an address of its own has its pods', which is the machine's.
"""

import json
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import yaml

from drift_pipeline_tests.parts.kubernetes_files import NAMES, PORT
from drift_pipeline_tests.parts.machine import ADDRESS

DOMAIN = ("svc", "cluster", "local")
_HEADER = struct.Struct("!6H")
_ANSWER, _OK, _NO_NAME, _FAILED = 0x8580, 0, 3, 2
_A = 1


def answered(question: bytes, address: Callable[[str, str], str | None]) -> bytes:
    """The answer to one question.

    Args:
        question: as it came in a datagram.
        address: of a Service, by name and namespace; None where there is none; OSError where nobody can say.
    """
    number, _, _, *_ = _HEADER.unpack_from(question)
    labels, end = [], _HEADER.size
    while length := question[end]:
        labels.append(question[end + 1 : end + 1 + length].decode("ascii", "replace").lower())
        end += 1 + length
    kind, _ = struct.unpack_from("!2H", question, end + 1)
    asked, found, code = question[_HEADER.size : end + 5], None, _NO_NAME
    if tuple(labels[2:]) == DOMAIN:
        try:
            found = address(labels[0], labels[1])
            code = _NO_NAME if found is None else _OK
        except OSError:
            code = _FAILED
    record = b""
    if found is not None and kind == _A:
        record = struct.pack("!3HIH4s", 0xC00C, _A, 1, 0, 4, socket.inet_aton(found))  # of the name that was asked
    return _HEADER.pack(number, _ANSWER | code, 1, int(bool(record)), 0, 0) + asked + record


class Services:
    """Their addresses, of the API server of a cluster in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._context = ssl.create_default_context(cafile=str(folder / "keys" / "ca.crt"))
        access = yaml.safe_load((folder / "admin.yaml").read_text(encoding="utf-8"))
        self._token = access["users"][0]["user"]["token"]
        self._last: dict[tuple[str, str], str | None] = {}

    def address(self, name: str, namespace: str) -> str | None:
        """None where there is none. Raises OSError where the API server is away and never said."""
        try:
            self._last[name, namespace] = self._asked(name, namespace)
        except OSError:
            if (name, namespace) not in self._last:
                raise
        return self._last[name, namespace]

    def _asked(self, name: str, namespace: str) -> str | None:
        path = "/".join(("api/v1/namespaces", quote(namespace, safe=""), "services", quote(name, safe="")))
        wanted = urllib.request.Request(f"https://127.0.0.1:{PORT}/{path}")
        wanted.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(wanted, timeout=5, context=self._context) as answer:
                found: str = json.loads(answer.read())["spec"]["clusterIP"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        return ADDRESS if found == "None" else found


def main(folder: Path) -> None:
    services = Services(folder)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", NAMES))
        while True:
            question, asker = server.recvfrom(4096)
            with suppress(IndexError, struct.error):  # no question
                server.sendto(answered(question, services.address), asker)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
