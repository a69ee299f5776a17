"""Log lines over OTLP/HTTP, beside stderr: what a Collector hands on to Loki."""

import logging

from drift_pipeline.errors import InputError
from drift_pipeline.logs import error_of, fields_of, message_of

TIMEOUT_S = 5
_OWN = ("opentelemetry", "urllib3", "requests")  # what sending says would be sent, and so on


def line_handlers(url: str, service: str) -> list[logging.Handler]:
    """What sends to the Collector at `url`; none where there is no url. `service` is the `service.name`.

    Raises:
        InputError: the SDK is not installed.
    """
    return [LineHandler(url, service)] if url else []


class LineHandler(logging.Handler):
    """Sends from a thread of its own; what finds no room in its queue, or nobody to take it, is on stderr alone."""

    def __init__(self, url: str, service: str) -> None:
        """Raises as `line_handlers` does."""
        super().__init__()
        try:
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise InputError(
                f"DRIFT_LOG_OTLP needs the extra otel: pip install 'drift-pipeline[otel]' ({error}), or take it out"
            ) from error
        exporter = OTLPLogExporter(endpoint=f"{url.rstrip('/')}/v1/logs", timeout=TIMEOUT_S)
        self._provider = LoggerProvider(Resource.create({"service.name": service}), shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(exporter))

    def emit(self, record: logging.LogRecord) -> None:
        """Never waits, and never raises."""
        from opentelemetry._logs import SeverityNumber

        if record.name.startswith(_OWN):
            return
        try:
            severity = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname)
            self._provider.get_logger(record.name).emit(
                timestamp=int(record.created * 1_000_000) * 1000,
                severity_number=getattr(SeverityNumber, severity, SeverityNumber.UNSPECIFIED),
                severity_text=record.levelname,
                body=message_of(record),
                attributes={"level": record.levelname, "logger": record.name, **fields_of(record), **error_of(record)},
            )
        except Exception:  # as each handler of the standard library: a line must not end what it is about
            self.handleError(record)

    def close(self) -> None:
        """Send what waits, for some seconds."""
        self._provider.shutdown()
        super().close()
