"""Gemini's limits and errors, as data: no limit headers; waits and quotas are in the body (google.rpc.Status)."""

import re

from kdproxy.core.pacing.day import next_pacific_midnight
from kdproxy.core.provider_rules import Meaning, Row, Rules

_LIMITS = "ai.google.dev/gemini-api/docs/rate-limits, read 2026-11-25"
_ERRORS = "ai.google.dev/gemini-api/docs/troubleshooting, read 2026-11"

GEMINI = Rules(
    name="gemini",
    hosts=("generativelanguage.googleapis.com",),
    rows=(
        # No allowance for this model at all, although a wait of hours is named (measured, dev.to/nils44344, 2026-10).
        Row(meaning=Meaning.SPENT, statuses=frozenset({429}), message=re.compile(r"\blimit: 0\b"), source=_LIMITS),
        # Its retryDelay may still be 18 s (google-gemini/gemini-cli#10925).
        Row(meaning=Meaning.SPENT_TODAY, statuses=frozenset({429}), quota=re.compile("PerDay"), source=_LIMITS),
        Row(
            meaning=Meaning.RATE_LIMIT,
            statuses=frozenset({429}),
            names=frozenset({"RESOURCE_EXHAUSTED"}),
            source=_ERRORS,
        ),
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source=_ERRORS),
        Row(meaning=Meaning.CREDENTIAL, names=frozenset({"API_KEY_INVALID"}), source=_ERRORS),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_ERRORS),
        Row(meaning=Meaning.OVERLOAD, statuses=frozenset({503}), names=frozenset({"UNAVAILABLE"}), source=_ERRORS),
    ),
    daily_reset=next_pacific_midnight,
)
