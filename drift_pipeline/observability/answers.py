"""What a receiver of OTLP answers: the SDK's exporters tell only whether its status was below 400."""

from contextlib import suppress
from typing import Any

_TOLD = 200  # letters of what it says


class Answers:
    """The last answer to the requests of a session, which is given to one exporter. It is asked by one thread.

    `status`: 0 where none came. `rejected`: how many of those that were sent it will never take though it took the
    others (OTLP's partial success), and `why`, or else why it took none; its own words, "" where it says nothing.
    """

    def __init__(self) -> None:
        from requests import Session

        self.session = Session()
        self.session.hooks["response"].append(self._hear)
        self.forget()

    def forget(self) -> None:
        self.status, self.rejected, self.why = 0, 0, ""

    @property
    def taken(self) -> bool:
        """A redirection is not followed, and takes nothing."""
        return 200 <= self.status < 300

    def refused(self, sent: int) -> int:
        """How many of those that were sent are not there."""
        return min(self.rejected, sent) if self.taken else sent

    def _hear(self, answer: Any, **_: object) -> None:
        from google.protobuf.message import DecodeError
        from google.rpc.status_pb2 import Status
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        self.status, self.rejected, self.why = answer.status_code, 0, ""
        with suppress(DecodeError):
            if not self.taken:
                self.why = _line(Status.FromString(answer.content).message)
                return
            found = ExportTraceServiceResponse.FromString(answer.content).partial_success  # that of logs has its form
            self.rejected, self.why = max(0, found.rejected_spans), _line(found.error_message)


def _line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:_TOLD]
