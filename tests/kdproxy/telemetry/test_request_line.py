"""A request's line is put together in another way than all other lines, and reads like them."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdproxy.core.models import Disposition, Outcome, Usage
from kdproxy.telemetry import log as under_test
from kdproxy.telemetry.log import RequestLog

TEXTS = st.sampled_from(["", "m", "a b", 'say "x"', "a=b", "line\nbreak", "é", "\x7f", "x" * 200]) | st.text(max_size=4)
COUNTS = st.none() | st.integers(0, 10**6)


@given(
    st.builds(
        Outcome,
        disposition=st.sampled_from(Disposition),
        method=st.sampled_from(["GET", "POST", "A B"]),
        path=TEXTS,
        upstream=st.none() | TEXTS,
        status=st.sampled_from([200, 502]),
        elapsed_seconds=st.floats(0, 1e6),
        model=st.none() | TEXTS,
        key=st.none() | st.just("ab" * 32),
        attempts=st.integers(0, 2),
        stored=st.booleans(),
        usage=st.none() | st.builds(Usage, input_tokens=COUNTS, output_tokens=COUNTS),
        error=st.none() | TEXTS,
        reason=st.none() | TEXTS,
    )
)
def test_it_reads_as_other_lines_do(outcome: Outcome) -> None:
    usage = outcome.usage
    fields: dict[str, Any] = {
        "disposition": outcome.disposition,
        "method": outcome.method,
        "path": outcome.path,
        "upstream": outcome.upstream,
        "status": outcome.status,
        "seconds": round(outcome.elapsed_seconds, 4),
        "model": outcome.model,
        "key": None if outcome.key is None else outcome.key[:16],
        "attempts": outcome.attempts or None,
        "stored": outcome.stored or None,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "error": outcome.error,
        "reason": outcome.reason,
    }
    level = under_test.logging.getLevelName(under_test._LEVELS.get(outcome.disposition, under_test.logging.INFO))
    known = [(name, value) for name, value in fields.items() if value is not None]
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test.time, "time", lambda: 1790000000.25)
        RequestLog(stream).observe(outcome)
        wanted = under_test._line(1790000000.25, level, "request", known)
    assert stream.getvalue() == f"{wanted}\n"
