"""Kubernetes: a whole cluster of one node, each of its programs the real one, on a machine that reaches nothing else.

etcd, API server, controllers, scheduler and kubelet are one program that Go builds from their modules; containers are
run by containerd. Differences from a cluster at work, for tests alone: every pod shares the machine's network, and so a
port is free once; a Service is reached at its address only where its port is the pods' port, and by its name through
`names`; no network policy is enforced; requests are counted by the scheduler, and there is no control group of a pod.
"""

import json
import socket
import ssl
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline_tests.parts import archive, containerd, helm
from drift_pipeline_tests.parts.building import BUILD, go_for_minutes, whole
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.kubernetes_files import HEALTHY, KUBELET_HEALTHY, NAMES, NODE, PORT, flags, written
from drift_pipeline_tests.parts.machine import Inside, Machine, wanted
from drift_pipeline_tests.parts.server import Server

VARIABLE = "KUBECONFIG"
PATIENT = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false"  # SPDY does not end an `exec` that says nothing for a minute
READY_S = 300.0  # a machine that has more to do took 37 s to the API server's first answer
TOP = HERE.parents[1]
_POLICY = HERE / "pods.yaml"


def find() -> Path:
    """The program; all that it needs is there, too. Raises MissingError."""
    ours = installed("kubernetes") / "kubernetes"
    if not ours.is_file():
        how = "python -m drift_pipeline_tests.parts install kubernetes"
        raise MissingError(f"no Kubernetes: {how} builds it, {pinned('kubernetes')['minutes']} minutes with Go")
    containerd.find()
    helm.kubectl()
    wanted()
    return ours


def install() -> Path:
    """Build it with Go, where it is not in the cache; needs the module proxy. Raises MissingError."""
    whole(installed("kubernetes"), _build)
    return installed("kubernetes") / "kubernetes"


def _build(folder: Path) -> None:
    version = pinned("kubernetes")["version"]
    major, minor, _ = version.removeprefix("v").split(".")
    told = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in told.items())
    source = HERE / "go" / "kubernetes"
    go_for_minutes("kubernetes", [*BUILD, "-ldflags", "-s -w", "-o", f"{folder}/", "./pause"], source)
    go_for_minutes("kubernetes", [*BUILD, "-ldflags", f"-s -w {flags}", "-o", str(folder / "kubernetes"), "."], source)


class Cluster:
    """`servers` by name, each of which may be killed, frozen and started again; `url` is the administrator's file."""

    def __init__(self, machine: Machine, folder: Path, images: Path) -> None:
        self.machine, self.folder, self._program = machine, folder, find()
        self.containerd = containerd.Containerd(machine, folder / "containerd", images)
        self.token = written(folder)
        self.url = str(folder / "admin.yaml")
        self.servers: dict[str, Server] = {"containerd": self.containerd.server}
        self.hint = machine.hint

    @property
    def server(self) -> Server:
        """The API server."""
        return self.servers["apiserver"]

    def start(self) -> None:
        """Back once pods can run. Raises MissingError."""
        try:
            self._start_all()
        except (RuntimeError, TimeoutError) as error:
            raise MissingError(f"no cluster comes up here: {error}\n{self._last_words()}") from error

    def _start_all(self) -> None:
        self.containerd.server.start()
        self._take_pause()
        for name, healthy in HEALTHY.items():
            self._start(name, healthy)
        self.kubectl("apply", "-f", str(_POLICY))
        self._start("kubelet", KUBELET_HEALTHY)
        self._serve_names()
        self.until("a node that is ready", self._is_ready)
        self.until("pods in the machine's network", self._is_pods_network_shared)

    def close(self) -> None:
        """All of it ends, with its containers and mounts."""
        self.machine.close()
        for server in self.servers.values():
            server.kill()
        self.containerd.swept()

    def add(
        self, name: str, command: Sequence[str], healthy: str, environment: Mapping[str, str] | None = None
    ) -> Inside:
        """A further server of the machine, by `name` in `servers`; up once `healthy`, a URL, answers 200."""
        log, check = self.folder / f"{name}.log", self._context()
        how = {"context": check} if healthy.startswith("https") else {}
        server = Inside(self.machine, command, log, lambda: self.machine.answers(healthy, **how), environment, READY_S)
        server.start()
        self.servers[name] = server
        return server

    def kubectl(self, *arguments: str, told: str = "", patience_s: float = READY_S) -> str:
        """What it says, with `told` on its standard input. Raises RuntimeError with what it says against it."""
        return self.command([str(helm.kubectl()), *arguments], told=told, patience_s=patience_s)

    def command(self, command: Sequence[str], told: str = "", patience_s: float = READY_S) -> str:
        """What a command of this machine says that reaches the cluster. Raises RuntimeError."""
        home = f"HOME={self.folder}"  # where kubectl and Helm keep what they have seen, which another cluster has not
        given = ["env", f"{VARIABLE}={self.url}", home, PATIENT, *command]
        ran = self.machine.run(given, told, check=False, timeout=patience_s)
        if ran.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:4])}: {(ran.stderr or ran.stdout).strip()[-2000:]}")
        return ran.stdout

    def apply(self, *objects: Mapping[str, Any], options: Sequence[str] = ()) -> str:
        """Raises RuntimeError with what the API server says against it."""
        return self.kubectl("apply", *options, "-f", "-", told=yaml.safe_dump_all(objects))

    def define(self, kinds: Path) -> None:
        """Custom kinds, of a file or of all files of a folder; back once objects of them can be made."""
        self.kubectl("apply", "--server-side", "-f", str(kinds))
        self.kubectl("wait", "--for=condition=Established", f"--timeout={READY_S:.0f}s", "-f", str(kinds))

    def namespace(self, name: str) -> None:
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def ask(self, path: str) -> Any:
        """An object or a list of the API, such as `/api/v1/nodes`. Raises OSError where it does not answer with one."""
        wanted = urllib.request.Request(f"https://127.0.0.1:{PORT}{path}")
        wanted.add_header("Authorization", f"Bearer {self.token}")
        with self.machine.joined(), urllib.request.urlopen(wanted, timeout=10, context=self._context()) as answer:
            return json.loads(answer.read())

    def until(self, what: str, holds: Callable[[], bool], patience_s: float = READY_S) -> None:
        """Raises TimeoutError where it does not come to hold. To look costs half of the time at most."""
        asked = time.monotonic()
        end = asked + patience_s
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} within {patience_s:.0f} s; logs are in {self.folder}")
            time.sleep(max(0.2, time.monotonic() - asked))
            asked = time.monotonic()

    def _last_words(self) -> str:
        """Of each of its servers."""
        told = {
            name: server.log.read_text(encoding="utf-8", errors="replace")[-400:]
            for name, server in self.servers.items()
        }
        return "\n".join(f"{name}: {text}" for name, text in told.items())

    def _start(self, name: str, healthy: str) -> None:
        told = flags(name, self.folder)
        self.add(name, [str(self._program), name, *(f"--{flag}={value}" for flag, value in told.items())], healthy)

    def _serve_names(self) -> None:
        command = [sys.executable, "-m", "drift_pipeline_tests.parts.names", str(self.folder)]
        names = Inside(self.machine, command, self.folder / "names.log", self._is_named, {"PYTHONPATH": str(TOP)})
        names.start()
        self.servers["names"] = names

    def _is_named(self) -> bool:
        """The API server itself is a Service."""
        question = b"\0\1\1\0\0\1\0\0\0\0\0\0\12kubernetes\7default\3svc\7cluster\5local\0\0\1\0\1"
        with self.machine.joined(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks, suppress(OSError):
            asks.settimeout(1)
            asks.connect(("127.0.0.1", NAMES))
            asks.send(question)
            return asks.recv(512).endswith(socket.inet_aton("127.10.0.1"))
        return False

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "keys" / "ca.crt"))

    def _take_pause(self) -> None:
        if containerd.PAUSE not in self.containerd.images():
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                out, layer = Path(folder, "pause.tar"), Path(folder, "layer.tar")
                files = {"/pause": self._program.parent / "pause"}
                archive.write(out, containerd.PAUSE, [archive.program_layer(files, layer)], {"Entrypoint": ["/pause"]})
                self.containerd.take(out)

    def _is_ready(self) -> bool:
        with suppress(OSError):
            conditions = self.ask(f"/api/v1/nodes/{NODE}")["status"].get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return False

    def _is_pods_network_shared(self) -> bool:
        """The policy of pods.yaml is in force, and the namespace's account is there."""
        options = ("--image", "none", "--dry-run=server", "-o", "json")
        with suppress(RuntimeError):
            return json.loads(self.kubectl("run", "none", *options))["spec"].get("hostNetwork") is True
        return False


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster without anything of ours. Raises MissingError."""
    find()
    with (
        containerd.images_alone() as images,
        tempfile.TemporaryDirectory(prefix="drift-kubernetes-") as folder,
        closing(Machine()) as machine,
    ):
        part = Cluster(machine, Path(folder), images)
        try:
            part.start()
            yield part
        finally:
            part.close()
