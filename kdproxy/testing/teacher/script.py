"""From a step to what is sent: the usual answer, the provider's refusal, or bytes as scripted."""

import math

from kdproxy.testing.teacher.answer import Reply, Whole
from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.dialect import Dialect
from kdproxy.testing.teacher.fault import Fault, Problem, RefusedError
from kdproxy.testing.teacher.limit import LimitState
from kdproxy.testing.teacher.stamp import Stamp
from kdproxy.testing.teacher.step import (
    ErrorIn200,
    HtmlPage,
    InsufficientQuota,
    Overloaded,
    RateLimited,
    Redirect,
    Respond,
    ServerError,
    Step,
)

_PAGE = b"<!doctype html><html><title>Sign in</title><p>Please sign in to the network.</p></html>\n"


def reply_for(step: Step, call: TeacherCall, dialect: Dialect, stamp: Stamp) -> Reply:
    """Return what the step sends; steps about the transfer do not change the usual answer."""
    match step:
        case Respond(status=status, headers=headers, body=body):
            kinds = [value for name, value in headers.items() if name.lower() == "content-type"]
            rest = {name: value for name, value in headers.items() if name.lower() != "content-type"}
            kind = kinds[0] if kinds else "application/json"
            return Whole(status=status, headers=rest, body=body, content_type=kind)
        case Redirect(location=location, status=status):
            return Whole(status=status, headers={"Location": location}, body=b"", content_type="text/plain")
        case HtmlPage():
            return Whole(body=_PAGE, content_type="text/html; charset=utf-8")
        case ErrorIn200():
            fault = Fault(problem=Problem.SERVER_ERROR, status=200, message="Provider returned an error.")
            return dialect.refuse(fault, call)
        case RateLimited() | ServerError() | Overloaded() | InsufficientQuota():
            return dialect.refuse(_fault_of(step), call)
        case _:
            return _usual(call, dialect, stamp)


def _usual(call: TeacherCall, dialect: Dialect, stamp: Stamp) -> Reply:
    try:
        return dialect.answer(call, stamp)
    except RefusedError as refused:
        return dialect.refuse(refused.fault, call)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Members of wrong types: dialects take them as they come, and a provider would say 400.
        return dialect.refuse(Fault(problem=Problem.BAD_REQUEST, message=f"Invalid type: {error}"), call)


def _fault_of(step: RateLimited | ServerError | Overloaded | InsufficientQuota) -> Fault:
    match step:
        case RateLimited():
            return Fault(
                problem=Problem.RATE_LIMITED,
                message="Rate limit reached",
                retry_after=step.retry_after,
                retry_after_ms=step.retry_after_ms,
                per_day=step.per_day,
                headers=step.headers,
            )
        case ServerError():
            return Fault(
                problem=Problem.SERVER_ERROR,
                status=step.status,
                message="The server had an error while processing your request. Sorry about that!",
                headers=step.headers,
            )
        case Overloaded():
            return Fault(problem=Problem.OVERLOADED, message="Overloaded")
        case InsufficientQuota():
            return Fault(problem=Problem.OUT_OF_QUOTA, message="You exceeded your current quota.")


def limit_fault(state: LimitState) -> Fault:
    """Refuse what a window has no room for; the wait in seconds is rounded up, in milliseconds exact."""
    return Fault(
        problem=Problem.RATE_LIMITED,
        message=f"Rate limit reached: Limit {state.limit}, Used {state.limit}, Requested 1",
        retry_after=float(math.ceil(state.reset_seconds)),
        retry_after_ms=math.ceil(state.reset_seconds * 1000),
    )
