"""What every client of a Kafka broker needs: where it is, how it is spoken to, and what its errors mean to people."""

import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.settings import Settings

FORM = "kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC]"
ANSWER_S = 10.0
_BROKER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\],]+):([0-9]{1,5})")
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_ADVICE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "there is no such topic; create it",
    KafkaError._UNKNOWN_TOPIC: "there is no such topic; create it",
    KafkaError._MSG_TIMED_OUT: "no broker took it in time",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not read the topic; allow READ and DESCRIBE",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the consumer group; allow READ of it",
    KafkaError.SASL_AUTHENTICATION_FAILED: "user or password are refused; set DRIFT_KAFKA_USERNAME, _PASSWORD",
    KafkaError._AUTHENTICATION: "user or password are refused; set DRIFT_KAFKA_USERNAME, _PASSWORD, _MECHANISM",
    KafkaError._SSL: "TLS failed; set DRIFT_KAFKA_CA to the authority that signed the broker's certificate",
    KafkaError._ALL_BROKERS_DOWN: "no broker answers",
    KafkaError._TRANSPORT: "no broker answers, or it wants another DRIFT_KAFKA_SECURITY",
    KafkaError._TIMED_OUT: "no broker answered in time",
    KafkaError._RESOLVE: "the name of the host is not known",
}

_SPOKEN = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE}
_TIMING = re.compile(r" \(after \d+ms[^)]*\)")

Client = TypeVar("Client")
log = logging.getLogger(__name__)


class _Log:
    """What librdkafka says, a hundred lines a broker that is down, is for who looks closely: its errors are told."""

    @staticmethod
    def log(_: int, *said: object) -> None:
        log.debug(*said)


@dataclass(frozen=True)
class Address:
    """Brokers as librdkafka spells them, and topics."""

    brokers: str
    topics: tuple[str, ...]

    def __str__(self) -> str:
        return f"kafka://{self.brokers}/{','.join(self.topics)}"

    @staticmethod
    def of(url: str) -> "Address":
        """Raises InputError, which never repeats what may be a password."""
        parts = urlsplit(url)
        brokers, topics = parts.netloc.split(","), parts.path.removeprefix("/").split(",")
        if "@" in parts.netloc:
            raise InputError(f"a kafka:// URL holds no user or password; write {FORM} and set DRIFT_KAFKA_PASSWORD")
        if parts.scheme != "kafka" or parts.query or parts.fragment or not all(map(_BROKER.fullmatch, brokers)):
            raise InputError(f"{url}: is not {FORM}")
        if wrong := [name for name in topics if not _TOPIC.fullmatch(name) or name in (".", "..")]:
            raise InputError(f"{url}: {wrong[0]!r} is no name of a topic; {FORM}")
        if len(set(topics)) < len(topics):
            raise InputError(f"{url}: names a topic twice")
        if any(int(one.rpartition(":")[2]) not in range(1, 65536) for one in brokers):
            raise InputError(f"{url}: a port is from 1 to 65535")
        return Address(parts.netloc, tuple(topics))


def configuration(address: Address, settings: Settings, told: Callable[[KafkaError], None]) -> dict[str, Any]:
    """Of any client. What librdkafka says goes to our log.

    Args:
        told: of what goes wrong between calls, such as that no broker answers.

    Raises:
        InputError: settings that do not fit together, or name a file that is not there.
    """
    found: dict[str, Any] = {
        "bootstrap.servers": address.brokers,
        "client.id": "drift",
        "security.protocol": settings.kafka_security,
        "error_cb": told,
        "logger": _Log,
        "reconnect.backoff.max.ms": 2000,
        "socket.connection.setup.timeout.ms": 10_000,
    }
    files = {
        "ssl.ca.location": ("DRIFT_KAFKA_CA", settings.kafka_ca),
        "ssl.certificate.location": ("DRIFT_KAFKA_CERTIFICATE", settings.kafka_certificate),
        "ssl.key.location": ("DRIFT_KAFKA_KEY", settings.kafka_key),
    }
    for name, (variable, path) in files.items():
        if path is not None and not path.is_file():
            raise InputError(f"{variable}: {path} is no file")
        if path is not None and "ssl" not in settings.kafka_security:
            raise InputError(f"{variable} is set, and DRIFT_KAFKA_SECURITY={settings.kafka_security} has no TLS")
        found |= {name: str(path)} if path else {}
    if secret := settings.kafka_key_password.get_secret_value():
        found["ssl.key.password"] = secret
    secret = settings.kafka_password.get_secret_value()
    if settings.kafka_security.startswith("sasl"):
        if not (settings.kafka_username and secret):
            raise InputError("DRIFT_KAFKA_SECURITY has SASL: set DRIFT_KAFKA_USERNAME and DRIFT_KAFKA_PASSWORD")
        found |= {"sasl.mechanisms": settings.kafka_mechanism, "sasl.username": settings.kafka_username}
        found["sasl.password"] = secret
    elif settings.kafka_username or secret:
        raise InputError("DRIFT_KAFKA_USERNAME or _PASSWORD is set: set DRIFT_KAFKA_SECURITY to sasl_ssl")
    return found


def made(kind: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """A client. Raises InputError where librdkafka does not take the settings, such as a key that fits nothing."""
    try:
        return kind(config)
    except (KafkaException, ValueError) as error:
        raise InputError(f"Kafka's client cannot be made of the DRIFT_KAFKA_ settings: {words(error)}") from error


def words(error: Exception) -> str:
    """One sentence for people."""
    one = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(one, KafkaError):
        return str(error)
    said, advice = _TIMING.sub("", one.str()).rstrip("."), _ADVICE.get(one.code())
    if advice and one.code() in _SPOKEN:  # what it says of them is of this very try
        return advice
    return f"{advice} ({said})" if advice else said


def topic_ids(admin: AdminClient, address: Address, topics: Collection[str]) -> dict[str, str]:
    """Of each topic the id that its broker gave it when it was made: one that is made again has another.

    Raises:
        UnavailableError: no broker answers, or there is no such topic.
        InputError: brokers before Kafka 2.8, which know no such id.
    """
    asked = admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=ANSWER_S)
    found = {}
    for name, answer in asked.items():
        try:
            found[name] = str(answer.result(ANSWER_S + 5).topic_id).replace("/", "_").replace("+", "-")
        except (KafkaException, TimeoutError) as error:
            raise UnavailableError(f"kafka://{address.brokers}/{name}: {words(error)}; capture waits for it") from error
        if found[name].strip("A") == "":
            raise InputError(f"kafka://{address.brokers}/{name}: its broker tells no topic id; use Kafka 2.8 or later")
    return found
