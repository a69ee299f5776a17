"""Open Policy Agent: its server, with a signed bundle that it fetches from us, and its command."""

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drift_pipeline.policy.engines import PACKAGED_BUNDLE
from drift_pipeline_tests.parts.building import built
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.server import Server, free_port

VARIABLE = "DRIFT_OPA_URL"
DEPLOY = HERE.parents[1] / "deploy" / "opa"


def find() -> Path:
    """The `opa` command. Raises MissingError."""
    if (ours := installed("opa") / "opa").is_file():
        return ours
    if found := shutil.which("opa"):
        return Path(found)
    raise MissingError("no opa: python -m drift_pipeline_tests.parts install opa builds it, some minutes with Go")


def install() -> Path:
    """Build it with Go, where it is not in the cache; needs the module proxy. Raises MissingError."""
    return built("opa", pinned("opa")["module"])


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Bundles, with an ETag, so that one that is known is not sent again."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        tag = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        if tag and self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.end_headers()
            return
        self.tag = tag
        super().do_GET()

    def end_headers(self) -> None:
        self.send_header("ETag", getattr(self, "tag", ""))
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not to stderr."""


class Opa:
    """A server at `url` that decides by the bundle that was last published here and is signed by its key."""

    def __init__(self, folder: Path) -> None:
        self._opa, self._folder, port = find(), folder, free_port()
        self.url = f"http://127.0.0.1:{port}"
        (folder / "www").mkdir()
        self.key = self._new_key("key")
        handler = functools.partial(_Handler, directory=str(folder / "www"))
        self._bundles = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._bundles.serve_forever, daemon=True).start()
        options = ("--addr", f"127.0.0.1:{port}", "--skip-version-check", "--log-level", "error")
        keys = ("--set-file", f"keys.drift.key={folder / 'key.pub.pem'}")
        polling = [f"bundles.drift.polling.{name}={value}" for name, value in _POLLING.items()]
        command = [str(self._opa), "run", "--server", *options, "-c", str(DEPLOY / "config.yaml"), *keys]
        self.server = Server(
            [*command, *(part for one in polling for part in ("--set", one))],
            folder / "opa.log",
            self._answers,
            {"DRIFT_BUNDLES_URL": f"http://127.0.0.1:{self._bundles.server_port}"},
        )

    def publish(self, rules: Path = PACKAGED_BUNDLE, *, revision: str = "r1", key: Path | None = None) -> None:
        """Sign a folder of rules and put it where the server looks for it."""
        out = self._folder / "www" / "drift.tar.gz"
        command = [str(DEPLOY / "build.sh"), str(rules), revision, str(key or self.key), str(out)]
        path = f"{self._opa.parent}:{os.environ['PATH']}"
        built = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise RuntimeError(built.stdout + built.stderr)

    def withdraw(self) -> None:
        """Nothing is served any more: what the server has grows old."""
        self._bundles.shutdown()
        self._bundles.server_close()

    def stranger(self) -> Path:
        """A key that the server does not know."""
        return self._new_key("stranger")

    def close(self) -> None:
        self.server.stop()
        self.withdraw()

    def _new_key(self, name: str) -> Path:
        from cryptography.hazmat.primitives import serialization as how
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        key, private, public = generate_private_key(SECP256R1()), self._folder / f"{name}.pem", f"{name}.pub.pem"
        plain = how.NoEncryption()
        private.write_bytes(key.private_bytes(how.Encoding.PEM, how.PrivateFormat.PKCS8, plain))
        form = how.PublicFormat.SubjectPublicKeyInfo
        (self._folder / public).write_bytes(key.public_key().public_bytes(how.Encoding.PEM, form))
        return private

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health?bundles", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


_POLLING = {"min_delay_seconds": 1, "max_delay_seconds": 1}


@contextmanager
def running(rules: Path = PACKAGED_BUNDLE) -> Iterator[Opa]:
    """A server with the rules of the folder. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-opa-") as folder:
        part = Opa(Path(folder))
        try:
            part.publish(rules)
            part.server.start()
            yield part
        finally:
            part.close()
