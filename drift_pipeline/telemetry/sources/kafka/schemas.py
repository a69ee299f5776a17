"""Events in Avro, in Confluent's wire format: a zero, the schema's number in the registry, and the datum."""

import json
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from typing import Any

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.settings import Settings

_MAGIC = 0
Decode = Callable[[str, bytes], bytes]


def decoder(settings: Settings) -> Decode:
    """Of a topic and a value, the value as JSON; JSON passes as it is.

    The function raises ValueError for what is no datum of its schema, UnavailableError where the registry is silent.

    Raises:
        InputError: a registry is set, and the package that asks it is not installed.
    """
    if not settings.kafka_schemas:
        return lambda _, value: value
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.schema_registry.avro import AvroDeserializer
    except ModuleNotFoundError as error:
        raise InputError(f"DRIFT_KAFKA_SCHEMAS needs {error.name}: pip install 'drift-pipeline[kafka]'") from error
    config: dict[str, Any] = {"url": settings.kafka_schemas}
    if secret := settings.kafka_schemas_token.get_secret_value():
        config["basic.auth.user.info"] = secret
    return partial(_decoded, AvroDeserializer(SchemaRegistryClient.new_client(config)))


def _decoded(deserializer: Any, topic: str, value: bytes) -> bytes:
    from confluent_kafka.schema_registry.error import SchemaRegistryError
    from confluent_kafka.serialization import MessageField, SerializationContext

    if value[:1] != bytes([_MAGIC]):
        return value
    number = int.from_bytes(value[1:5], "big")
    try:
        found = deserializer(value, SerializationContext(topic, MessageField.VALUE))
        return json.dumps(found, default=_plain).encode()
    except SchemaRegistryError as error:
        if error.http_status_code == 404:
            raise ValueError(f"Avro: the registry has no schema {number}") from error
        raise UnavailableError(f"the schema registry does not tell schema {number}: {error}") from error
    except OSError as error:
        raise UnavailableError(f"the schema registry does not answer: {error}") from error
    except Exception as error:  # of a stranger's bytes a library raises whatever it meets
        if type(error).__module__.partition(".")[0] in ("httpx", "httpcore"):
            raise UnavailableError(f"the schema registry does not answer: {error}") from error
        raise ValueError(f"Avro: is no datum of schema {number}: {error}") from error


def _plain(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise ValueError(f"{type(value).__name__} has no form in an event")
