"""The scripted teacher: a real HTTP server on 127.0.0.1 that answers as the paid providers do.

Answers are unique per call unless asked otherwise; a script makes it rate-limit, cut, hang or lie.
Start one in a process of its own with `python -m kdproxy.testing.teacher --port 9000`.
"""

from kdproxy.testing.teacher.call import Outcome, TeacherCall
from kdproxy.testing.teacher.enforcer import Enforcer
from kdproxy.testing.teacher.server import ScriptedTeacher
from kdproxy.testing.teacher.stamp import TOOL_MARKER, prompt_digest
from kdproxy.testing.teacher.step import (
    Answer,
    CutBody,
    CutStream,
    EndTooEarly,
    EndWithoutTerminator,
    ErrorEvent,
    ErrorIn200,
    Gzip,
    Hang,
    HoldAfter,
    HtmlPage,
    InsufficientQuota,
    KeepAlive,
    Overloaded,
    RateLimited,
    Redirect,
    Reset,
    Respond,
    ServerError,
    Slow,
    Step,
)

__all__ = [
    "TOOL_MARKER",
    "Answer",
    "CutBody",
    "CutStream",
    "EndTooEarly",
    "EndWithoutTerminator",
    "Enforcer",
    "ErrorEvent",
    "ErrorIn200",
    "Gzip",
    "Hang",
    "HoldAfter",
    "HtmlPage",
    "InsufficientQuota",
    "KeepAlive",
    "Outcome",
    "Overloaded",
    "RateLimited",
    "Redirect",
    "Reset",
    "Respond",
    "ScriptedTeacher",
    "ServerError",
    "Slow",
    "Step",
    "TeacherCall",
    "prompt_digest",
]
