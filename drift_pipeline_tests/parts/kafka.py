"""Apache Kafka: a broker of one node (KRaft), by Maven from its jars and the machine's Java 17 or later."""

import base64
import re
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from drift_pipeline_tests.parts.cache import MissingError, installed, pinned
from drift_pipeline_tests.parts.server import Server, free_port

VARIABLE = "DRIFT_SOURCE"
JAVA = 17
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
{}
</dependencies></project>
"""
_JVM = ("-Xmx256m", "-Xms256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_ALONE = {  # one node: with more copies no group and no transaction ever starts
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
}
_FAST = {
    "group.initial.rebalance.delay.ms": 0,
    "broker.session.timeout.ms": 2000,  # so long one that was killed may not come back
    "broker.heartbeat.interval.ms": 500,
    "log.cleaner.dedupe.buffer.size": 16 << 20,
}


def _java() -> str:
    found = shutil.which("java")
    if found is None:
        raise MissingError("no java on the PATH, which runs Kafka")
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA:
        raise MissingError(f"Kafka needs Java {JAVA}; {found} says {told.partition(chr(10))[0] or 'nothing'}")
    return found


def find() -> Path:
    """The folder of its jars. Raises MissingError."""
    if any((folder := installed("kafka")).glob("kafka_*.jar")):
        _java()
        return folder
    raise MissingError("no Kafka: python -m drift_pipeline_tests.parts install kafka fetches it, a minute with Maven")


def install() -> Path:
    """Fetch its jars with Maven, where they are not in the cache; needs Maven's registry. Raises MissingError."""
    with suppress(MissingError):
        return find()
    _java()
    if shutil.which("mvn") is None:
        raise MissingError("no mvn on the PATH, which fetches Kafka")
    pin, folder = pinned("kafka"), installed("kafka")
    jars = [(pin["group"], pin["artifact"], pin["version"]), ("org.slf4j", "slf4j-simple", pin["slf4j"])]
    names = ("groupId", "artifactId", "version")
    lines = ["".join(f"<{tag}>{one}</{tag}>" for tag, one in zip(names, jar, strict=True)) for jar in jars]
    partial = folder.with_name(f"{folder.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    pom = partial / "pom.xml"
    pom.write_text(_POM.format("\n".join(f"<dependency>{line}</dependency>" for line in lines)), encoding="utf-8")
    options = ("-DincludeScope=runtime", f"-DoutputDirectory={partial}")
    got = subprocess.run(
        ["mvn", "-q", "-B", "-f", str(pom), _PLUGIN, *options], capture_output=True, text=True, check=False
    )
    if got.returncode != 0:
        raise MissingError(f"Kafka cannot be fetched: {(got.stdout + got.stderr).strip()[-1000:]}")
    partial.rename(folder)
    return folder


def guarded(folder: Path, user: str, password: str) -> dict[str, object]:
    """Of a listener with TLS that asks for a password; `ca.pem` in the folder is its own certificate."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as how
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    key, now = generate_private_key(65537, 2048), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = made.add_extension(address, critical=False).sign(key, hashes.SHA256()).public_bytes(how.Encoding.PEM)
    (folder / "ca.pem").write_bytes(certificate)
    private = key.private_bytes(how.Encoding.PEM, how.PrivateFormat.PKCS8, how.NoEncryption())
    (folder / "broker.pem").write_bytes(private + certificate)
    users = f'username="{user}" password="{password}" user_{user}="{password}"'
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return {
        "security": "SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / "broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": folder / "ca.pem",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f"{module} required {users};",
    }


class Kafka:
    """A broker at `brokers`, without a topic; `server.kill` and `server.start` are a crash's."""

    def __init__(self, folder: Path, listener: Mapping[str, object] | None = None) -> None:
        """
        Args:
            listener: properties of another listener than one in plaintext; `security` is its protocol.
        """
        given = dict(listener or {})
        security = str(given.pop("security", "PLAINTEXT"))
        port, controller = free_port(), free_port()
        self.brokers, self._port = f"127.0.0.1:{port}", port
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"CLIENTS://127.0.0.1:{port}",
            "listener.security.protocol.map": f"CLIENTS:{security},CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENTS",
            "log.dirs": folder / "data",
            "auto.create.topics.enable": "false",
            **_ALONE,
            **_FAST,
            **given,
        }
        self._folder, properties = folder, folder / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        self._java = [_java(), *_JVM, _QUIET, "-cp", f"{find()}/*"]
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")  # one in 64 begins with "-"
        self._run("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(properties))
        self.server = Server([*self._java, "kafka.Kafka", str(properties)], folder / "kafka.log", self._answers)

    @property
    def url(self) -> str:
        return f"kafka://{self.brokers}/drift"

    def _run(self, *arguments: str) -> None:
        made = subprocess.run([*self._java, *arguments], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise MissingError(f"Kafka's storage cannot be made here: {(made.stdout + made.stderr).strip()[-1000:]}")

    def _answers(self) -> bool:
        """The listener opens only once the broker may serve."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.5):
            return True
        return False


@contextmanager
def running(listener: Mapping[str, object] | None = None) -> Iterator[Kafka]:
    """A broker without topics. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-kafka-") as folder:
        part = Kafka(Path(folder), listener)
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
