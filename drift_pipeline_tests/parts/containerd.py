"""containerd with runc, as Debian builds them, taken out of their packages: what runs a kubelet's containers.

Its images are kept in the cache, so that each is imported once; one process at a time may use them.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from drift_pipeline_tests.parts.building import whole
from drift_pipeline_tests.parts.cache import MissingError, cache, installed, pinned
from drift_pipeline_tests.parts.debian import unpacked
from drift_pipeline_tests.parts.machine import Inside, Machine
from drift_pipeline_tests.parts.server import Server

VARIABLE = "CONTAINERD_ADDRESS"
PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
PAUSE = "localhost/pause:1"  # the first container of each pod, which has its namespaces
WAIT_S = 1800.0  # for another process that uses the images
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SETTINGS = """version = 2
root = "{images}"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE runc cannot lower it, and dies
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{programs}/runc"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{folder}/cni"
    conf_dir = "{folder}/cni"
"""
# Every pod is in the machine's network, so that no plug-in is ever run; without one that is named no node is ready.
_NETWORK = {"cniVersion": "0.4.0", "name": "lo", "plugins": [{"type": "loopback"}]}


def find() -> Path:
    """The folder of its programs. Raises MissingError."""
    if (ours := installed("containerd") / "bin").is_dir():
        return ours
    found = [shutil.which(program) for program in PROGRAMS]
    if found[0] and all(found):
        return Path(found[0]).parent
    raise MissingError("no containerd: python -m drift_pipeline_tests.parts install containerd, seconds with apt-get")


def install() -> Path:
    """Debian's packages, unpacked into the cache; the machine's own where there are. Raises MissingError."""
    with suppress(MissingError):
        return find()
    pin = pinned("containerd")
    whole(installed("containerd"), lambda folder: _unpack({"containerd": pin["version"], "runc": pin["runc"]}, folder))
    return find()


def _unpack(packages: dict[str, str], folder: Path) -> None:
    unpacked("containerd", packages, folder)
    (folder / "bin").mkdir()
    for program in PROGRAMS:
        (found,) = (path for path in folder.glob(f"usr/*bin/{program}") if not path.is_symlink())
        (folder / "bin" / program).symlink_to(Path("..") / found.relative_to(folder))


class Containerd:
    """On a machine, at `socket`."""

    def __init__(self, machine: Machine, folder: Path, images: Path) -> None:
        self._machine, self._programs, self._folder = machine, find(), folder
        self.socket = folder / "containerd.sock"
        self.url, self.hint = str(self.socket), machine.hint
        (folder / "cni").mkdir(parents=True)
        (folder / "cni" / "10-lo.conflist").write_text(json.dumps(_NETWORK), encoding="utf-8")
        settings = folder / "containerd.toml"
        told = {"folder": folder, "images": images, "pause": PAUSE, "programs": self._programs}
        settings.write_text(_SETTINGS.format(**told), encoding="utf-8")
        self.server: Server = Inside(
            machine,
            [str(self._programs / "containerd"), "-c", str(settings)],
            folder / "containerd.log",
            self._answers,
            {"PATH": f"{self._programs}:{os.environ['PATH']}"},
        )

    def ctr(self, *arguments: str) -> str:
        """What containerd's own client says, of the images and containers that a kubelet sees. Raises MissingError."""
        command = [str(self._programs / "ctr"), "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        try:
            return self._machine.run(command).stdout
        except subprocess.CalledProcessError as error:
            raise MissingError(f"ctr {' '.join(arguments)}: {error.stderr.strip()[-500:]}") from error

    def images(self) -> set[str]:
        return set(self.ctr("images", "ls", "-q").split())

    def blobs(self) -> set[str]:
        """The digests of what it has of images: layers, configurations, manifests."""
        return set(self.ctr("content", "ls", "-q").split())

    def take(self, archive: Path) -> None:
        """Import the images of an archive, and unpack them."""
        self.ctr("images", "import", str(archive))

    def forget(self, prefix: str, but: str) -> None:
        """The images whose name begins so, one excepted."""
        if old := [name for name in self.images() if name.startswith(prefix) and name != but]:
            self.ctr("images", "rm", *old)

    def swept(self) -> None:
        """The control groups of its containers that were ended with the machine: they outlive who was in them."""
        containers = (self._folder / "state" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*")
        for name in (*(container.name for container in containers), "k8s.io"):  # theirs, and the one that had them
            for place in ("", "*/", "k8s.io/", "*/k8s.io/"):  # of version 2 and of version 1
                for group in _CONTROL_GROUPS.glob(f"{place}{name}"):
                    with suppress(OSError):
                        group.rmdir()

    def _answers(self) -> bool:
        with suppress(MissingError):
            return bool(self.ctr("version"))
        return False


@contextmanager
def images_alone() -> Iterator[Path]:
    """The folder of the images, for this process alone. Raises MissingError where another keeps it for too long."""
    folder = cache() / f"containerd-{pinned('containerd')['version']}-images"
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise MissingError(f"another process has used {folder} for {WAIT_S:.0f} s") from None
                time.sleep(0.2)
        yield folder


@contextmanager
def running() -> Iterator[Containerd]:
    """One on a machine of its own, with the images that are kept. Raises MissingError."""
    with (
        images_alone() as images,
        tempfile.TemporaryDirectory(prefix="drift-containerd-") as folder,
        closing(Machine()) as machine,
    ):
        part = Containerd(machine, Path(folder) / "containerd", images)
        try:
            part.server.start()
            yield part
        finally:
            machine.close()
            part.server.kill()
            part.swept()
