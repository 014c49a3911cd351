"""OpenAI and Azure OpenAI: limits and errors, as data."""

import re

from kdproxy.core.limits import Dimension, LimitHeaders, Quota
from kdproxy.core.provider_rules import Meaning, Row, Rules
from kdproxy.core.retry import SPENT_NAMES

_GUIDE = "platform.openai.com/docs/guides/rate-limits, read 2026-11"
_ERRORS = "platform.openai.com/docs/guides/error-codes, read 2026-11"
_AZURE = "learn.microsoft.com/azure/ai-services/openai/how-to/quota, read 2026-11"

X_RATELIMIT = tuple(
    LimitHeaders(
        quota=Quota(dimension),
        limit=f"x-ratelimit-limit-{name}",
        remaining=f"x-ratelimit-remaining-{name}",
        reset=f"x-ratelimit-reset-{name}",
    )
    for dimension, name in (
        (Dimension.REQUESTS, "requests"),
        (Dimension.TOKENS, "project-tokens"),
        (Dimension.TOKENS, "tokens"),
    )
)
"""Resets are Go durations (`6m0s`); a project's token limit is narrower, so it comes first."""

ROWS = (
    Row(meaning=Meaning.SPENT, names=SPENT_NAMES, source=_ERRORS),
    Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_ERRORS),
    # No wait is named: OpenAI asks for a slow ramp instead (<= 50 % more per 15 minutes above 1 M TPM).
    Row(meaning=Meaning.RATE_LIMIT, statuses=frozenset({429, 503}), names=frozenset({"slow_down"}), source=_GUIDE),
    Row(meaning=Meaning.OVERLOAD, statuses=frozenset({503}), names=frozenset({"server_is_overloaded"}), source=_ERRORS),
)

EVENT_STATUSES = {"server_error": 500, "rate_limit_exceeded": 429, "overloaded": 503, "server_is_overloaded": 503}

OPENAI = Rules(
    name="openai",
    hosts=("api.openai.com",),
    limits=X_RATELIMIT,
    rows=ROWS,
    event_statuses=EVENT_STATUSES,
)

AZURE = Rules(
    name="azure",
    hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
    limits=tuple(
        LimitHeaders(quota=row.quota, limit=row.limit, remaining=row.remaining, reset=row.reset, is_zero_unknown=True)
        for row in X_RATELIMIT
    ),
    rows=(
        Row(
            meaning=Meaning.FINAL,
            statuses=frozenset({400}),
            names=frozenset({"content_filter", "ResponsibleAIPolicyViolation"}),
            source=_AZURE,
        ),
        *ROWS,
        Row(meaning=Meaning.FINAL, statuses=frozenset({404}), names=frozenset({"DeploymentNotFound"}), source=_AZURE),
        # The code is the status as a string; the wait is in the text ("Please retry after 37 seconds").
        Row(
            meaning=Meaning.RATE_LIMIT,
            statuses=frozenset({429}),
            message=re.compile("retry after", re.IGNORECASE),
            source=_AZURE,
        ),
    ),
    is_strict=True,
    event_statuses=EVENT_STATUSES,
)
