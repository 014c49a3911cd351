"""What a provider's module offers to the server, and which provider a path belongs to."""

from typing import Protocol

from kdproxy.testing.teacher.answer import Reply, Whole
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.fault import Fault
from kdproxy.testing.teacher.limit import LimitState
from kdproxy.testing.teacher.stamp import Stamp


class Dialect(Protocol):
    """One provider's wire format."""

    def answer(self, call: TeacherCall, stamp: Stamp) -> Reply:
        """Answer a call; raise RefusedError where the provider would refuse it."""
        ...

    def refuse(self, fault: Fault, call: TeacherCall) -> Whole:
        """Return a refusal in the provider's format."""
        ...

    def error_event(self, call: TeacherCall, *, position: int) -> bytes:
        """Return what the provider sends inside a stream that fails at this event."""
        ...

    def headers(self, call: TeacherCall, stamp: Stamp, limit: LimitState) -> dict[str, str]:
        """Return the headers that go with every answer: request id and limits."""
        ...
