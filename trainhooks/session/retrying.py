"""Call a teacher's API again after failures, for scripts that go there without the proxy."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from trainhooks.core import argument

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from trainhooks.core.retry import Verdict

log = logging.getLogger("trainhooks")

Function = TypeVar("Function", bound=Callable[..., Any])


class Recorder(Protocol):
    """Where failures are recorded: a session or tracker."""

    def record_connection_failure(self, error: BaseException | str) -> None:
        """Note that a call failed."""

    def record_connection_recovery(self) -> None:
        """Note that calls succeed again."""


def retry_api_call(
    progress: Recorder | None = None, *, deadline_seconds: float = 3_600.0
) -> Callable[[Function], Function]:
    """Make a function that calls an API, sync or async, one that is called again when that may help.

        ask = retry_api_call(progress)(client.chat.completions.create)

    Connection failures, 408, 409, 429 and 5xx are tried again; bad keys, bad requests and a spent quota are not. The
    wait that the provider asks for is kept to; a random part is added. Set the client's own `max_retries=0`: it would
    count each attempt several times. What is streamed is tried again only until the stream begins.

    Args:
        progress: records each failure and the recovery.
        deadline_seconds: from the first attempt on. Where the next wait would pass it the error is raised at once.
    """

    if progress is not None and not hasattr(progress, "record_connection_failure"):
        hint = "Write @retry_api_call() with brackets." if callable(progress) else None
        raise argument.wrong("retry_api_call(progress)", progress, "a session, or left out", hint=hint)
    if not (deadline_seconds == math.inf or argument.is_number(deadline_seconds, least=0)):
        raise argument.wrong("retry_api_call(deadline_seconds=)", deadline_seconds, "a number of seconds from 0 on")
    import tenacity  # only who retries needs it: `import trainhooks` stays light

    def decorate(function: Function) -> Function:
        attempt = _Policy(progress, deadline_seconds)
        # openai's methods are plain functions around coroutine functions.
        if inspect.iscoroutinefunction(inspect.unwrap(function)):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                async def once() -> Any:
                    return await function(*args, **kwargs)

                result: Any = await tenacity.AsyncRetrying(**attempt.options())(once)
                attempt.note_success()
                return result

            return cast(Function, call_async)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            result: Any = tenacity.Retrying(**attempt.options())(function, *args, **kwargs)
            attempt.note_success()
            return result

        return cast(Function, call)

    return decorate


class _Policy:
    """tenacity's decisions, made by `core/retry.py`."""

    def __init__(self, progress: Recorder | None, deadline_seconds: float) -> None:
        self._progress = progress
        self._deadline_seconds = deadline_seconds

    def options(self) -> dict[str, Any]:
        """Return what tenacity is to be made with."""
        import tenacity

        return {
            "retry": self._note_failure,
            "wait": self._wait,
            "stop": tenacity.stop_before_delay(self._deadline_seconds),
            "before_sleep": self._tell,
            "reraise": True,
        }

    def note_success(self) -> None:
        """A call has succeeded."""
        if self._progress is not None:
            self._progress.record_connection_recovery()

    def _note_failure(self, state: RetryCallState) -> bool:
        """Record a failure; return whether it is worth another attempt."""
        error = _error(state)
        if error is None:
            return False
        verdict = _judge(error)
        if verdict.is_call and self._progress is not None:
            self._progress.record_connection_failure(error)
        return verdict.is_retried

    def _wait(self, state: RetryCallState) -> float:
        error = _error(state)
        assert error is not None
        from trainhooks.core import retry

        chance = random.Random().random()  # noqa: S311  of its own: the training's numbers are not for this
        return retry.delay(_judge(error), state.attempt_number, chance)

    def _tell(self, state: RetryCallState) -> None:
        log.warning(
            "attempt %d at the API failed (%s); the next one comes in %.1f s",
            state.attempt_number,
            type(_error(state)).__name__,
            state.upcoming_sleep,
        )


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _judge(error: BaseException) -> Verdict:
    from trainhooks.core import retry

    return retry.judge(error, now=time.time())
