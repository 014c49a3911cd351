"""Anthropic: limits and errors, as data."""

import re

from kdproxy.core.limits import Dimension, LimitHeaders, Quota
from kdproxy.core.provider_rules import Meaning, Row, Rules

_LIMITS = "docs.claude.com/en/api/rate-limits, read 2026-11"
_ERRORS = "docs.claude.com/en/api/errors, read 2026-11"

ANTHROPIC = Rules(
    name="anthropic",
    hosts=("api.anthropic.com",),
    # _LIMITS: resets are RFC 3339 and say when the bucket is full; output is charged in advance by max_tokens.
    limits=tuple(
        LimitHeaders(
            quota=Quota(dimension),
            limit=f"anthropic-ratelimit-{name}-limit",
            remaining=f"anthropic-ratelimit-{name}-remaining",
            reset=f"anthropic-ratelimit-{name}-reset",
        )
        for dimension, name in (
            (Dimension.REQUESTS, "requests"),
            (Dimension.TOKENS, "tokens"),
            (Dimension.INPUT_TOKENS, "input-tokens"),
            (Dimension.OUTPUT_TOKENS, "output-tokens"),
        )
    ),
    rows=(
        Row(
            meaning=Meaning.SPENT,
            statuses=frozenset({429}),
            names=frozenset({"enforced_spend_limit_reached"}),
            source=_LIMITS,
        ),
        Row(
            meaning=Meaning.SPENT,
            statuses=frozenset({400}),
            message=re.compile("reached your specified API usage limits|credit balance is too low", re.IGNORECASE),
            source=_ERRORS,
        ),
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source=_ERRORS),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_ERRORS),
        Row(meaning=Meaning.RATE_LIMIT, names=frozenset({"rate_limit_error"}), source=_ERRORS),
        # 529; also as the first event of a 200 stream.
        Row(meaning=Meaning.OVERLOAD, names=frozenset({"overloaded_error"}), source=_ERRORS),
    ),
    event_statuses={
        "overloaded_error": 529,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
    },
)
